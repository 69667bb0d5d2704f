"""Chunked equals whole (law 5): the step's gradients are those of one plain graph over the global batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from reasonembed.encoder.lora import LoraSettings, add_lora
from reasonembed.encoder.microbatch import plan
from reasonembed.encoder.model import Encoder
from reasonembed.redapter.batches import Batch, epoch_batches, not_negatives
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import BatchTexts, cached_backward, tokenize_batch
from reasonembed.redapter.loss import reasoning_intensity, ri_weights
from reasonembed.redapter.objective import batch_loss

CONFIG = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05)
PLENTY = 1 << 40  # bytes
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    """Five queries with three passages each, some of which meet twice, and one drawn twice by the same
    query.
    """
    rows = [
        msgspec.structs.replace(example, negatives=(*example.negatives[-1:], "a shared lure")) for example in examples
    ]
    (batch,) = epoch_batches(rows[:5], seed=3, epoch=0, group_size=4, global_queries=5)
    return batch


def _plain(encoder: Encoder, batch: Batch, config: TrainConfig) -> tuple[float, dict[str, torch.Tensor]]:
    """The textbook: every text as drawn in one padded batch with its graph, cross entropy, backward."""
    prompts = [f"Instruct: {example.instruction}\nQuery: " for example in batch.examples]
    pairs = list(zip(prompts, batch.examples, strict=True))
    query = encoder.embed(encoder.tokenize([p + e.query for p, e in pairs], config.max_query_tokens))
    passages = encoder.embed(
        encoder.tokenize([text for texts in batch.passages for text in texts], config.max_passage_tokens)
    )
    targets = torch.arange(len(batch.examples)) * batch.group_size
    mask = torch.from_numpy(not_negatives(batch)) if config.mask_positives else torch.zeros(1, dtype=torch.bool)

    def loss_of(vectors: torch.Tensor) -> torch.Tensor:
        scores = (vectors @ passages.T / config.temperature).masked_fill(mask, -torch.inf)
        return torch.nn.functional.cross_entropy(scores, targets, reduction="none")

    loss = loss_of(query)
    weights = torch.full_like(loss, 1 / len(loss)).detach()
    if config.loss == "ri-infonce":
        with torch.no_grad():
            ids = encoder.tokenize([p + e.reasoning_query for p, e in pairs], config.max_query_tokens)
            weights = ri_weights(reasoning_intensity(loss, loss_of(encoder.embed(ids))))
    total = (weights * loss).sum()
    total.backward()
    return total.item(), _gradients(encoder)


def _gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}
    encoder.model.zero_grad()
    return found


def _cached(
    encoder: Encoder, batch: Batch, config: TrainConfig, budget: int, *, step: int = 0, graph_bytes: int = 0
) -> tuple[float, dict[str, torch.Tensor]]:
    texts = tokenize_batch(encoder, batch, config)
    outcome = cached_backward(
        encoder,
        texts,
        lambda vectors: batch_loss(vectors, texts, batch, config, step=step),
        budget_tokens=budget,
        graph_bytes=graph_bytes,
    )
    assert outcome.graph_kept == bool(graph_bytes)
    return float(outcome.losses.loss), _gradients(encoder)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("loss", ["infonce", "ri-infonce"])
@pytest.mark.parametrize(("name", "dtype"), [("qwen3", "float64"), ("bert", "float64"), ("llama", "float32")])
def test_gradients_equal_the_plain_computation_for_any_budget(
    tiny_models: dict[str, Path],
    load_exact: Callable[[Path], Encoder],
    batch: Batch,
    name: str,
    dtype: str,
    loss: str,
    masked: bool,
) -> None:
    encoder = (load_exact if dtype == "float64" else Encoder.load)(tiny_models[name])
    config = msgspec.structs.replace(CONFIG, loss=loss, mask_positives=masked)
    expected, gradients = _plain(encoder, batch, config)
    assert not_negatives(batch).any(), "the mask is not idle"
    for budget, graph_bytes in ((1, 0), (100, 0), (100_000, 0), (1, PLENTY), (100, PLENTY), (100_000, PLENTY)):
        found, chunked = _cached(encoder, batch, config, budget, graph_bytes=graph_bytes)
        assert found == pytest.approx(expected, abs=TOLERANCE[dtype])
        assert chunked.keys() == gradients.keys()
        for key, gradient in gradients.items():
            scale = max(1.0, float(gradient.abs().max()))
            assert (chunked[key] - gradient).abs().max() < TOLERANCE[dtype] * scale, key


def test_lora_gradients_equal_the_plain_computation(
    tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder], batch: Batch
) -> None:
    encoder = load_exact(tiny_models["qwen3"])
    encoder.model = add_lora(encoder.model, LoraSettings(rank=4, alpha=8)).double()
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02)
    _, gradients = _plain(encoder, batch, CONFIG)
    _, chunked = _cached(encoder, batch, CONFIG, 64)
    assert len(gradients) == 2 * 7 * 2
    for key, gradient in gradients.items():
        assert (chunked[key] - gradient).abs().max() < 1e-10 * max(1.0, float(gradient.abs().max()))


def test_each_distinct_text_is_encoded_once_and_counts_as_often_as_it_was_drawn(
    tiny_models: dict[str, Path], batch: Batch
) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    texts = tokenize_batch(encoder, batch, CONFIG)
    drawn = [text for group in batch.passages for text in group]
    assert len(drawn) > len(set(drawn)), "some passage was drawn twice"
    assert len(texts.passage_C) == len(drawn)
    assert len(texts.ids) == len(set(drawn)) + 2 * len(batch.examples)
    for text, row in zip(drawn, texts.passage_C, strict=True):
        assert texts.ids[row].tolist() == encoder.tokenize([text], 32)[0].tolist()


def test_a_text_that_is_query_and_passage_at_once_is_one_row(
    tiny_models: dict[str, Path], examples: list[TrainingExample]
) -> None:
    same = msgspec.structs.replace(examples[0], query=examples[0].positives[0], positives=examples[0].positives[:1])
    (batch,) = epoch_batches([same], seed=0, epoch=0, group_size=2)
    config = msgspec.structs.replace(CONFIG, instruction=False, max_query_tokens=32)
    encoder = Encoder.load(tiny_models["bert"], dtype="float64")
    texts = tokenize_batch(encoder, batch, config)
    assert texts.query_B[0] == texts.passage_C[0]


def test_reasoning_queries_are_encoded_without_a_second_pass(
    tiny_models: dict[str, Path], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    texts = tokenize_batch(encoder, batch, CONFIG)
    seen: dict[bool, int] = {True: 0, False: 0}
    embed = encoder.embed

    def counting(ids: list, **options: object) -> torch.Tensor:
        seen[torch.is_grad_enabled()] += len(ids)
        return embed(ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "embed", counting)
    cached_backward(encoder, texts, lambda v: batch_loss(v, texts, batch, CONFIG, step=0), budget_tokens=200)
    assert seen == {False: len(texts.ids), True: len(texts.ids) - len(batch.examples)}


def test_a_kept_graph_spares_the_second_pass_and_one_too_large_does_not(
    tiny_models: dict[str, Path], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    texts = tokenize_batch(encoder, batch, CONFIG)
    need = _graph_bytes(encoder, texts, budget=200)
    seen: list[tuple[bool, int]] = []
    embed = encoder.embed

    def watching(ids: list, **options: object) -> torch.Tensor:
        seen.append((torch.is_grad_enabled(), len(ids)))
        return embed(ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "embed", watching)
    for share, kept in ((2.0, True), (0.5, False)):
        seen.clear()
        outcome = cached_backward(
            encoder,
            texts,
            lambda v: batch_loss(v, texts, batch, CONFIG, step=0),
            budget_tokens=200,
            graph_bytes=int(share * need),
        )
        encoder.model.zero_grad()
        assert outcome.graph_kept == kept
        trained = len(texts.ids) - len(batch.examples)
        first_batch = seen[0][1]
        assert sum(count for grad, count in seen if grad) == trained + (0 if kept else first_batch)
        assert sum(count for grad, count in seen if not grad) == len(batch.examples) + (
            0 if kept else trained - first_batch
        )


def _graph_bytes(encoder: Encoder, texts: BatchTexts, *, budget: int) -> int:
    """What autograd saves for all micro-batches, by its own hooks: storages that are no weight's, each once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.model.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = [texts.ids[row] for row in texts.trained_rows]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = [encoder.embed([ids[row] for row in rows]) for rows in plan([len(one) for one in ids], budget)]
    assert kept
    return sum(storages.values())


def test_weights_count_from_the_start_step_on(tiny_models: dict[str, Path], batch: Batch) -> None:
    encoder = Encoder.load(tiny_models["bert"], dtype="float64")
    late = msgspec.structs.replace(CONFIG, start_step=5)
    plain, _ = _cached(encoder, batch, msgspec.structs.replace(CONFIG, loss="infonce"), 500)
    weighted, _ = _cached(encoder, batch, CONFIG, 500)
    assert _cached(encoder, batch, late, 500, step=4)[0] == pytest.approx(plain, abs=1e-12)
    assert _cached(encoder, batch, late, 500, step=5)[0] == pytest.approx(weighted, abs=1e-12)
    assert abs(plain - weighted) > 1e-4


def test_the_released_prompt_format_is_what_is_tokenised(tiny_models: dict[str, Path], batch: Batch) -> None:
    encoder = Encoder.load(tiny_models["qwen3"])
    first = batch.examples[0]
    wide = msgspec.structs.replace(CONFIG, max_query_tokens=512)
    texts = tokenize_batch(encoder, batch, wide)
    assert texts.reasoning_B is not None
    for row, text in ((texts.query_B[0], first.query), (texts.reasoning_B[0], first.reasoning_query)):
        decoded = encoder.tokenizer.tokenizer.decode(texts.ids[row])
        assert decoded == f"Instruct: {first.instruction}\nQuery: {text}<|endoftext|>"
    bare = tokenize_batch(encoder, batch, msgspec.structs.replace(wide, instruction=False))
    assert encoder.tokenizer.tokenizer.decode(bare.ids[bare.query_B[0]]) == f"{first.query}<|endoftext|>"


def test_texts_over_the_limit_are_cut_and_counted(tiny_models: dict[str, Path], batch: Batch) -> None:
    encoder = Encoder.load(tiny_models["qwen3"])
    texts = tokenize_batch(encoder, batch, msgspec.structs.replace(CONFIG, max_passage_tokens=8))
    assert max(len(texts.ids[row]) for row in texts.passage_C) == 8
    assert texts.truncated > 0
    wide = msgspec.structs.replace(CONFIG, max_query_tokens=512, max_passage_tokens=512)
    assert tokenize_batch(encoder, batch, wide).truncated == 0


def test_a_loss_that_is_not_finite_leaves_no_gradient(tiny_models: dict[str, Path], batch: Batch) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    with torch.no_grad():
        next(encoder.model.parameters()).fill_(torch.nan)
    found, gradients = _cached(encoder, batch, CONFIG, 500)
    assert found != found
    assert not gradients
