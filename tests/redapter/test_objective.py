"""The options of the loss over a real batch: each equals its definition written out query by query, gradients included,
goes with gradient caching, RI weights and the others, and is today's loss at its neutral value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, normalize

from reasonembed.encoder.model import Encoder
from reasonembed.errors import InputError, StageChanged
from reasonembed.redapter.batches import Batch, annotated_positives, drawn_grades, epoch_batches, not_negatives
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import BatchTexts, cached_backward, tokenize_batch
from reasonembed.redapter.log import read_log
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.receipt import Receipt, refuse_change
from reasonembed.redapter.train import train

CONFIG = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "margin": {"mask_margin": 0.1},
    "several positives": {"multi_positive": True},
    "list-wise": {"listwise_weight": 0.5},
    "distillation": {"distill_weight": 0.3},
    "Matryoshka": {"matryoshka_dims": (8, 24)},
    "all": {
        "mask_margin": 0.1, "multi_positive": True, "listwise_weight": 0.5, "distill_weight": 0.3,
        "matryoshka_dims": (8, 64),
    },
}  # fmt: skip


def _graded(example: TrainingExample, **changes: Any) -> TrainingExample:
    changed = msgspec.structs.replace(example, **changes)
    return msgspec.structs.replace(
        changed,
        positive_grades=tuple(5 - place % 3 for place in range(len(changed.positives))),
        negative_grades=tuple(1 + place % 2 for place in range(len(changed.negatives))),
    )


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    """Six graded queries of four passages: each brings a positive of the next as a negative, and shares a lure; one
    has its own positive, in capitals, among its negatives.
    """
    rows = [_graded(one, negatives=(*one.negatives[-2:], "a shared lure")) for one in examples[:6]]
    rows[0] = _graded(rows[0], negatives=(rows[0].positives[0].upper(), *rows[0].negatives[1:]))
    (found,) = epoch_batches(rows, seed=3, epoch=0, global_queries=6)
    return found


def _changed(**changes: Any) -> TrainConfig:
    return msgspec.structs.replace(CONFIG, **changes)


def _expected(query: Tensor, reasoning: Tensor, passages: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """The objective in the words of its documentation, one query after the other, with nothing shared but torch."""
    texts = [text for group in batch.passages for text in group]
    sizes = {*config.matryoshka_dims, query.shape[1]}
    totals, intensities = [], []
    for number, example in enumerate(batch.examples):
        own = list(range(4 * number, 4 * number + 4))
        whole = query[number] @ passages.T
        positives = [column for column, text in enumerate(texts) if text.lower() in example.positives]
        suspects = set()
        if config.mask_margin is not None:
            limit = float(whole.detach()[own[0]]) + config.mask_margin
            suspects = {
                column for column in range(len(texts)) if column not in own and float(whole.detach()[column]) > limit
            }
        negatives = [column for column in range(len(texts)) if column not in suspects and column not in positives]
        counted = positives if config.multi_positive else own[:1]

        def contrast(scores: Tensor, counted: list[int] = counted, negatives: list[int] = negatives) -> Tensor:
            rows = [scores[[positive, *negatives]] / config.temperature for positive in counted]
            return torch.stack([cross_entropy(row, torch.tensor(0)) for row in rows]).mean()

        thought = (reasoning[number] @ passages.T).detach()
        intensities.append((contrast(whole) / (contrast(thought) + 1e-6)).clamp(0, 5).detach())
        listed = own[:1] + [column for column in own if column in negatives]
        seen = sorted({*counted, *negatives})
        grades = dict(zip(own, _grades_of(example, batch.passages[number]), strict=True))
        total = torch.zeros((), dtype=query.dtype)
        for size in sizes:
            scores = normalize(query[number, :size], dim=0) @ normalize(passages[:, :size], dim=1).T
            total = total + contrast(scores) / len(sizes)
            if config.listwise_weight:
                target = torch.tensor([float(grades[column]) for column in listed], dtype=query.dtype).softmax(0)
                total = total + config.listwise_weight / len(sizes) * cross_entropy(
                    scores[listed] / config.temperature, target
                )
            if config.distill_weight:
                student = (scores[seen] / config.temperature).log_softmax(0)
                teacher = (thought[seen] / config.temperature).log_softmax(0)
                total = total + config.distill_weight / len(sizes) * kl_div(
                    student, teacher, log_target=True, reduction="sum"
                )
        totals.append(total)
    weights = torch.stack(intensities) / torch.stack(intensities).sum()
    if config.loss == "infonce":
        weights = torch.full_like(weights, 1 / len(weights))
    return (weights * torch.stack(totals)).sum()


def _grades_of(example: TrainingExample, drawn: tuple[str, ...]) -> list[int]:
    grades = dict(zip(example.positives, example.positive_grades, strict=True))
    grades |= dict(zip(example.negatives, example.negative_grades, strict=True))
    return [grades[text] for text in drawn]


def _plain(encoder: Encoder, batch: Batch, config: TrainConfig) -> tuple[float, dict[str, Tensor]]:
    """Every text as drawn in one graph."""
    prompts = [f"Instruct: {example.instruction}\nQuery: " for example in batch.examples]
    pairs = list(zip(prompts, batch.examples, strict=True))
    query = encoder.embed(encoder.tokenize([p + e.query for p, e in pairs], config.max_query_tokens))
    reasoning = encoder.embed(encoder.tokenize([p + e.reasoning_query for p, e in pairs], config.max_query_tokens))
    drawn = [text for texts in batch.passages for text in texts]
    passages = encoder.embed(encoder.tokenize(drawn, config.max_passage_tokens))
    loss = _expected(query, reasoning, passages, batch, config)
    loss.backward()
    return loss.item(), _gradients(encoder)


def _gradients(encoder: Encoder) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}
    encoder.model.zero_grad()
    return found


@pytest.mark.parametrize("loss", ["infonce", "ri-infonce"])
@pytest.mark.parametrize("name", OPTIONS)
def test_cached_gradients_of_every_option_are_those_of_its_definition(
    tiny_models: dict[str, Path], batch: Batch, name: str, loss: str
) -> None:
    encoder = Encoder.load(tiny_models["bert"], dtype="float64")
    config = _changed(loss=loss, **OPTIONS[name])
    expected, gradients = _plain(encoder, batch, config)
    texts = tokenize_batch(encoder, batch, config)
    for budget in (60, 100_000):
        outcome = cached_backward(
            encoder, texts, lambda vectors: batch_loss(vectors, texts, batch, config, step=0), budget_tokens=budget
        )
        assert float(outcome.losses.loss) == pytest.approx(expected, abs=1e-10)
        chunked = _gradients(encoder)
        for key, gradient in gradients.items():
            assert (chunked[key] - gradient).abs().max() < 1e-10 * max(1.0, float(gradient.abs().max())), key


@pytest.fixture
def texts(tiny_models: dict[str, Path], batch: Batch) -> BatchTexts:
    return tokenize_batch(Encoder.load(tiny_models["bert"]), batch, CONFIG)


@pytest.fixture
def vectors(texts: BatchTexts) -> Tensor:
    """Random unit vectors of the batch's distinct texts, float32 as in training."""
    generator = torch.Generator().manual_seed(5)
    return normalize(torch.randn(len(texts.ids), 64, generator=generator), dim=1)


def test_every_option_changes_the_loss_of_this_batch(texts: BatchTexts, batch: Batch, vectors: Tensor) -> None:
    found = {name: batch_loss(vectors, texts, batch, _changed(**options), step=0).loss.item()
             for name, options in OPTIONS.items()}  # fmt: skip
    assert len({round(value, 4) for value in found.values()}) == len(OPTIONS), found


@pytest.mark.parametrize("loss", ["infonce", "ri-infonce"])
@pytest.mark.parametrize(
    "neutral",
    [
        {"mask_margin": None}, {"mask_margin": 2.0}, {"multi_positive": False}, {"listwise_weight": 0.0},
        {"distill_weight": 0.0}, {"matryoshka_dims": ()}, {"matryoshka_dims": (64,)},
    ],
)  # fmt: skip
def test_at_its_neutral_value_an_option_gives_the_very_same_loss(
    texts: BatchTexts, batch: Batch, vectors: Tensor, neutral: dict[str, Any], loss: str
) -> None:
    one, other = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    before = batch_loss(one, texts, batch, _changed(loss=loss), step=0)
    now = batch_loss(other, texts, batch, _changed(loss=loss, **neutral), step=0)
    assert torch.equal(before.loss, now.loss) and torch.equal(before.weight_B, now.weight_B)
    assert not now.terms
    before.loss.backward()
    now.loss.backward()
    assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", ["list-wise", "distillation", "Matryoshka"])
def test_intensity_and_weights_are_those_of_the_contrastive_term_on_whole_vectors(
    texts: BatchTexts, batch: Batch, vectors: Tensor, name: str
) -> None:
    plain = batch_loss(vectors, texts, batch, CONFIG, step=0)
    found = batch_loss(vectors, texts, batch, _changed(**OPTIONS[name]), step=0)
    assert torch.equal(found.intensity_B, plain.intensity_B)
    assert torch.equal(found.weight_B, plain.weight_B)
    assert torch.equal(found.terms["contrastive"], plain.loss_B)
    assert found.loss.item() == pytest.approx(float((found.weight_B * found.loss_B).sum()), rel=1e-6)


def test_distillation_needs_no_ri_and_leaves_its_mean_alone(texts: BatchTexts, batch: Batch, vectors: Tensor) -> None:
    config = _changed(loss="infonce", distill_weight=1.0)
    assert config.needs_reasoning and not _changed(loss="infonce").needs_reasoning
    found = batch_loss(vectors, texts, batch, config, step=0)
    expected = found.terms["contrastive"].mean() + found.terms["distillation"].mean()
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_margin_masks_others_passages_and_never_the_querys_own(texts: BatchTexts, batch: Batch) -> None:
    """All scores but the positives' are 1: with a margin of 0 only the own group is left of the negatives."""
    vectors = torch.zeros(len(texts.ids), 64)
    vectors[:, 0] = 1.0
    for row in {texts.passage_C[column] for column in range(0, 24, 4)}:
        vectors[row] = torch.tensor([0.0, 1.0] + [0.0] * 62)
    config = _changed(loss="infonce", mask_margin=0.0)
    found = batch_loss(vectors, texts, batch, config, step=0).loss_B
    mask, positives = not_negatives(batch), {texts.passage_C[column] for column in range(0, 24, 4)}
    for row, loss in enumerate(found):
        own = [column for column in range(4 * row + 1, 4 * row + 4) if not mask[row, column]]
        high = sum(texts.passage_C[column] not in positives for column in own)
        level = sum(texts.passage_C[c] in positives and not mask[row, c] and c != 4 * row for c in range(24))
        expected = torch.tensor(1.0 + level + high * torch.e ** (1 / 0.05)).log()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_with_one_passage_a_query_the_loss_is_cross_entropy_over_the_batchs_positives(
    examples: list[TrainingExample], tiny_models: dict[str, Path]
) -> None:
    apart = [
        msgspec.structs.replace(one, positives=(f"only {number}",), never_negative=frozenset())
        for number, one in enumerate(examples[:5])
    ]
    config = TrainConfig(loss="infonce", temperature=0.1, group_size=1, global_queries=5)
    (batch,) = epoch_batches(apart, seed=0, epoch=0, group_size=1, global_queries=5)
    texts = tokenize_batch(Encoder.load(tiny_models["qwen3"]), batch, config)
    vectors = normalize(torch.randn(len(texts.ids), 16, generator=torch.Generator().manual_seed(0)), dim=1)
    found = batch_loss(vectors, texts, batch, config, step=0)
    scores = vectors[list(texts.query_B)] @ vectors[list(texts.passage_C)].T
    expected = cross_entropy(scores / 0.1, torch.arange(5))
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_annotated_positives_are_found_wherever_they_were_drawn_and_the_source_is_none(
    examples: list[TrainingExample],
) -> None:
    first, second = examples[0], examples[1]
    first = msgspec.structs.replace(
        first,
        positives=("The  Principle", "another"),
        negatives=("the source",),
        never_negative=frozenset(),
    )
    second = msgspec.structs.replace(second, positives=("the principle",), negatives=("another",))
    (batch,) = epoch_batches([first, second], seed=0, epoch=0, group_size=2)
    row = [one.example_id for one in batch.examples].index(first.example_id)
    found, texts = annotated_positives(batch), [text for group in batch.passages for text in group]
    assert found[row].tolist() == [text != "the source" for text in texts]
    assert found[1 - row].tolist() == [text.lower().split() == ["the", "principle"] for text in texts]


def test_each_drawn_passage_has_its_grade(examples: list[TrainingExample]) -> None:
    one = msgspec.structs.replace(
        examples[0],
        positives=("p", "q"), positive_grades=(3, 5), negatives=("n", "m", "n"), negative_grades=(2, 1, 1),
    )  # fmt: skip
    known = {"p": 3, "q": 5, "n": 2, "m": 1}
    for epoch in range(5):
        (batch,) = epoch_batches([one], seed=0, epoch=epoch, group_size=6)
        assert drawn_grades(batch).tolist() == [[known[text] for text in batch.passages[0]]]


# -- Training with them


RECIPE = TrainConfig(
    start_step=0, learning_rate=2e-3, max_query_tokens=48, max_passage_tokens=32, checkpoint_every_steps=0,
    **OPTIONS["all"],
)  # fmt: skip


def test_a_training_with_every_option_learns_logs_its_terms_and_is_found_done_again(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    rows = [_graded(example) for example in examples]
    config = msgspec.structs.replace(RECIPE, epochs=6)
    result = train(rows, tiny_models["bert"], tmp_path / "m", config)
    records = read_log(result.log_path)
    for name in ("contrastive", "listwise", "distillation"):
        values = [record.terms[name] for record in records if record.terms]
        assert len(values) == len(records) == 24
    assert sum(record.mean_loss for record in records[-4:]) < 0.8 * sum(record.mean_loss for record in records[:4])
    assert train(rows, tiny_models["bert"], tmp_path / "m", config) == result
    changed = msgspec.structs.replace(config, matryoshka_dims=(8,))
    with pytest.raises(StageChanged, match=r"matryoshka_dims was \[8, 64\] and is \[8\] now"):
        train(rows, tiny_models["bert"], tmp_path / "m", changed)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "0.5 x ListNet on grades" in card and "their first dimensions (8; `truncate_dim`)" in card


def test_a_receipt_from_before_the_options_is_that_of_their_neutral_values(tmp_path: Path) -> None:
    old = Receipt({"loss": "infonce", "temperature": 0.1}, base="b", base_hash="0", data_hash="0")
    now = msgspec.structs.replace(old, config=old.config | {"distill_weight": 0.0, "matryoshka_dims": []})
    refuse_change(old, now, where=tmp_path)
    with pytest.raises(StageChanged, match=r"distill_weight was 0\.0 and is 0\.5 now"):
        refuse_change(old, msgspec.structs.replace(now, config=now.config | {"distill_weight": 0.5}), where=tmp_path)


def test_what_an_option_needs_is_asked_for_by_name(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    rows, base = [_graded(example) for example in examples], tiny_models["bert"]
    ungraded = [msgspec.structs.replace(rows[0], negative_grades=()), *rows[1:]]
    with pytest.raises(InputError, match=r"'biology-0' of biology has no grade.*pos_scores and neg_scores"):
        train(ungraded, base, tmp_path / "m", RECIPE)
    bare = [*rows[:-1], msgspec.structs.replace(rows[-1], reasoning_query="")]
    with pytest.raises(InputError, match=r"'pony-4' of pony has no reasoning query.*distill_weight = 0"):
        train(bare, base, tmp_path / "m", msgspec.structs.replace(RECIPE, loss="infonce"))
    with pytest.raises(InputError, match="matryoshka_dims asks for 65 dimensions and bert has 64"):
        train(rows, base, tmp_path / "m", msgspec.structs.replace(RECIPE, matryoshka_dims=(65,)))
