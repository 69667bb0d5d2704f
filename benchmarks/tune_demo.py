"""The search for the demo's training recipe, on training queries held out; test queries are never read.

    python benchmarks/tune_demo.py --run      run what the .jsonl does not hold yet
    python benchmarks/tune_demo.py --table    print the Markdown table of all runs
    python benchmarks/tune_demo.py --shares   print the table of shares of the base

What is tried stands in demo_trials.py.

In each split (held_out.py) a model is trained on a part of the recorded queries and judged on those that are held out,
of new ideas and of known ones: the query's own domain is ranked without its source and the source's near-copies, gain
is the recorded grade, the figure is nDCG@10 averaged over domains. Each run (trial, loss, split, seed) is one line of
results/tune_demo.jsonl with the score of every query. The encoder is MiniLM as in the demo: mean pooling, no
instruction.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from demo_trials import FIXED, SHARES, TRIALS, Trial
from held_out import held_out_collections, new_ideas, training_examples
from reasonembed.encoder.backbones import minilm_folder
from reasonembed.evaluate.compare import Difference, mean_over_domains, paired_difference
from reasonembed.evaluate.run import evaluate
from reasonembed.files import read_jsonl
from reasonembed.search.systems import DenseSystem

RESULTS = Path(__file__).parent / "results" / "tune_demo.jsonl"
LOSSES = ("infonce", "ri-infonce")
MEASURE = "nDCG@10"
TEST_QUERIES = 84


class Outcome(msgspec.Struct, frozen=True):
    """One trained model: a line of the results. `split` is -1 where nothing was held out."""

    trial: str
    stage: str
    settings: dict[str, Any]
    loss: str  # "base" for the untrained model
    split: int
    seed: int
    steps: int
    train_seconds: float
    scores: dict[str, float]  # "domain/query_id" -> nDCG@10


@functools.cache
def frozen_states(layers: int) -> Any:
    """What MiniLM's layers below the last `layers` make of the texts: shared by all trials that train those."""
    from reasonembed.encoder.frozen import FrozenStates

    return FrozenStates(limit_bytes=6 << 30)


def judge(model: Path, split: int, train_layers: int | None = None, *, base_share: float = 0.0) -> dict[str, float]:
    """ "domain/query_id" -> nDCG@10 of what a split holds out.  base_share: the base's part of the weights."""
    from reasonembed.encoder.model import Encoder

    encoder = Encoder.load(model)
    if base_share:
        base = Encoder.load(minilm_folder())
        for weight, before in zip(encoder.model.parameters(), base.model.parameters(), strict=True):
            weight.data.lerp_(before.data, base_share)
    if train_layers is not None:
        encoder.keep_frozen(train_layers, frozen_states(train_layers))
    result = evaluate(DenseSystem(encoder), held_out_collections(split), measures=[MEASURE])
    return {f"{domain}/{name}": round(value, 6) for (domain, name), value in result.scores[MEASURE].items()}


def run(trial: Trial, loss: str, split: int, seed: int) -> list[Outcome]:
    """Train one model and judge it on what the split holds out: as it is, or with each share of the base in it."""
    from reasonembed.redapter.train import TrainConfig, train

    config = TrainConfig(**(FIXED | trial.settings | {"loss": loss, "seed": seed}))
    layers = config.train_layers
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        states = None if layers is None else frozen_states(layers)
        done = train(training_examples(split), minilm_folder(), Path(folder) / "model", config, frozen=states)
        seconds = time.perf_counter() - began
        scores = {share: judge(done.model_folder, split, layers, base_share=share) for share in trial.shares}
    return [
        Outcome(
            trial=trial.named(share),
            stage=trial.stage,
            settings=trial.settings | ({"base_share": share} if len(trial.shares) > 1 else {}),
            loss=loss,
            split=split,
            seed=seed,
            steps=done.totals.steps,
            train_seconds=round(seconds, 1),
            scores=scored,
        )
        for share, scored in scores.items()
    ]


def read_results() -> list[Outcome]:
    return list(read_jsonl(RESULTS, Outcome)) if RESULTS.exists() else []


def append(outcome: Outcome) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("ab") as handle:
        handle.write(msgspec.json.encode(outcome) + b"\n")


def run_trials(options: argparse.Namespace) -> None:
    """Run, in the order of the list, what the results do not hold yet."""
    import torch

    torch.set_num_threads(options.threads)
    done = {(row.trial, row.loss, row.split, row.seed) for row in read_results()}
    if not any(row.loss == "base" for row in read_results()):
        append(Outcome("base", "coarse", {}, "base", -1, 0, 0, 0.0, judge(minilm_folder(), -1)))
    base = next(row.scores for row in read_results() if row.loss == "base")
    for trial in TRIALS:
        for seed, split, loss in ((x, y, z) for x in trial.seeds for y in trial.splits for z in trial.losses):
            names = {trial.named(share) for share in trial.shares}
            missing = {name for name in names if (name, loss, split, seed) not in done}
            if options.only not in trial.name or not missing:
                continue
            began = time.perf_counter()
            for outcome in run(trial, loss, split, seed):
                if outcome.trial not in missing:
                    continue
                append(outcome)
                gain, fresh = shown(gain_over(base, [outcome])), shown(gain_over(base, [outcome], new=True))
                print(
                    f"{outcome.trial} {loss} split {split} seed {seed}: {gain}, new ideas {fresh}, trained in "
                    f"{outcome.train_seconds:.0f} s, {time.perf_counter() - began:.0f} s in all",
                    flush=True,
                )


def averaged(rows: Sequence[Outcome]) -> dict[tuple[int, str], float]:
    """(split, query) -> its score, averaged over seeds."""
    pools: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        for name, value in row.scores.items():
            pools.setdefault((row.split, name), []).append(value)
    return {key: float(np.mean(values)) for key, values in sorted(pools.items())}


def gain_over(base: dict[str, float], rows: Sequence[Outcome], *, new: bool | None = None) -> Difference:
    """The gain on all held-out queries, or on those whose ideas are new (True) or known (False) alone."""
    scores = averaged(rows)
    if new is not None:
        scores = {key: value for key, value in scores.items() if (key[1] in new_ideas(key[0])) is new}
    domains = [name.split("/")[0] for _, name in scores]
    return paired_difference(list(scores.values()), [base[name] for _, name in scores], domains)


def table(rows: Sequence[Outcome]) -> Iterable[str]:
    """Lines of a Markdown table, one for each trial and loss, in the order of the runs."""
    base = next(row.scores for row in rows if row.loss == "base")
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for row in rows:
        if row.loss != "base" and row.split >= 0:
            groups.setdefault((row.stage, row.trial, row.loss), []).append(row)
    yield (
        "| stage | settings | loss | splits | seeds | queries | base | trained | gain (95 %) | gain, new ideas "
        "| gain, known ideas |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for (stage, _, loss), members in groups.items():
        splits = sorted({row.split for row in members})
        scores = averaged(members)
        domains = [name.split("/")[0] for _, name in scores]
        before = 100 * mean_over_domains([base[name] for _, name in scores], domains)
        after = 100 * mean_over_domains(list(scores.values()), domains)
        settings = ", ".join(f"{key} {value}" for key, value in members[0].settings.items())
        yield (
            f"| {stage} | {settings} | {loss} | {', '.join(map(str, splits))} "
            f"| {len({row.seed for row in members})} | {len(scores)} | {before:.2f} | {after:.2f} "
            f"| {shown(gain_over(base, members))} | {shown(gain_over(base, members, new=True))} "
            f"| {shown(gain_over(base, members, new=False))} |"
        )


def shares_table(rows: Sequence[Outcome]) -> Iterable[str]:
    """Lines of a Markdown table of the fifth search: for each training and share of the base the gain, half of its
    interval's width, and the lower end that an interval over as many queries as the test queries would have.
    """
    base = next(row.scores for row in rows if row.loss == "base")
    yield "| training | " + " | ".join(f"{share:g}" for share in SHARES) + " |"
    yield "|---|" + "---|" * len(SHARES)
    for trial in TRIALS:
        if len(trial.shares) > 1:
            each = [[row for row in rows if row.trial == trial.named(share)] for share in trial.shares]
            yield f"| {trial.name} | " + " | ".join(_share_cell(base, members) for members in each) + " |"


def _share_cell(base: dict[str, float], members: Sequence[Outcome]) -> str:
    gain = gain_over(base, members)
    half = (gain.high - gain.low) / 2
    lower = gain.difference - half * (len(averaged(members)) / TEST_QUERIES) ** 0.5
    return f"{100 * gain.difference:+.1f} ± {100 * half:.1f} ({100 * lower:+.1f})"


def shown(gain: Difference) -> str:
    """A gain in points of nDCG@10 with its interval."""
    return f"{100 * gain.difference:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run what the results do not hold yet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="trials whose name holds this text")
    parser.add_argument("--table", action="store_true", help="print the table of what was run so far")
    parser.add_argument("--shares", action="store_true", help="print the table of shares of the base")
    options = parser.parse_args()
    if options.run:
        run_trials(options)
    if options.table:
        print("\n".join(table(read_results())))
    if options.shares:
        print("\n".join(shares_table(read_results())))


if __name__ == "__main__":
    main()
