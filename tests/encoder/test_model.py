"""Vectors do not depend on batch, order, padding or budget; a folder that is no model is named as such."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError, InputError

NAMES = ["bert", "llama", "qwen3"]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_single_texts_give(tiny_models: dict[str, Path], texts: list[str], name: str) -> None:
    encoder = Encoder.load(tiny_models[name])
    single = np.concatenate([encoder.encode([text]) for text in texts])
    for budget in (16, 200, 4096):
        assert np.abs(encoder.encode(texts, micro_batch_tokens=budget) - single).max() < 1e-5


@pytest.mark.parametrize("pooling", ["last_token", "mean", "cls"])
@pytest.mark.parametrize("name", NAMES)
def test_left_and_right_padding_give_equal_vectors(
    tiny_models: dict[str, Path], texts: list[str], name: str, pooling: str
) -> None:
    encoder = Encoder.load(tiny_models[name], pooling=pooling, dtype="float64")  # type: ignore[arg-type]
    ids = encoder.tokenize([text for text in texts if text])
    with torch.no_grad():
        right, left = encoder.embed(ids), encoder.embed(ids, padding_side="left")
    assert (right - left).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_decoder_is_read_at_its_eos_token(tiny_models: dict[str, Path], name: str) -> None:
    model = AutoModel.from_pretrained(tiny_models[name], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[name])
    ids = [*tokenizer("why a prime").input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    found = Encoder.load(tiny_models[name]).encode(["why a prime"])[0]
    assert np.allclose(found, torch.nn.functional.normalize(expected, dim=0).numpy(), atol=1e-6)


def test_an_encoder_of_a_bare_folder_is_read_by_its_mean(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    assert (encoder.pooling, encoder.causal, encoder.dimension) == ("mean", False, 64)
    other = Encoder.load(tiny_models["bert"], pooling="cls")
    assert not np.allclose(encoder.encode(["a prime"]), other.encode(["a prime"]), atol=1e-3)


def test_minilm_is_what_sentence_transformers_makes_of_it(minilm_path: Path, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(minilm_path)
    theirs = SentenceTransformer(str(minilm_path), device="cpu").encode(texts, prompt="query: ")
    ours = encoder.encode(texts, prompt="query: ")
    assert (encoder.max_tokens, encoder.position_limit, encoder.dtype) == (256, 512, "float32")
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


def test_a_prompt_counts_and_a_limit_cuts(tiny_models: dict[str, Path], texts: list[str]) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    assert np.allclose(encoder.encode(["water"], prompt="why "), encoder.encode(["why water"]))
    assert not np.allclose(encoder.encode(texts[-1:]), encoder.encode(texts[-1:], max_tokens=16), atol=1e-3)


def test_progress_counts_every_text_and_none_need_be_given(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    seen: list[tuple[int, int]] = []
    encoder.encode(["a", "why", "a path"], micro_batch_tokens=6, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (3, 3)
    assert encoder.encode([]).shape == (0, 64)


def test_half_precision_gives_float32_vectors_near_the_true_ones(tiny_models: dict[str, Path]) -> None:
    texts = ["why does water boil", "a prime modulus"]
    exact = Encoder.load(tiny_models["bert"]).encode(texts)
    half = Encoder.load(tiny_models["bert"], dtype="bfloat16").encode(texts)
    assert half.dtype == np.float32
    assert (exact * half).sum(axis=1).min() > 0.99


def _folder(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def test_folders_that_cannot_be_loaded_are_refused_by_name(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no model")
    for place, message in {
        tmp_path / "empty": "has no config.json",
        tmp_path / "file.txt": "is a file",
        tmp_path / "nowhere": "no model folder",
        "nobody/has-this-model": "the hub did not give it",
    }.items():
        with pytest.raises(InputError, match=message):
            Encoder.load(place)
    pickled = _folder(tiny_models["bert"], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*refused"):
        Encoder.load(pickled)
    (pickled / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="has no weights"):
        Encoder.load(pickled)


def test_code_in_a_model_folder_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = _folder(tiny_models["bert"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="auto_map"):
        Encoder.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    for module, message in (
        ({"type": "evil.Evil", "path": ""}, "evil.Evil"),
        ({"type": "sentence_transformers.models.Dense", "path": "2_Dense"}, "Dense"),
        ({"type": "sentence_transformers.models.Pooling", "path": "../other"}, "leads out"),
    ):
        (folder / "modules.json").write_text(json.dumps([module]))
        with pytest.raises(InputError, match=message):
            Encoder.load(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_lack_a_layer_are_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = _folder(tiny_models["qwen3"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop("layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, e\.g\. layers\.1\.mlp\.up_proj\.weight"):
        Encoder.load(folder)


def test_mistyped_settings_are_named(minilm_path: Path) -> None:
    with pytest.raises(ConfigError, match='did you mean "float32"'):
        Encoder.load(minilm_path, dtype="flot32")
    with pytest.raises(ConfigError, match="512 positions"):
        Encoder.load(minilm_path, max_tokens=8192)
