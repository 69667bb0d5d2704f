"""What lies in a model folder, read without loading the model: nothing in it is run or trusted (law 8)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.errors import InputError, shown
from reasonembed.files import open_binary

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_POOLING_NAMES = {"lasttoken": "last_token", "mean": "mean", "cls": "cls"}
_POOLING_KEYS = {
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_SAMPLE_BYTES = 1 << 20  # of each weights file from either end: 16 GB need not be read to know them again
_CURE = "Give a sentence-transformers folder, a transformers folder, or a hub name such as Qwen/Qwen3-0.6B."


class ModelFolder(msgspec.Struct, frozen=True):
    """A folder that can be loaded. `pooling` and `max_tokens` are None where it does not say."""

    root: Path
    transformer: Path  # where config.json, the tokenizer and the weights lie
    pooling: str | None
    max_tokens: int | None
    lower_case: bool
    prompts: dict[str, str]


def find_model(path_or_name: str | Path) -> Path:
    """The folder of a model: the path itself, or where the hub's client keeps the model of that name.

    Only JSON, tokenizer, chat template and safetensors files are fetched. Raises InputError if there is neither.
    """
    path = Path(path_or_name)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file, not a model folder. {_CURE}")
    if not _HUB_NAME.fullmatch(str(path_or_name)):
        raise InputError(f"there is no model folder {path}. {_CURE}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                str(path_or_name),
                allow_patterns=["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"],
                ignore_patterns=["onnx/*", "openvino/*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path_or_name} is no folder here, and the hub did not give it: {first} Check the name and the network, "
            f"or give the path of a folder."
        ) from error


def read_model_folder(folder: Path) -> ModelFolder:
    """What the files of `folder` say. Raises InputError for no model, or one that we refuse to load."""
    modules = _read(folder / "modules.json", list) if (folder / "modules.json").exists() else None
    transformer, pooling = (folder, None) if modules is None else _read_modules(folder, modules)
    if not (transformer / "config.json").exists():
        raise InputError(f"{folder} is no model folder: it has no config.json. {_CURE}")
    _refuse_code(transformer)
    _refuse_pickles(transformer)
    settings = _read_if_there(transformer / "sentence_bert_config.json")
    prompts = _read_if_there(folder / "config_sentence_transformers.json").get("prompts") or {}
    return ModelFolder(
        root=folder,
        transformer=transformer,
        pooling=pooling,
        max_tokens=settings.get("max_seq_length"),
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts={str(name): str(prompt or "") for name, prompt in prompts.items()},
    )


def fingerprint(folder: Path) -> str:
    """A name for a model's weights: hashes of their files' sizes, beginnings and ends, and of its config."""
    transformer = read_model_folder(folder).transformer
    digest = hashlib.sha256((transformer / "config.json").read_bytes())
    for path in sorted(transformer.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as handle:
            digest.update(handle.read(_SAMPLE_BYTES))
            handle.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(handle.read())
    return digest.hexdigest()


def _read_modules(folder: Path, modules: list[Any]) -> tuple[Path, str]:
    places: dict[str, Path] = {}
    for module in modules:
        package, _, kind = str(module.get("type", "")).rpartition(".")
        if not package.startswith("sentence_transformers") or kind not in (
            "Transformer",
            "Pooling",
            "Normalize",
        ):
            raise InputError(
                f"{folder / 'modules.json'} names the module {shown(module.get('type'))}; only Transformer, Pooling "
                f"and Normalize of sentence-transformers are loaded here, and no code from a model folder. Choose "
                f"another model."
            )
        place = folder / str(module.get("path", ""))
        if not place.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{folder / 'modules.json'}: the path {shown(module.get('path'))} leads out of the folder. Refused."
            )
        places[kind] = place
    if "Transformer" not in places or "Pooling" not in places:
        raise InputError(f"{folder / 'modules.json'} lists {sorted(places)}; a Transformer and a Pooling are needed.")
    return places["Transformer"], _read_pooling(places["Pooling"] / "config.json")


def _read_pooling(path: Path) -> str:
    config = _read(path, dict)
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    modes = modes or [name for key, name in _POOLING_KEYS.items() if config.get(key)]
    if len(modes) != 1 or modes[0] not in _POOLING_NAMES or not config.get("include_prompt", True):
        raise InputError(
            f"{path}: pooling by {' and '.join(map(str, modes)) or 'nothing'}"
            f"{'' if config.get('include_prompt', True) else ' without the prompt'} is not supported; "
            f"one of {', '.join(_POOLING_NAMES)} is. Choose another model."
        )
    return _POOLING_NAMES[modes[0]]


def _refuse_code(transformer: Path) -> None:
    auto_map = _read(transformer / "config.json", dict).get("auto_map")
    if auto_map:
        raise InputError(
            f"{transformer / 'config.json'} asks for code of its own (auto_map: {shown(auto_map)}); such code is never "
            f"run here. Choose a model that transformers itself knows."
        )


def _refuse_pickles(transformer: Path) -> None:
    if (transformer / "model.safetensors").exists() or (transformer / "model.safetensors.index.json").exists():
        return
    found = sorted(path.name for pattern in _PICKLES for path in transformer.glob(pattern))
    if found:
        raise InputError(
            f"{transformer} holds its weights in {', '.join(found)}: pickle files can run code and are refused. "
            f"Convert them to model.safetensors (in transformers: save_pretrained)."
        )
    raise InputError(f"{transformer} has no weights (model.safetensors). Copy the folder again, whole.")


def _read(path: Path, kind: type[Any]) -> Any:
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        value = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: broken JSON ({error}). Copy the model folder again.") from error
    if not isinstance(value, kind):
        raise InputError(
            f"{path}: a JSON {kind.__name__} was expected, found {shown(value)}. Copy the model folder again."
        )
    return value


def _read_if_there(path: Path) -> dict[str, Any]:
    return _read(path, dict) if path.exists() else {}
