"""Cheap looks at many recipes for the demo: one training each, judged on held-out ideas after every epoch.

    python benchmarks/tune_demo_curves.py [--only NAME] [--threads N] [--check]

runs what `results/tune_demo.jsonl` does not hold yet (stage `curve`); `tune_demo.py --table` prints it all, and its
docstring says how queries are held out. Plain InfoNCE, cheaper than `train` and not the same: the learning rate stays
at its peak after the warm-up (linear decay would need to know the end), the graph is kept, bfloat16 autocast. For
choosing where to look; what is chosen is run by `tune_demo.py`.

The rows of 25 November 2026 are of this script's first draft, which judged with bfloat16 weights instead of autocast.
--check runs curves that are there again, changes no file, and prints the two gains beside each other.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from typing import Any

import torch

from demo_trials import FIXED, LONG, Trial, all_layers
from held_out import held_out_collections, training_examples
from reasonembed.encoder.backbones import minilm_folder
from reasonembed.encoder.lora import LoraSettings, add_lora, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.evaluate.run import evaluate
from reasonembed.redapter.batches import epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.gradcache import cached_backward, tokenize_batch
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.optimizer import make_optimizer
from reasonembed.search.systems import DenseSystem
from tune_demo import (
    MEASURE,
    Outcome,
    append,
    gain_over,
    read_results,
    shown,
)

SHORT: dict[str, Any] = {"max_query_tokens": 128, "max_passage_tokens": 128}
CURVES: list[Trial] = [
    Trial("c-2e-5-t.05-g8-q27", all_layers(2e-5, 0.05, 8, 27, epochs=4)),
    Trial("c-2e-5-t.05-g8-q27", all_layers(2e-5, 0.05, 8, 27, epochs=3), splits=(1,)),
    Trial("c-5e-5-t.1-g8-q27", all_layers(5e-5, 0.1, 8, 27, epochs=4)),
    Trial("c-5e-5-t.1-g8-q27", all_layers(5e-5, 0.1, 8, 27, epochs=2), splits=(1,)),
    Trial("c-5e-5-t.05-g3-q27", all_layers(5e-5, 0.05, 3, 27, epochs=4)),
    Trial("c-5e-5-t.05-g8-q27-l3", all_layers(5e-5, 0.05, 8, 27, epochs=4) | {"train_layers": 3}),
    Trial("c-1e-4-t.1-g8-q27-l3", all_layers(1e-4, 0.1, 8, 27, epochs=4) | {"train_layers": 3}),
    Trial("c-lora16-5e-4-t.05-g8-q27", all_layers(5e-4, 0.05, 8, 27, epochs=3, lora=16) | {"train_layers": None}),
    Trial("c-2e-5-t.05-g2-q9", all_layers(2e-5, 0.05, 2, 9, epochs=3)),
    Trial("c-5e-5-t.05-g2-q27", all_layers(5e-5, 0.05, 2, 27, epochs=3)),
    Trial("c-2e-5-t.02-g8-q27", all_layers(2e-5, 0.02, 8, 27, epochs=3)),  # stopped after two, where it had lost
    Trial("c-1e-4-t.1-g3-q27", all_layers(1e-4, 0.1, 3, 27, epochs=3)),
    Trial("c-3e-5-t.05-g4-q27-l4", all_layers(3e-5, 0.05, 4, 27, epochs=3) | {"train_layers": 4}),
    Trial("c-5e-5-t.1-g2-q9-128", all_layers(5e-5, 0.1, 2, 9, epochs=2, **SHORT)),
    Trial("c-2e-5-t.05-g8-q9-128", all_layers(2e-5, 0.05, 8, 9, epochs=2, **SHORT)),
    Trial("c-3e-5-t.1-g8-q9-128", all_layers(3e-5, 0.1, 8, 9, epochs=2, **SHORT)),
    Trial("c-2e-5-t.05-g8-q27-128", all_layers(2e-5, 0.05, 8, 27, epochs=3, **SHORT)),
    Trial("c-5e-5-t.2-g8-q27-128", all_layers(5e-5, 0.2, 8, 27, epochs=3, **SHORT)),
    Trial("c-5e-5-t.1-g8-q27-128", all_layers(5e-5, 0.1, 8, 27, epochs=3, **SHORT), splits=(1,)),
    Trial("c-2e-5-t.05-g1-q27", all_layers(2e-5, 0.05, 1, 27, epochs=6), splits=(0, 1)),
    Trial("c-2e-5-t.05-g2-q27-all", all_layers(2e-5, 0.05, 2, 27, epochs=4) | {"train_layers": None}),
    Trial("c-2e-5-t.05-g1-q27-all", all_layers(2e-5, 0.05, 1, 27, epochs=5) | {"train_layers": None}),
    Trial("c-4e-5-t.05-g1-q27", all_layers(4e-5, 0.05, 1, 27, epochs=3)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="curves whose name holds this text")
    parser.add_argument("--check", action="store_true", help="run again what is there, and compare")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = read_results()
    base = next(row.scores for row in rows if row.loss == "base")
    before = {(row.trial, row.split, row.seed): row for row in rows}
    for trial in CURVES:
        for seed, split in ((x, y) for x in trial.seeds for y in trial.splits):
            last = (f"{trial.name}-e{trial.settings['epochs']}", split, seed)
            if options.only not in trial.name or (last in before) is not options.check:
                continue
            for outcome in curve(trial, split, seed):
                there = before.get((outcome.trial, split, seed))
                if there is None:
                    append(outcome)
                gains = " against ".join(shown(gain_over(base, [one])) for one in (outcome, there) if one)
                print(f"{outcome.trial} split {split}, {outcome.train_seconds:.0f} s: {gains}", flush=True)


def curve(trial: Trial, split: int, seed: int) -> Iterator[Outcome]:
    """One training, judged after each epoch; `train_seconds` is of the training alone."""
    config = _config(trial, seed)
    torch.manual_seed(seed)
    encoder = Encoder.load(minilm_folder())
    if config.lora:
        encoder.model = add_lora(encoder.model, config.lora)
    else:
        train_last_layers(encoder.model, config.train_layers)
    optimizer = make_optimizer(encoder.model, config)
    examples = training_examples(split)
    seconds, step = 0.0, 0
    for epoch in range(config.epochs):
        began = time.perf_counter()
        batches = epoch_batches(
            examples, seed=seed, epoch=epoch, group_size=config.group_size, global_queries=config.global_queries
        )
        warm = max(1, int(config.warmup_share * len(batches) * config.epochs))
        for batch in batches:
            texts = tokenize_batch(encoder, batch, config)
            loss_of = functools.partial(batch_loss, texts=texts, batch=batch, config=config, step=step)
            cached_backward(encoder, texts, loss_of, budget_tokens=4096, graph_bytes=1 << 40, bf16=True)
            torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), config.gradient_clip or 1.0)
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, step / warm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - began
        yield Outcome(
            trial=f"{trial.name}-e{epoch + 1}",
            stage="curve",
            settings=trial.settings | {"epochs": epoch + 1},
            loss="infonce",
            split=split,
            seed=seed,
            steps=step,
            train_seconds=round(seconds, 1),
            scores=_scores(encoder, split),
        )


def _config(trial: Trial, seed: int) -> TrainConfig:
    settings = LONG | trial.settings
    if rank := settings.pop("lora", None):
        settings["lora"] = LoraSettings(rank=rank, alpha=2 * rank)
    return TrainConfig(**(FIXED | settings | {"loss": "infonce", "seed": seed}))


def _scores(encoder: Encoder, split: int) -> dict[str, float]:
    with torch.autocast("cpu", torch.bfloat16):
        result = evaluate(DenseSystem(encoder), held_out_collections(split), measures=[MEASURE])
    return {f"{domain}/{name}": round(value, 6) for (domain, name), value in result.scores[MEASURE].items()}


if __name__ == "__main__":
    main()
