"""What the searches for the demo's recipe tried: settings over those that all share, and on which splits.

`tune_demo.py` runs them; what became of each is in results/tune_demo.md.
"""

from __future__ import annotations

from typing import Any

import msgspec

SPLITS = (0, 1, 2)
BOTH = ("infonce", "ri-infonce")
SHARES = (0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7)
FIXED: dict[str, Any] = {
    "mask_positives": True,
    "instruction": False,
    "start_step": 0,
    "max_query_tokens": 128,
    "max_passage_tokens": 128,
    "checkpoint_every_steps": 0,
}


class Trial(msgspec.Struct, frozen=True):
    """Settings to try, and on what: the splits are held out one after the other."""

    name: str
    settings: dict[str, Any]
    stage: str = "coarse"
    splits: tuple[int, ...] = (0,)
    losses: tuple[str, ...] = ("infonce",)
    seeds: tuple[int, ...] = (42,)
    shares: tuple[float, ...] = (0.0,)  # of the base (`base_share`), each judged from one training: it does not differ

    def named(self, share: float) -> str:
        """The name of what is judged with a share of the base."""
        return self.name if len(self.shares) == 1 else f"{self.name}-{share:g}"


def s(**settings: Any) -> dict[str, Any]:
    """Settings of a trial over those that the coarse search starts from."""
    start = {"learning_rate": 1e-4, "temperature": 0.05, "epochs": 2, "group_size": 8, "global_queries": 27}
    return start | {"train_layers": 2} | settings


def all_layers(
    learning_rate: float, temperature: float, group_size: int, global_queries: int, **more: Any
) -> dict[str, Any]:
    """Settings of a trial that trains all six layers; the token embeddings stay."""
    sizes = {"group_size": group_size, "global_queries": global_queries}
    return {"learning_rate": learning_rate, "temperature": temperature, **sizes, "train_layers": 6, **more}


LONG: dict[str, Any] = {"max_query_tokens": 256, "max_passage_tokens": 256}


def in_batch(name: str, epochs: int, *, splits: tuple[int, ...] = (0,), **other: Any) -> Trial:
    """A trial of the fourth search: one passage a query, so that other queries' positives alone are negatives."""
    settings = all_layers(4e-5, 0.05, 1, 27, epochs=epochs, **LONG) | other
    return Trial(name, settings, stage="in-batch", splits=splits)


def shared(name: str, epochs: int, *, splits: tuple[int, ...] = SPLITS, **other: Any) -> Trial:
    """A trial of the fifth search: how much of the base stays in the saved weights."""
    trial = in_batch(name, epochs, splits=splits, matmul_precision="medium", **other)
    return msgspec.structs.replace(trial, stage="share of the base", shares=SHARES)


def masked(
    name: str,
    epochs: int,
    *,
    losses: tuple[str, ...] = ("infonce",),
    shares: tuple[float, ...] = (0.0,),
    **other: Any,
) -> Trial:
    """A trial of the sixth search: passages that score above the positive by more than a margin are no negatives."""
    settings = {"matmul_precision": "medium", "mask_margin": 0.0} | other
    trial = in_batch(name, epochs, splits=SPLITS, **settings)
    return msgspec.structs.replace(trial, stage="margin", losses=losses, shares=shares)


TRIALS: list[Trial] = [
    Trial("q27-g8-lr1e-4", s()),
    Trial("q9-g2-lr1e-4", s(group_size=2, global_queries=9)),
    Trial("q9-g2-lr3e-4", s(group_size=2, global_queries=9, learning_rate=3e-4)),
    Trial("gentle-lr5e-5", s(group_size=2, global_queries=9, learning_rate=5e-5)),
    Trial("soft-lr5e-5-e4", s(group_size=2, global_queries=9, learning_rate=5e-5, epochs=4)),
    Trial("soft-lr2e-5", s(group_size=2, global_queries=9, learning_rate=2e-5)),
    Trial("soft-lr5e-5-t0.1", s(group_size=2, global_queries=9, learning_rate=5e-5, temperature=0.1)),
    Trial("soft-lr5e-5-t0.02", s(group_size=2, global_queries=9, learning_rate=5e-5, temperature=0.02)),
    Trial("soft-lr5e-5-g4", s(group_size=4, global_queries=9, learning_rate=5e-5)),
    Trial("all-lr5e-5-t.05-e2", all_layers(5e-5, 0.05, 8, 27, epochs=2, **LONG), stage="all layers"),
    Trial("all-lr4e-5-t.05-e3", all_layers(4e-5, 0.05, 8, 27, epochs=3, **LONG), stage="all layers", splits=(0, 1)),
    Trial("all-lr8e-5-t.1-e2", all_layers(8e-5, 0.1, 8, 27, epochs=2, **LONG), stage="all layers"),
    Trial("all-lr3e-5-t.05-e3", all_layers(3e-5, 0.05, 8, 27, epochs=3, **LONG), stage="all layers"),
    Trial("all-lr6e-5-t.1-e3", all_layers(6e-5, 0.1, 8, 27, epochs=3, **LONG), stage="all layers", splits=(0, 1)),
    in_batch("inbatch-lr4e-5-t.05-e6", 6, splits=SPLITS),
    in_batch("inbatch-lr4e-5-t.05-e5", 5, splits=(0, 1)),
    in_batch("inbatch-lr4e-5-t.1-e6", 6, temperature=0.1),
    in_batch("inbatch-lr4e-5-t.03-e6", 6, temperature=0.03),
    in_batch("inbatch-lr8e-5-t.05-e6", 6, learning_rate=8e-5),
    in_batch("inbatch-lr4e-5-t.05-e9", 9),
    in_batch("inbatch-l3-lr8e-5-t.05-e10", 10, learning_rate=8e-5, train_layers=3),
    in_batch("inbatch-q14-lr3e-5-t.05-e6", 6, learning_rate=3e-5, global_queries=14),
    in_batch("inbatch-lr3e-5-t.05-e6", 6, learning_rate=3e-5, splits=(0, 1)),
    in_batch("inbatch-l4-lr4e-5-t.05-e9", 9, train_layers=4, splits=SPLITS),
    in_batch("inbatch-lr4e-5-t.05-e7", 7, splits=(1, 2)),
    in_batch("medium-lr4e-5-t.05-e7", 7, splits=SPLITS, matmul_precision="medium"),
    in_batch("medium-lr4e-5-t.05-e9", 9, splits=SPLITS, matmul_precision="medium"),
    in_batch("medium-lr4e-5-t.05-e5", 5, splits=SPLITS, matmul_precision="medium"),
    in_batch("short-lr4e-5-t.05-e6", 6, splits=SPLITS, matmul_precision="medium", max_passage_tokens=128),
    in_batch("short-lr4e-5-t.05-e8", 8, splits=SPLITS, matmul_precision="medium", max_passage_tokens=128),
    shared("share-lr4e-5-e6", 6),
    shared("share-lr8e-5-e6", 6, learning_rate=8e-5),
    shared("share-dropout-lr4e-5-e6", 6, splits=(0, 1), dropout=True),
    shared("share-lr8e-5-e9", 9, learning_rate=8e-5),
    shared("share-lr8e-5-e5", 5, learning_rate=8e-5),
    masked("margin0-lr4e-5-e5", 5, losses=BOTH),
    masked("margin0-lr8e-5-e5", 5, learning_rate=8e-5),
    masked("margin0-lr4e-5-t.03-e5", 5, temperature=0.03),
    masked("margin0-lr4e-5-e7", 7),
    masked("margin0.05-lr4e-5-e5", 5, mask_margin=0.05),
    masked("margin0-distill1-lr4e-5-e5", 5, losses=BOTH, distill_weight=1.0),
    masked("margin0-share-lr8e-5-e5", 5, shares=SHARES, learning_rate=8e-5),
]
