"""What each option of the loss gains or loses on the pocket collection, against plain InfoNCE on the same data.

    python benchmarks/loss_options.py --run       run what the .jsonl does not hold yet
    python benchmarks/loss_options.py --table     print the Markdown table of all runs

MiniLM is trained by the demo's recipe (`minilm`, src/reasonembed/redapter/recipes/; without its `mask_margin`, which
is one of the options) with one option after the other, on recorded training queries, and judged on those that are held
out by idea: the splits of held_out.py, whose docstring says how. Test queries are never read. The recipe was chosen for
plain InfoNCE on split 0, and every option's weight is one guess or two: this asks what an option does as it comes, not
what it could do. The recipe has one passage a query; the list-wise loss needs several, and is held against plain
InfoNCE with as many (`group_size 4`).

Each run (option, split, seed) is one line of results/loss_options.jsonl with its whole configuration and the score of
every query, nDCG@10 of whole vectors and of their first 96 dimensions. A run whose configuration is no longer what the
recipe says is left out and run anew. A query's score is its mean over seeds and splits; differences from InfoNCE are
paired by query, split and seed, their intervals bootstrapped within domains, p by sign flips and Holm's correction
over the options.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from held_out import held_out_collections, new_ideas, training_examples
from reasonembed.config import override
from reasonembed.encoder.backbones import minilm_folder
from reasonembed.encoder.model import Encoder
from reasonembed.evaluate.compare import Difference, holm, mean_over_domains, paired_difference
from reasonembed.evaluate.run import evaluate
from reasonembed.files import read_jsonl
from reasonembed.redapter.config import RUNNING_KEYS, TrainConfig
from reasonembed.redapter.recipe import load_recipe
from reasonembed.search.systems import DenseSystem
from reasonembed.workflow import demo
from tune_demo import MEASURE, frozen_states, shown

RESULTS = Path(__file__).parent / "results" / "loss_options.jsonl"
REFERENCE, GROUPS, BASE = "infonce", "group_size 4", "base"
CUT = 96  # a quarter of MiniLM's dimensions
OPTIONS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "ri-infonce": {"loss": "ri-infonce"},
    "mask_positives false": {"mask_positives": False},
    "mask_margin 0.1": {"mask_margin": 0.1},
    "mask_margin 0": {"mask_margin": 0.0},
    "multi_positive": {"multi_positive": True},
    "distill 0.3": {"distill_weight": 0.3},
    "distill 1": {"distill_weight": 1.0},
    "matryoshka": {"matryoshka_dims": [48, 96, 192]},
    GROUPS: {"group_size": 4},
    "listwise 0.3": {"group_size": 4, "listwise_weight": 0.3},
    "listwise 1": {"group_size": 4, "listwise_weight": 1.0},
    "all with ri-infonce": {
        "loss": "ri-infonce", "mask_margin": 0.1, "multi_positive": True, "group_size": 4, "listwise_weight": 0.3,
        "distill_weight": 0.3, "matryoshka_dims": [48, 96, 192],
    },
}  # fmt: skip


class Outcome(msgspec.Struct, frozen=True):
    """One trained model: a line of the results."""

    option: str  # a key of OPTIONS, or "base": not trained
    config: dict[str, Any]  # the keys of TrainConfig that decide an outcome, but for the seed
    split: int  # -1 for the base, which is judged on every recorded query
    seed: int
    steps: int
    train_seconds: float
    scores: dict[str, float]  # "domain/query_id" -> nDCG@10
    cut_scores: dict[str, float]  # the same with the first CUT dimensions


Key = tuple[str, int, int]
"""(domain/query_id, split, seed)"""


class CutEncoder:
    """An encoder that encodes a text once and hands out its first `dimensions`, at unit length."""

    def __init__(self, encoder: Encoder) -> None:
        self.whole = encoder
        self.dimensions = encoder.dimension
        self.known: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str], *, prompt: str = "", **options: Any) -> npt.NDArray[np.float32]:
        """As `Encoder.encode`."""
        key = (prompt, *texts)
        if key not in self.known:
            self.known[key] = self.whole.encode(texts, prompt=prompt, **options)
        cut_ND = self.known[key][:, : self.dimensions]
        unit_ND: npt.NDArray[np.float32] = cut_ND / np.linalg.norm(cut_ND, axis=1, keepdims=True)
        return unit_ND

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def configuration(option: str, seed: int) -> TrainConfig:
    """The demo's recipe, without the margin that it has since `mask_margin 0` won here, with one option."""
    plain = msgspec.structs.replace(load_recipe(demo.RECIPE).training, loss="infonce", mask_margin=None, seed=seed)
    return override(plain, OPTIONS[option])


def deciding(config: TrainConfig) -> dict[str, Any]:
    """What decides an outcome, but for the seed, as JSON gives it back."""
    keys: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return {key: value for key, value in keys.items() if key not in (*RUNNING_KEYS, "seed")}


def judge(folder: Path, split: int, train_layers: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """nDCG@10 of each held-out query, with whole vectors and with cut ones."""
    encoder = Encoder.load(folder)
    if train_layers is not None:
        encoder.keep_frozen(train_layers, frozen_states(train_layers))
    cut = CutEncoder(encoder)
    found = []
    for dimensions in (encoder.dimension, CUT):
        cut.dimensions = dimensions
        system = DenseSystem(cut)  # type: ignore[arg-type]
        scores = evaluate(system, held_out_collections(split), measures=[MEASURE]).scores[MEASURE]
        found.append({f"{domain}/{name}": round(value, 6) for (domain, name), value in scores.items()})
    return found[0], found[1]


def run(option: str, split: int, seed: int) -> Outcome:
    """Train one model and judge it on what the split holds out."""
    from reasonembed.redapter.train import train

    config = configuration(option, seed)
    layers = config.train_layers
    states = None if layers is None else frozen_states(layers)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = train(training_examples(split), minilm_folder(), Path(folder) / "model", config, frozen=states)
        seconds = round(time.perf_counter() - began, 1)
        scores, cut_scores = judge(done.model_folder, split, layers)
    return Outcome(option, deciding(config), split, seed, done.totals.steps, seconds, scores, cut_scores)


def untrained() -> Outcome:
    """The base, judged on every recorded query."""
    scores, cut_scores = judge(minilm_folder(), -1, configuration(REFERENCE, 0).train_layers)
    return Outcome(BASE, {}, -1, 0, 0, 0.0, scores, cut_scores)


def read_results(path: Path) -> list[Outcome]:
    """The runs that the recipe and the options still describe; a key that is newer than a run had its default there."""
    rows = read_jsonl(path, Outcome) if path.exists() else ()
    return [row for row in rows if row.option == BASE or _is_current(row)]


def _is_current(row: Outcome) -> bool:
    return row.option in OPTIONS and deciding(TrainConfig()) | row.config == deciding(
        configuration(row.option, row.seed)
    )


def run_missing(path: Path, options: argparse.Namespace) -> None:
    """Run what the results do not hold yet: every option on one split and seed before the next."""
    import torch

    torch.set_num_threads(options.threads)
    done = {(row.option, row.split, row.seed) for row in read_results(path)}
    plan = [(BASE, -1, 0)] + [(o, split, seed) for seed in options.seeds for split in options.splits for o in OPTIONS]
    for option, split, seed in plan:
        if (option, split, seed) in done or (options.only and option not in (BASE, REFERENCE, GROUPS, *options.only)):
            continue
        outcome = untrained() if option == BASE else run(option, split, seed)
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as handle:
            handle.write(msgspec.json.encode(outcome) + b"\n")
        print(f"{option}, split {split}, seed {seed}: trained in {outcome.train_seconds:.0f} s", flush=True)


def scores_of(rows: Sequence[Outcome], option: str, *, cut: bool = False) -> dict[Key, float]:
    """Every score of an option; the base's stands for every split and seed that InfoNCE was run on."""
    if option == BASE:
        base = next(row for row in rows if row.option == BASE)
        values = base.cut_scores if cut else base.scores
        return {key: values[key[0]] for key in scores_of(rows, REFERENCE)}
    return {
        (name, row.split, row.seed): value
        for row in rows
        if row.option == option
        for name, value in (row.cut_scores if cut else row.scores).items()
    }


def difference(
    ours: dict[Key, float], theirs: dict[Key, float], counted: Callable[[Key], bool] = lambda _: True
) -> Difference:
    """How much higher one scores than the other where both were run, each query averaged over splits and seeds."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        if counted(key):
            pairs.setdefault(key[0], []).append((ours[key], theirs[key]))
    means = {name: np.mean(values, axis=0) for name, values in pairs.items()}
    domains = [name.split("/")[0] for name in means]
    return paired_difference([one for one, _ in means.values()], [other for _, other in means.values()], domains)


def table(rows: Sequence[Outcome]) -> Iterator[str]:
    """The lines of the Markdown table, in points of nDCG@10."""
    names = [name for name in (*OPTIONS, BASE) if any(row.option == name for row in rows)]
    references = {name: GROUPS if "listwise_weight" in OPTIONS.get(name, {}) else REFERENCE for name in names}
    against = {
        name: difference(scores_of(rows, name), scores_of(rows, references[name]))
        for name in names
        if name != REFERENCE
    }
    corrected = holm({name: gain.p for name, gain in against.items() if name != BASE})
    yield (
        f"| option | runs | queries | {MEASURE} | against | difference (95 %) | p (Holm) | new ideas | known ideas "
        f"| first {CUT} dimensions |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name in names:
        scores = scores_of(rows, name)
        queries = {query for query, _, _ in scores}
        start = f"| {name} | {sum(row.option == name for row in rows)} | {len(queries)} | {100 * _mean(scores):.2f} "
        if name == REFERENCE:
            yield start + "| - | - | - | - | - | - |"
            continue
        reference = scores_of(rows, references[name])
        new, known = (
            difference(scores, reference, lambda key, wanted=wanted: (key[0] in new_ideas(key[1])) is wanted)
            for wanted in (True, False)
        )
        cut = difference(scores_of(rows, name, cut=True), scores_of(rows, references[name], cut=True))
        p = f"{corrected[name]:.3f}" if name in corrected else "-"
        whole, fresh, old, first = (shown(gain) for gain in (against[name], new, known, cut))
        yield f"{start}| {references[name]} | {whole} | {p} | {fresh} | {old} | {first} |"


def _mean(scores: dict[Key, float]) -> float:
    pools: dict[str, list[float]] = {}
    for (query, _, _), value in sorted(scores.items()):
        pools.setdefault(query, []).append(value)
    return mean_over_domains([float(np.mean(pool)) for pool in pools.values()], [name.split("/")[0] for name in pools])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run what the results do not hold yet")
    parser.add_argument("--table", action="store_true", help="print the table of what was run so far")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument(
        "--only", nargs="+", choices=list(OPTIONS), help="these options, with infonce, group_size 4 and the base"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.run:
        run_missing(options.results, options)
    if options.table:
        rows = read_results(options.results)
        if not any(row.option == REFERENCE for row in rows):
            raise SystemExit(f"{options.results} holds no run of {REFERENCE} by the recipe as it is. Give --run first.")
        print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
