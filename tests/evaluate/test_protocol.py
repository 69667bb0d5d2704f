from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reasonembed.evaluate.protocol import Protocol


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(
        benchmark="pocket", revision="0123456789abcdef", n_domains=12, n_queries=84, queries="original",
        model="MiniLM", search="exact, inner product", instructions={"biology": "", "pony": ""},
        max_tokens=256, dtype="float32", n_excluded=3, measures=("nDCG@10", "Recall@10"), depth=100,
        confidence=0.95, resamples=10_000, seed=0,
    )  # fmt: skip


def test_a_score_is_printed_with_all_that_decides_it(protocol: Protocol) -> None:
    assert str(protocol) == (
        "benchmark: pocket (revision 0123456789ab), 84 original queries in 12 domains, "
        "3 pairs excluded before the cut\n"
        "system: MiniLM; search: exact, inner product; no instruction; at most 256 tokens, float32\n"
        "figures: nDCG@10, Recall@10 by trec_eval's definition over the best 100, mean over domains; "
        "95% bootstrap interval over queries, by domain, 10000 resamples, seed 0"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instructions": {"a": "Find it.", "b": "Find it."}}, 'instruction "Find it."'),
        ({"instructions": {"a": "Find it.", "b": "Find that."}}, "an instruction for each domain"),
        ({"max_tokens": None, "dtype": ""}, "any length\n"),
        ({"n_excluded": 0}, "no exclusions"),
        ({"n_domains": 1}, "in 1 domain,"),
        ({"queries": "reasoning"}, "84 reasoning queries"),
    ],
)
def test_each_setting_shows(protocol: Protocol, change: dict[str, Any], words: str) -> None:
    assert words in str(msgspec.structs.replace(protocol, **change))
