"""The end of a training: the model folder with its card, manifest and log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from reasonembed.domains import load_domain
from reasonembed.encoder.card import CardFacts, model_card
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.prompts import query_prompt
from reasonembed.encoder.save import save_encoder
from reasonembed.files import sealed
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import Totals, ValidationSummary
from reasonembed.redapter.receipt import MANIFEST_FILE, Receipt, make_manifest

LOG_FILE = "train_log.jsonl"


class TrainResult(msgspec.Struct, frozen=True):
    """A finished training."""

    model_folder: Path
    log_path: Path
    totals: Totals  # steps, seconds, real tokens/s, padding share, texts truncated
    validation: ValidationSummary | None = None  # which weights were saved, and why; None: the last


def save_result(
    encoder: Encoder,
    out: Path,
    examples: Sequence[TrainingExample],
    config: TrainConfig,
    receipt: Receipt,
    totals: Totals,
    logs: Sequence[Path],
    *,
    validation: ValidationSummary | None = None,
) -> None:
    """Write the trained model to `out`, with its card, manifest and logs, whole or not at all."""
    manifest = make_manifest(receipt, examples, config, totals, validation)
    prompts = model_prompts(examples, config)
    facts = CardFacts(
        base=receipt.base,
        loss=config.loss,
        examples=len(examples),
        domains=manifest.domains,
        steps=totals.steps,
        dimension=encoder.dimension,
        prompts=prompts,
        options=_options(config),
        chosen=_chosen(validation) if validation else "",
        base_share=config.base_share,
        cuts=[size for size in config.matryoshka_dims if size < encoder.dimension],
    )
    text = msgspec.json.format(msgspec.json.encode(sealed(manifest)), indent=2).decode() + "\n"
    extra = {path.name: path.read_text(encoding="utf-8") for path in logs} | {MANIFEST_FILE: text}
    save_encoder(encoder, out, prompts=prompts, card=model_card(facts), extra=extra)


def model_prompts(examples: Sequence[TrainingExample], config: TrainConfig) -> dict[str, str]:
    """The prompts that the trained model is to be used with: `query`, `document`, and one per domain."""
    instructions = {example.domain: example.instruction if config.instruction else "" for example in examples}
    general = load_domain("general").instruction if config.instruction else ""
    by_domain = {name: query_prompt(instructions[name]) for name in sorted(instructions)}
    return {"query": query_prompt(general), "document": ""} | by_domain


def _chosen(validation: ValidationSummary) -> str:
    """Which weights these are, in a sentence or two."""
    early = f" (patience ended the training before the {validation.planned_steps} steps that were planned)"
    return (
        f"The weights are those after step {validation.best_step}{early if validation.stopped_early else ''}, the best "
        f"of {validation.validations} validations: {validation.measure} {validation.best_score:.4f} (base: "
        f"{validation.base_score:.4f}) on {validation.queries} queries of {', '.join(validation.domains)}. "
        f"That score chose them, and so flatters them."
    )


def _options(config: TrainConfig) -> list[str]:
    """What the configuration adds to the loss, in words."""
    margin, graded, distilled = config.mask_margin, config.listwise_weight, config.distill_weight
    return [
        words
        for words, on in (
            (f"passages more than {margin} above the positive masked", margin is not None),
            ("every annotated positive in the batch as one", config.multi_positive),
            (f"{graded} x ListNet on grades", graded > 0),
            (f"{distilled} x distillation of the reasoning query", distilled > 0),
        )
        if on
    ]
