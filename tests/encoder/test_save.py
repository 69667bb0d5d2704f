"""What we save, sentence-transformers reads with the same vectors; what was changed since is noticed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from reasonembed.encoder.card import CardFacts, model_card
from reasonembed.encoder.golden import check_golden
from reasonembed.encoder.lora import LoraSettings, add_lora
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.prompts import query_prompt
from reasonembed.encoder.save import save_encoder
from reasonembed.errors import DamageError, StorageError

PROMPTS = {"query": "", "document": "", "biology": query_prompt("Given a Biology post, find passages.")}


def _save(encoder: Encoder, folder: Path) -> Path:
    return save_encoder(encoder, folder, prompts=PROMPTS, card="# A model\n")


@pytest.mark.parametrize("name", ["minilm", "qwen3", "llama", "bert"])
def test_sentence_transformers_gives_the_same_vectors(
    tiny_models: dict[str, Path], minilm_path: Path, tmp_path: Path, texts: list[str], name: str
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load((tiny_models | {"minilm": minilm_path})[name])
    encoder.max_tokens = 48
    folder = _save(encoder, tmp_path / "model")
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert theirs.max_seq_length == 48
    assert theirs.prompts == PROMPTS
    assert np.abs(theirs.encode(texts) - encoder.encode(texts)).max() < 2e-6
    prompted = theirs.encode(texts, prompt_name="biology")
    assert np.abs(prompted - encoder.encode(texts, prompt=PROMPTS["biology"])).max() < 2e-6
    assert theirs.similarity(prompted, prompted).diagonal().min() > 0.999


@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_a_saved_folder_loads_as_what_was_saved(
    tiny_models: dict[str, Path], tmp_path: Path, texts: list[str], name: str
) -> None:
    encoder = Encoder.load(tiny_models[name])
    again = Encoder.load(_save(encoder, tmp_path / "model"))
    assert (again.pooling, again.max_tokens, again.prompts) == (encoder.pooling, encoder.max_tokens, PROMPTS)
    assert (again.tokenizer.prefix, again.tokenizer.suffix) == (
        encoder.tokenizer.prefix,
        encoder.tokenizer.suffix,
    )
    assert np.array_equal(again.encode(texts), encoder.encode(texts))


def test_the_saved_tokenizer_appends_eos_for_anyone(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    for name in ("qwen3", "llama"):
        folder = _save(Encoder.load(tiny_models[name]), tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(folder)
        bare = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert loaded("a path").input_ids[-1] == loaded.eos_token_id
        assert bare.encode("a path").ids == loaded("a path").input_ids


def test_older_readers_find_what_they_look_for(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_models["llama"], tmp_path / "base"))
    config = json.loads((source / "config.json").read_text())
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config |= {"rope_parameters": {"rope_theta": 500000.0} | scaling}
    (source / "config.json").write_text(json.dumps(config))
    encoder = Encoder.load(source)
    folder = _save(encoder, tmp_path / "model")
    saved = json.loads((folder / "config.json").read_text())
    assert (saved["rope_theta"], saved["rope_scaling"]) == (500000.0, scaling)
    assert saved["torch_dtype"] == "float32"
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tokenizer["add_bos_token"], tokenizer["add_eos_token"]) == (True, True)
    long = ["the shortest path in a graph " * 20]
    assert np.array_equal(Encoder.load(folder).encode(long), encoder.encode(long))
    plain = Encoder.load(tiny_models["llama"]).encode(long)
    assert not np.allclose(encoder.encode(long), plain, atol=1e-3), "the rotary settings matter here"


def test_the_folder_is_spelled_for_every_reader(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = _save(Encoder.load(tiny_models["qwen3"]), tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
    ]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_lasttoken"] is True
    assert sum(value is True for key, value in pooling.items() if key.startswith("pooling_mode_")) == 1
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert settings["default_prompt_name"] is None
    assert settings["similarity_fn_name"] == "cosine"
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".py")]
    assert (folder / "README.md").read_text() == "# A model\n"


def test_a_lora_model_is_merged_and_its_adapter_kept(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import torch

    encoder = Encoder.load(tiny_models["qwen3"])
    before = encoder.encode(["a prime"])
    encoder.model = add_lora(encoder.model, LoraSettings(rank=4, alpha=8))
    assert np.allclose(encoder.encode(["a prime"]), before, atol=1e-6), "a fresh adapter changes nothing"
    adapted = {name for name, parameter in encoder.model.named_parameters() if parameter.requires_grad}
    assert len(adapted) == 2 * 7 * 2, "two matrices for each of seven projections in two layers"
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if name in adapted:
                parameter.add_(0.05)
    changed = encoder.encode(["a prime"])
    assert not np.allclose(changed, before, atol=1e-2)
    folder = _save(encoder, tmp_path / "model")
    assert np.allclose(Encoder.load(folder).encode(["a prime"]), changed, atol=1e-5)
    assert (folder / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("change", ["weights", "tokenizer", "pooling", "torn"])
def test_a_folder_changed_since_is_noticed(tiny_models: dict[str, Path], tmp_path: Path, change: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = _save(Encoder.load(tiny_models["qwen3"]), tmp_path / "model")
    if change == "weights":
        weights = load_file(folder / "model.safetensors")
        weights["layers.1.mlp.down_proj.weight"] *= -1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif change == "tokenizer":
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Lowercase"}}))
        golden = folder / "golden.json"
        assert "Why does" in golden.read_text()
        (folder / "tokenizer_config.json").write_text(
            json.dumps(
                json.loads((folder / "tokenizer_config.json").read_text())
                | {"tokenizer_class": "PreTrainedTokenizerFast"}
            )
        )
    elif change == "pooling":
        path = folder / "1_Pooling" / "config.json"
        path.write_text(json.dumps({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}))
    else:
        path = folder / "golden.json"
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamageError, match=r"tokenizer gives|has cosine|cannot be read"):
        Encoder.load(folder)


def test_a_golden_file_damaged_at_any_byte_is_named_or_does_no_harm(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = _save(Encoder.load(tiny_models["bert"]), tmp_path / "model")
    encoder, path = Encoder.load(folder), folder / "golden.json"
    content = path.read_bytes()
    places = [*range(0, 200), *range(200, len(content), 211)]
    damaged = 0
    for place in places:
        for byte in (0xFF, content[place] ^ 1):
            path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                check_golden(encoder, folder)
            except DamageError as error:
                damaged += 1
                assert str(folder) in str(error) and re.search("opy the model folder again|Restore the", str(error))
    assert damaged > len(places)
    for rows in ([], [{"text": "a", "token_ids": [], "vector": [1.0]}]):
        path.write_text(json.dumps({"dtype": "float32", "max_tokens": 9, "rows": rows}))
        with pytest.raises(DamageError, match=r"golden\.json cannot be read: it holds vectors of \[1?\] numbers"):
            check_golden(encoder, folder)


def test_saving_replaces_what_stood_there_or_leaves_it(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    folder = _save(encoder, tmp_path / "model")
    save_encoder(encoder, folder, prompts={}, card="second")
    assert (folder / "README.md").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder.model, "save_pretrained", full)
    with pytest.raises(StorageError, match="No space left"):
        save_encoder(encoder, folder, prompts={}, card="third")
    assert (folder / "README.md").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_card_has_the_head_that_the_hub_reads() -> None:
    import yaml

    facts = CardFacts(
        base="Qwen/Qwen3-0.6B",
        loss="ri-infonce",
        examples=12,
        domains=["biology"],
        steps=3,
        dimension=64,
        prompts=PROMPTS,
    )
    card = model_card(facts)
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "Qwen/Qwen3-0.6B"
    assert head["library_name"] == "sentence-transformers"
    assert "RI-InfoNCE" in card
    assert 'prompt_name="biology"' in card
