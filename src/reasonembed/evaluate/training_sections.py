"""The report on the training: the distribution of reasoning intensity, the course of the loss and of validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reasonembed.evaluate.blocks import (
    Block,
    Fold,
    Paragraph,
    Picture,
    Section,
    Table,
    cells,
    picture,
    quantile_texts,
    quantiles,
)
from reasonembed.evaluate.facts import duration

Steps = Sequence[Mapping[str, Any]]
"""The lines of a training log: step, epoch, loss, mean_loss, tokens, seconds, intensities {id: RI}."""

Band = tuple[list[int], list[list[float]]]
"""Steps, and the values at each."""


def intensity_section(train_logs: Mapping[str, Steps], *, kappa: float) -> Section | None:
    """Reasoning intensity over training, for each log that holds it; None if none does."""
    blocks: list[Block] = []
    for name, steps in train_logs.items():
        measured = [step for step in steps if _intensities_of(step)]
        if measured:
            blocks += _intensity_blocks(name, measured, kappa)
    if not blocks:
        return None
    intro = (
        f"Reasoning intensity is the loss of a query divided by the loss of the same query thought through, "
        f"at most kappa = {kappa:g}. Above 1, thinking the query through would have helped; RI-InfoNCE gives "
        f"such examples more weight."
    )
    return Section("intensity", "Reasoning intensity over training", (Paragraph(intro), *blocks))


def _intensities_of(step: Mapping[str, Any]) -> list[float]:
    values = (step.get("intensities") or {}).values()
    return [value for value in values if value is not None and math.isfinite(value)]


def _intensity_blocks(name: str, steps: Steps, kappa: float) -> list[Block]:
    from reasonembed.evaluate.plots import over_steps, two_histograms

    values = [_intensities_of(step) for step in steps]
    pools = _first_and_last(steps, values)
    everything = [value for of_step in values for value in of_step]
    clipped = sum(value >= kappa for value in everything) / len(everything)
    medians = " and ".join(f"{quantile_texts(pool, [0.5])[0]} in the {which}" for which, pool in pools.items())
    said = (
        f"{name}: {len(everything):,} values over {len(steps):,} steps; median {medians}; "
        f"{100 * clipped:.1f} % of the values are clipped at kappa."
    )
    band = {name: ([step["step"] for step in steps], values)}
    over_time = picture(
        over_steps(band, "reasoning intensity", ["#D55E00"], reference=1),
        alt=f"Line plot over optimiser steps, {said}",
        caption=f"{name}: median of each step (steps pooled where there are more than 60) with the band "
        f"between the first and the third quartile; dotted: 1, where thinking through makes no difference.",
        height_in=2.7,
    )
    limit = min(kappa, max(1.5, math.ceil(2 * quantiles(everything, [0.995])[0]) / 2))  # the tail in one bar
    outlines = picture(
        two_histograms(pools, "reasoning intensity", limit=limit),
        alt=f"Histogram of reasoning intensity, {said}",
        caption=f"{name}: distribution in the {' and in the '.join(pools)}"
        + ("." if limit == kappa else f"; values above {limit:g} are counted in the last bar."),
        height_in=2.7,
    )
    return [Paragraph(said), over_time, outlines]


def _first_and_last(steps: Steps, values: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """The values of the first and of the last epoch; of the halves of the steps if there is but one epoch."""
    epochs = [step["epoch"] for step in steps]
    if min(epochs) < max(epochs):
        chosen = {"first epoch": min(epochs), "last epoch": max(epochs)}
        picked = {
            which: [of_step for of_step, epoch in zip(values, epochs, strict=True) if epoch == wanted]
            for which, wanted in chosen.items()
        }
    elif len(steps) > 1:
        half = len(values) // 2
        picked = {
            "first half of the steps": list(values[:half]),
            "second half of the steps": list(values[half:]),
        }
    else:
        picked = {"only step": list(values)}
    return {which: [value for of_step in chunk for value in of_step] for which, chunk in picked.items()}


def training_section(
    train_logs: Mapping[str, Steps],
    train_configs: Mapping[str, Mapping[str, object]],
    *,
    colours: Mapping[str, int],
    validations: Mapping[str, Steps] | None = None,
) -> Section | None:
    """Loss curves, throughput, validations and settings of each training; None without data.

    colours: system -> place.  validations: system -> the lines of a validation log: step, score.
    """
    blocks: list[Block] = []
    logs = {name: steps for name, steps in train_logs.items() if any(_loss_of(s) is not None for s in steps)}
    if logs:
        blocks += [_loss_picture(logs, colours), _training_table(logs)]
    if validations:
        blocks.append(_validation_picture(validations, colours))
    if train_configs:
        blocks.append(Fold("Settings of the trainings", (_config_table(train_configs),)))
    return Section("training", "Training", tuple(blocks)) if blocks else None


def _loss_of(step: Mapping[str, Any]) -> float | None:
    """The unweighted loss where it was logged: it compares losses of different weighting."""
    loss = step.get("mean_loss", step.get("loss"))
    return float(loss) if loss is not None and math.isfinite(loss) else None


def _loss_picture(logs: Mapping[str, Steps], colours: Mapping[str, int]) -> Picture:
    from reasonembed.evaluate.plots import colour, over_steps

    curves: dict[str, Band] = {}
    for name, steps in logs.items():
        found = [(step["step"], loss) for step in steps if (loss := _loss_of(step)) is not None]
        pooled = max(1, len(found) // 40)
        chunks = [found[start : start + pooled] for start in range(0, len(found), pooled)]
        curves[name] = (
            [chunk[len(chunk) // 2][0] for chunk in chunks],
            [[loss for _, loss in c] for c in chunks],
        )
    shades = [colour(colours.get(name, len(colours) + place)) for place, name in enumerate(curves)]
    ends = ["{} from {} to {}".format(name, *_epoch_losses(steps)) for name, steps in logs.items()]
    return picture(
        over_steps(curves, "loss, nats", shades),
        alt=f"Line plot of the training loss over optimiser steps; {'; '.join(ends)}.",
        caption="Unweighted contrastive loss, about 40 points a curve: median of the pooled steps with the "
        "quartile band. Batches hold one domain each, so the loss moves with the domain.",
        height_in=2.9,
    )


def _validation_picture(validations: Mapping[str, Steps], colours: Mapping[str, int]) -> Picture:
    from reasonembed.evaluate.plots import colour, over_steps

    curves: dict[str, Band] = {
        name: ([record["step"] for record in records], [[100 * record["score"]] for record in records])
        for name, records in validations.items()
    }
    shades = [colour(colours.get(name, len(colours) + place)) for place, name in enumerate(curves)]
    said = []
    for name, records in validations.items():
        best = max(records, key=lambda record: record["score"])
        base, top = 100 * records[0]["score"], 100 * best["score"]
        said.append(f"{name} from {base:.1f} to {top:.1f} after step {best['step']}")
    return picture(
        over_steps(curves, "nDCG@10, points", shades),
        alt=f"Line plot of validation scores over optimiser steps; {'; '.join(said)}.",
        caption=f"Score on the validation queries, mean over domains: {'; '.join(said)}, whose weights were saved. "
        f"The score that chose the weights flatters them.",
        height_in=2.7,
    )


def _epoch_losses(steps: Steps) -> tuple[str, str]:
    """The mean loss of the first and of the last epoch (or halves of the steps)."""
    losses = [[loss] if (loss := _loss_of(step)) is not None else [] for step in steps]
    means = [f"{sum(pool) / len(pool):.3f}" if pool else "–" for pool in _first_and_last(steps, losses).values()]
    return means[0], means[-1]


def _training_table(logs: Mapping[str, Steps]) -> Table:
    rows = []
    for name, steps in logs.items():
        tokens, seconds = (sum(step.get(key, 0) for step in steps) for key in ("tokens", "seconds"))
        rate = f"{tokens / seconds:,.0f}" if seconds else "–"
        first, last = _epoch_losses(steps)
        rows.append(cells(name, f"{len(steps):,}", first, last, rate, duration(seconds)))
    one = all(len({step["epoch"] for step in steps}) == 1 for steps in logs.values())
    part = "half" if one else "epoch"
    head = ("System", "Steps", f"Loss, first {part}", f"Loss, last {part}", "Tokens/s", "Time")
    return Table("Trainings: mean unweighted loss in nats, real tokens a second", head, tuple(rows))


def _config_table(configs: Mapping[str, Mapping[str, object]]) -> Table:
    keys: Iterable[str] = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [cells(key, *(_setting(config.get(key, "–")) for config in configs.values())) for key in keys]
    return Table("Settings of each training", ("Setting", *configs), tuple(rows))


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(inner)}" for key, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
