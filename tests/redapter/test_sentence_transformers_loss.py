"""The loss in a real trainer of sentence-transformers, and its value beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from torch import Tensor

import reasonembed
from reasonembed.encoder.model import Encoder
from reasonembed.redapter.batches import Batch, epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import tokenize_batch
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.sentence_transformers_loss import RiInfoNceLoss

CONFIG = TrainConfig(start_step=0, instruction=False, temperature=0.05)


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    """Four queries with two negatives each; one negative is another query's positive. No positives but the drawn."""
    rows = [
        msgspec.structs.replace(
            example,
            positives=example.positives[:1],
            negatives=(f"lure {number} of torque", examples[(number + 1) % 4].positives[0]),
            never_negative=frozenset(),
        )
        for number, example in enumerate(examples[:4])
    ]
    (found,) = epoch_batches(rows, seed=0, epoch=0, group_size=3)
    return found


@pytest.fixture
def model(tiny_models: dict[str, Path]) -> SentenceTransformer:
    """The tiny BERT as sentence-transformers loads a bare folder (mean pooling), without dropout."""
    loaded = SentenceTransformer(str(tiny_models["bert"]), device="cpu")
    for module in loaded.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


def _columns(batch: Batch) -> dict[str, list[str]]:
    return {
        "anchor": [example.query for example in batch.examples],
        "positive": [texts[0] for texts in batch.passages],
        "negative_1": [texts[1] for texts in batch.passages],
        "negative_2": [texts[2] for texts in batch.passages],
        "reasoning_query": [example.reasoning_query for example in batch.examples],
    }


def _features(model: SentenceTransformer, columns: dict[str, list[str]]) -> list[dict[str, Tensor]]:
    return [model.preprocess(texts) for texts in columns.values()]


def _ours(tiny_bert: Path, batch: Batch, **changes: Any) -> float:
    encoder = Encoder.load(tiny_bert)
    config = msgspec.structs.replace(CONFIG, **changes)
    texts = tokenize_batch(encoder, batch, config)
    vectors = encoder.embed(texts.ids).detach()
    return batch_loss(vectors, texts, batch, config, step=0).loss.item()


def _arguments(folder: Path, **changes: Any) -> SentenceTransformerTrainingArguments:
    settings: dict[str, Any] = {
        "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "use_cpu": True,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "lr_scheduler_type": "constant",
    }  # fmt: skip
    return SentenceTransformerTrainingArguments(str(folder), **settings | changes)


class Watched(RiInfoNceLoss):
    """Notes the step and the value of each call, and what the plain mean would have been."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        found = super().forward(columns, labels)
        with torch.no_grad():
            plain = RiInfoNceLoss(self.model, negatives=self.negatives, temperature=self.temperature)
            plain.step = 0
            self.calls = [*getattr(self, "calls", []), (self.step, found.item(), plain(columns).item())]
        return found


@pytest.mark.parametrize("masked", [True, False])
def test_its_value_is_ours(
    tiny_models: dict[str, Path], model: SentenceTransformer, batch: Batch, masked: bool
) -> None:
    loss = RiInfoNceLoss(model, negatives=2, start_step=0, temperature=0.05, mask_equal=masked)
    found = loss(_features(model, _columns(batch))).item()
    assert found == pytest.approx(_ours(tiny_models["bert"], batch, mask_positives=masked), abs=1e-5)
    other = _ours(tiny_models["bert"], batch, mask_positives=not masked)
    assert abs(found - other) > 1e-2, "the mask is not idle"


def test_before_the_start_step_it_is_the_loss_that_sentence_transformers_has(
    model: SentenceTransformer, batch: Batch
) -> None:
    loss = RiInfoNceLoss(model, negatives=2, temperature=0.05, mask_equal=False)
    loss.step = 99
    columns = _columns(batch)
    expected = losses.MultipleNegativesRankingLoss(model, scale=20.0)(
        _features(model, {name: texts for name, texts in columns.items() if name != "reasoning_query"}), None
    )
    assert loss(_features(model, columns)).item() == pytest.approx(expected.item(), abs=1e-5)
    loss.step = 100
    assert abs(loss(_features(model, columns)).item() - expected.item()) > 1e-3


def test_two_steps_in_a_real_trainer_start_at_our_value_and_learn(
    tiny_models: dict[str, Path], model: SentenceTransformer, batch: Batch, tmp_path: Path
) -> None:
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    loss = RiInfoNceLoss(model, negatives=2, start_step=0, temperature=0.05)
    trainer = SentenceTransformerTrainer(
        model=model, args=_arguments(tmp_path), train_dataset=Dataset.from_dict(_columns(batch)), loss=loss
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    assert logged[0] == pytest.approx(_ours(tiny_models["bert"], batch), abs=1e-3), "the trainer rounds its log"
    assert logged[1] < logged[0]
    assert any(not torch.equal(before[name], weights) for name, weights in model.named_parameters())


def test_the_start_step_counts_optimiser_steps_through_accumulation_and_resume(
    model: SentenceTransformer, batch: Batch, tmp_path: Path
) -> None:
    data = Dataset.from_dict({name: texts * 2 for name, texts in _columns(batch).items()})
    seen: list[tuple[int, float, float]] = []
    for steps, resume in ((2, False), (4, True)):
        loss = Watched(model, negatives=2, start_step=3, temperature=0.05)
        arguments = _arguments(
            tmp_path, max_steps=steps, gradient_accumulation_steps=2, save_strategy="steps", save_steps=2
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=data, loss=loss, callbacks=[loss.callback]
        )
        trainer.train(resume_from_checkpoint=resume)
        seen += loss.calls
    assert [step for step, _, _ in seen] == [0, 0, 1, 1, 2, 2, 3, 3]
    for step, value, plain in seen:
        assert (abs(value - plain) < 1e-6) == (step < 3), f"at step {step}"


def test_what_would_go_wrong_in_silence_is_refused(model: SentenceTransformer, batch: Batch) -> None:
    features = _features(model, _columns(batch))
    with pytest.raises(ValueError, match="has 5 columns; anchor, positive, 3 negatives and the reasoning query make 6"):
        RiInfoNceLoss(model, negatives=3, start_step=0)(features)
    model.train()
    with pytest.raises(RuntimeError, match=r"callbacks=\[loss\.callback\]"):
        RiInfoNceLoss(model, negatives=2)(features)
    with pytest.raises(ValueError, match="mask_equal=False"):
        RiInfoNceLoss(model, negatives=2, start_step=0)([{"sentence_embedding": torch.ones(2, 3)}] * 5)


def test_its_settings_are_what_the_model_card_will_say(model: SentenceTransformer) -> None:
    assert reasonembed.RiInfoNceLoss is RiInfoNceLoss
    assert RiInfoNceLoss(model, negatives=1).get_config_dict() == {
        "negatives": 1, "temperature": 0.02, "kappa": 5.0, "epsilon": 1e-6, "start_step": 100, "mask_equal": True,
    }  # fmt: skip
    assert "2510.08252" in RiInfoNceLoss(model, negatives=1).citation
