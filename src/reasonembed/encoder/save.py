"""A trained encoder as a sentence-transformers folder that the field can read (CONVENTIONS: model folder).

Module paths and pooling keys stand in the spelling that sentence-transformers 3 to 6, TEI and vLLM all read.
The tokenizer appends EOS itself where the pooling reads it. Safetensors only; LoRA merged, its adapter kept
beside.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonembed.encoder.golden import write_golden
from reasonembed.encoder.loading import no_progress_bars
from reasonembed.encoder.model import Encoder
from reasonembed.errors import StorageError
from reasonembed.files import write_json, write_text

_MODULES = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "last_token": "pooling_mode_lasttoken",
}


def save_encoder(
    encoder: Encoder,
    folder: Path,
    *,
    prompts: Mapping[str, str],
    card: str,
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Write `encoder` to `folder`, whole or not at all; what stood there before is replaced.

    prompts: name -> what precedes a text (`query`, `document`, one per domain).  card: the text of README.md.
    extra: further text files, by name.  A LoRA model is merged by this: `encoder.model` is the merged one
    after.
    Raises StorageError when the disk refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".tmp-{folder.name}-"))
        try:
            _write(encoder, temporary, prompts)
            for name, text in {"README.md": card, **(extra or {})}.items():
                write_text(temporary / name, text)
            temporary.chmod(0o755)
            _put_in_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot write the model folder {folder}: {error}. Free some space and try again."
        ) from error
    return folder


def _write(encoder: Encoder, folder: Path, prompts: Mapping[str, str]) -> None:
    if hasattr(encoder.model, "merge_and_unload"):
        encoder.model.save_pretrained(folder / "adapter", safe_serialization=True)
        encoder.model = encoder.model.merge_and_unload().eval()
    with no_progress_bars():
        encoder.model.save_pretrained(folder)
    _spell_config_for_older_readers(folder / "config.json")
    _write_tokenizer(encoder, folder)
    write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (name, path, kind) in enumerate(_MODULES)
        ],
    )
    pooling: dict[str, object] = {"word_embedding_dimension": encoder.dimension}
    pooling |= {key: name == encoder.pooling for name, key in _POOLING_KEYS.items()}
    write_json(folder / "1_Pooling" / "config.json", pooling | {"include_prompt": True})
    (folder / "2_Normalize").mkdir()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_tokens, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": _versions(),
            "prompts": dict(prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    write_golden(encoder, folder)


def _spell_config_for_older_readers(path: Path) -> None:
    """Name the rotary settings and the type as transformers 4 does too, which would take its defaults in
    silence.
    """
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_scaling"] = scaling if scaling.get("rope_type", "default") != "default" else None
    config["torch_dtype"] = config.get("dtype")
    write_json(path, config)


def _write_tokenizer(encoder: Encoder, folder: Path) -> None:
    """The tokenizer's files: `tokenizer.json` appends EOS where the pooling reads it, and the config agrees.

    transformers 4 builds Llama's special tokens anew from `add_bos_token` and `add_eos_token`, and does
    not know the class name that transformers 5 gives to a plain fast tokenizer.
    """
    tokens = encoder.tokenizer
    tokens.tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "add_bos_token", "add_eos_token"):
        config.pop(key, None)
    config["model_max_length"] = encoder.max_tokens
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if tokens.appends_eos:
        config["padding_side"] = "left"  # as the released checkpoints; last-token pooling is right with either
        if tokens.prefix in ([], [tokens.tokenizer.bos_token_id]):
            config |= {"add_bos_token": bool(tokens.prefix), "add_eos_token": True}
    write_json(path, config)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "sentence_transformers": version("sentence-transformers"),
        "transformers": version("transformers"),
        "pytorch": version("torch"),
    }


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename; a folder cannot be renamed over one that has content, so the old one steps aside first."""
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".old-{folder.name}-"))
    folder.rename(aside / "old")
    temporary.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
