"""Published figures: to the letter, beside the benchmark that they belong to and no other, marked where they differ."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reasonembed.domains import domain_names, load_domain
from reasonembed.encoder.prompts import query_prompt
from reasonembed.evaluate.protocol import Protocol
from reasonembed.evaluate.published import (
    Beside,
    beside_published,
    departures,
    published_lines,
    published_section,
    published_tables,
)

BRIGHT, R2MED = published_tables().bright, published_tables().r2med


def judged(domains: tuple[str, ...] = BRIGHT.domains) -> dict[str, Any]:
    scores = {domain: 0.01 * place for place, domain in enumerate(domains, 1)}
    return {"ours": {"nDCG@10": {"mean": sum(scores.values()) / len(scores), "per_domain": scores}}}


PROTOCOL = Protocol(
    benchmark="bright", revision="0" * 64, n_domains=12, n_queries=1384, queries="original", model="m",
    search="exact, inner product", instructions={d: load_domain(d).instruction for d in BRIGHT.domains},
    max_tokens=8192, dtype="float16", n_excluded=900, measures=("nDCG@10",), depth=100, confidence=0.95,
    resamples=10_000, seed=0,
)  # fmt: skip
BM25 = msgspec.structs.replace(
    PROTOCOL,
    search="query-side BM25 (k1 0.9, b 0.4, analyser en)",
    instructions=dict.fromkeys(BRIGHT.domains, ""),
    max_tokens=None,
    dtype="",
)


def beside(protocol: Protocol = PROTOCOL, **changes: Any) -> Beside:
    found = beside_published(judged(), {"ours": msgspec.structs.replace(protocol, **changes)})
    assert found is not None
    return found


def whole(protocol: Protocol) -> tuple[str, ...]:
    return departures(protocol, BRIGHT, {domain: domain for domain in BRIGHT.domains})


@pytest.mark.parametrize("table", [BRIGHT, R2MED], ids=lambda table: table.title)
def test_the_published_averages_are_the_means_of_their_rows(table: Any) -> None:
    for row in table.rows:
        assert len(row.scores) == len(table.domains) == len(table.short)
        mean = sum(row.scores) / len(row.scores)
        assert row.average == pytest.approx(mean, abs=0.51 * 10**-table.decimals + 0.001), row.system


def test_the_domains_are_those_of_the_package_and_the_best_row_is_the_papers() -> None:
    bright = {name for name in domain_names() if not name.startswith("r2med_")} - {"general"}
    assert set(BRIGHT.domains) == bright
    rows = {row.system: row for row in BRIGHT.rows}
    assert rows["ReasonEmbed-Qwen3-8B"].average == 38.1
    assert dict(zip(BRIGHT.domains, rows["BM25"].scores, strict=True))["theoremqa_theorems"] == 4.9
    assert dict(zip(R2MED.domains, R2MED.rows[2].scores, strict=True))["PMC-Clinical"] == 33.76


def test_our_row_stands_below_the_published_ones_with_average_and_domains_in_their_order() -> None:
    found = beside()
    assert [row.system for row in found.rows] == [*(row.system for row in BRIGHT.rows), "ours"]
    assert found.head == ("avg", *BRIGHT.short)
    assert found.rows[0].scores == (14.5, 18.9, 27.2, 14.9, 12.5, 13.6, 18.4, 15.0, 24.4, 7.9, 6.2, 10.4, 4.9)
    assert found.rows[-1].scores == pytest.approx((6.5, *range(1, 13)))
    assert found.rows[-1].ours and found.rows[-1].label == "ours"


def test_the_same_protocol_is_not_marked_for_a_model_or_for_bm25() -> None:
    assert whole(PROTOCOL) == whole(BM25) == ()
    prompts = {domain: query_prompt(text) for domain, text in PROTOCOL.instructions.items()}
    assert whole(msgspec.structs.replace(PROTOCOL, instructions=prompts)) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": "gpt4_reason"}, "queries: gpt4_reason, not the original ones"),
        ({"n_queries": 1000}, "1,000 queries, not 1,384"),
        ({"n_excluded": 0}, "nothing was excluded"),
        ({"max_tokens": 512}, "at most 512 tokens, not 8,192"),
        ({"instructions": dict.fromkeys(BRIGHT.domains, "")}, "no instruction"),
        ({"instructions": PROTOCOL.instructions | {"pony": "Find it."}}, "another instruction in 1 of 12 domains"),
        ({"search": "approximate, HNSW"}, "search: approximate, HNSW"),
        ({"search": "as in the run file"}, "ranked elsewhere: its queries, instruction and length are not known here"),
    ],
)
def test_each_departure_from_the_published_protocol_is_named(change: dict[str, Any], said: str) -> None:
    assert whole(msgspec.structs.replace(PROTOCOL, **change)) == (said,)
    found = beside(**change)
    assert found.rows[-1].label == "ours †"
    assert any(said in line for line in published_lines(found))


def test_bag_of_words_bm25_is_not_the_published_bm25() -> None:
    assert "query-side" in whole(msgspec.structs.replace(BM25, search="bag-of-words BM25 (k1 0.9)"))[0]


@pytest.mark.parametrize("benchmark", ["pocket", "bright-long", "runs/bright", "my-bright", "bright, pocket", ""])
def test_other_benchmarks_stand_beside_nothing(benchmark: str) -> None:
    protocol = msgspec.structs.replace(PROTOCOL, benchmark=benchmark)
    assert beside_published(judged(), {"ours": protocol}) is None


def test_another_measure_or_an_unknown_domain_stands_beside_nothing() -> None:
    other = {"ours": {"MAP": judged()["ours"]["nDCG@10"]}}
    assert beside_published(other, {"ours": PROTOCOL}) is None
    assert beside_published(judged((*BRIGHT.domains, "cooking")), {"ours": PROTOCOL}) is None


def test_some_domains_stand_beside_theirs_without_an_average() -> None:
    protocol = msgspec.structs.replace(PROTOCOL, benchmark="bright:/data/bright", n_queries=112)
    found = beside_published(judged(("pony", "biology")), {"ours": protocol})
    assert found is not None and found.head == ("bio", "pony")
    assert found.rows[0].scores == (18.9, 7.9) and found.rows[-1].scores == pytest.approx((2.0, 1.0))
    assert found.rows[-1].departs == ()


def test_r2med_is_shown_with_two_decimals_and_its_own_instructions() -> None:
    instructions = {domain: R2MED.instruction(domain) for domain in R2MED.domains}
    protocol = msgspec.structs.replace(
        PROTOCOL, benchmark="r2med", instructions=instructions, max_tokens=512, n_queries=876, n_excluded=0
    )
    found = beside_published(judged(R2MED.domains), {"ours": protocol})
    assert found is not None and found.rows[-1].departs == ()
    lines = published_lines(found)[0].splitlines()
    assert lines[4].split()[-9:] == ["43.18", "54.01", "66.33", "67.64", "20.93", "27.96", "51.38", "33.76", "23.43"]
    assert lines[-1].split() == [">", "ours", "4.50", *(f"{place}.00" for place in range(1, 9))]


def test_the_report_says_what_every_row_is_and_why_a_row_is_marked() -> None:
    section = published_section(beside(max_tokens=512))
    text = str(msgspec.to_builtins(section.blocks))
    for row in BRIGHT.rows:
        assert row.protocol in text and row.departs in text
    assert "† ours: at most 512 tokens, not 8,192." in text and "arXiv 2510.08252" in text
