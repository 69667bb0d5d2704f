"""BRIGHT and R2MED from folders laid out as on the hub, written here by `datasets`."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reasonembed.errors import ConfigError, EndpointError, InputError
from reasonembed.evaluate import bright, r2med
from reasonembed.evaluate.benchmarks import load_collections, open_benchmark, together
from reasonembed.evaluate.hugging_face import HubSource, LocalSource
from reasonembed.evaluate.run import evaluate
from reasonembed.search.systems import Bm25System

PASSAGES = [
    ("01", "red fish"),
    ("a/b", "blue fish"),
    ("été 1", "green tree"),
    ("copy", "green tree"),
    ("2", "blue river"),
]
LONG = [("a", "red fish blue fish"), ("b", "green tree blue river")]
BIOLOGY = [
    ("007", "fish", ["a/b"], ["a"], ["N/A"]),
    ("8", "green tree", ["été 1"], ["b"], ["copy", "not in the corpus"]),
]
SHARED = [("p1", "sum of primes"), ("p2", "product of primes"), ("p3", "even sum")]


def parquet(path: Path, **columns: list[Any]) -> None:
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns).to_parquet(path)


def documents(path: Path, rows: list[tuple[str, str]]) -> None:
    parquet(path, id=[row[0] for row in rows], content=[row[1] for row in rows])


def examples(path: Path, rows: list[Any]) -> None:
    ids, queries, gold, gold_long, excluded = map(list, zip(*rows, strict=True))
    more: dict[str, list[Any]] = {"reasoning": ["" for _ in rows], "gold_answer": ["" for _ in rows]}
    parquet(path, id=ids, query=queries, gold_ids=gold, gold_ids_long=gold_long, excluded_ids=excluded, **more)


@pytest.fixture
def bright_folder(tmp_path: Path) -> Path:
    """biology in parts, aops and theoremqa_questions over one corpus in other orders, one of them as JSONL."""
    folder = tmp_path / "BRIGHT"
    documents(folder / "documents/biology-00000-of-00002.parquet", PASSAGES[:2])
    documents(folder / "documents/biology-00001-of-00002.parquet", PASSAGES[2:])
    documents(folder / "long_documents/biology-00000-of-00001.parquet", LONG)
    examples(folder / "examples/biology-00000-of-00001.parquet", BIOLOGY)
    examples(
        folder / "gpt4_reason/biology-00000-of-00001.parquet",
        [("007", "think of a river", ["a/b"], ["a"], ["N/A"]), ("8", "red", ["été 1"], ["b"], ["N/A"])],
    )
    documents(folder / "documents/aops.parquet", SHARED)
    examples(folder / "examples/aops.parquet", [("1", "sum", ["p3"], [], ["p1"])])
    lines = [json.dumps({"id": doc_id, "content": text}) for doc_id, text in reversed(SHARED)]
    (folder / "documents/theoremqa_questions.jsonl").write_text("\n".join(lines))
    (folder / "examples/theoremqa_questions.jsonl").write_text(
        json.dumps({"id": 1, "query": "product", "gold_ids": ["p2", "p2"], "excluded_ids": "N/A"})
    )
    return folder


@pytest.fixture
def r2med_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "R2MED"
    here = folder / "PMC-Clinical"
    parquet(here / "corpus/corpus-00000-of-00001.parquet", id=["10", "11", "12"], text=["cough", "fever cough", "rash"])
    parquet(here / "query/query-00000-of-00001.parquet", id=["1", "2"], text=["cough", "rash fever"])
    parquet(
        here / "qrels/qrels-00000-of-00001.parquet",
        q_id=["1", "1", "2", "2"],
        p_id=["10", "11", "11", "12"],
        score=[1, 2, 1, 0],
    )
    return folder


def test_bright_is_read_with_its_exclusions_and_ids_to_the_letter(bright_folder: Path) -> None:
    read = load_collections(f"bright/biology:{bright_folder}")["biology"]
    assert read.corpus.ids == ["01", "a/b", "été 1", "copy", "2"]
    assert {query_id: query.text for query_id, query in read.queries.items()} == {"007": "fish", "8": "green tree"}
    assert read.qrels == {"007": {"a/b": 1}, "8": {"été 1": 1}}
    assert read.excluded == {"8": frozenset({"copy"})}
    assert read.rewrites == {"gpt4_reason": {"007": "think of a river", "8": "red"}}


def test_the_long_setting_has_its_own_documents_judgments_words_and_measure(bright_folder: Path) -> None:
    benchmark = open_benchmark(f"bright-long:{bright_folder}", domains=["biology"])
    read = benchmark.load()["biology"]
    assert (read.corpus.ids, read.qrels) == (["a", "b"], {"007": {"a": 1}, "8": {"b": 1}})
    assert benchmark.measures == ("Recall@1",)
    assert benchmark.instructions == {
        "biology": "Given a Biology post, retrieve relevant documents that help answer the post."
    }
    assert len(bright.LONG_DOMAINS) == 8 and "leetcode" not in bright.LONG_DOMAINS


def test_a_corpus_that_two_domains_share_is_one_whatever_its_order_and_format(bright_folder: Path) -> None:
    read = load_collections(f"bright/aops,theoremqa_questions:{bright_folder}")
    assert read["aops"].corpus is read["theoremqa_questions"].corpus
    assert read["theoremqa_questions"].qrels == {"1": {"p2": 1}}
    (bright_folder / "documents/theoremqa_questions.jsonl").unlink()
    (bright_folder / "documents/theoremqa_questions.parquet").write_bytes(
        (bright_folder / "documents/aops.parquet").read_bytes()
    )
    source = Counting(bright_folder, bright.REPOSITORY)
    bright.read_bright(source, ["aops", "theoremqa_questions"])
    assert [split for config, split in source.reads if config == "documents"] == ["aops"]


class Counting(LocalSource):
    """Keeps what was read."""

    def __init__(self, folder: Path, repository: str) -> None:
        super().__init__(folder, repository)
        self.reads: list[tuple[str, str]] = []

    def rows(self, config: str, split: str) -> Any:
        self.reads.append((config, split))
        return super().rows(config, split)


def test_judging_bright_gives_the_scores_worked_out_by_hand(bright_folder: Path) -> None:
    benchmark = open_benchmark(f"bright/biology,aops,theoremqa_questions:{bright_folder}")
    judged = evaluate(Bm25System(), benchmark.load(), measures=benchmark.measures, benchmark=benchmark.name)
    # "fish": a/b and 01 tie, the greater id (a/b) first: 1.  "green tree": copy is excluded: 1.
    # "sum": p1 (excluded) goes, p3 is first: 1.  "product": p2: 1.
    assert judged.scores["nDCG@10"] == {
        ("biology", "007"): 1.0,
        ("biology", "8"): 1.0,
        ("aops", "1"): 1.0,
        ("theoremqa_questions", "1"): 1.0,
    }
    reasoned = evaluate(Bm25System(), {"biology": benchmark.load()["biology"]}, queries="gpt4_reason")
    # "think of a river" finds document 2 alone, "red" 01 alone: neither is relevant.
    assert reasoned.mean["nDCG@10"].mean == 0
    biology = msgspec.structs.replace(benchmark.load()["biology"], excluded={})
    without = evaluate(Bm25System(), {"biology": biology})
    # Without the exclusion "copy" and "été 1" tie; "été 1" is the greater id, so the copy comes second.
    assert list(without.runs["biology"]["8"]) == ["été 1", "copy"]


def test_judging_r2med_uses_the_grades(r2med_folder: Path) -> None:
    benchmark = open_benchmark(f"r2med/PMC-Clinical:{r2med_folder}")
    assert (benchmark.max_tokens, benchmark.measures) == (512, ("nDCG@10",))
    assert "similar cases" in benchmark.instructions["PMC-Clinical"]
    judged = evaluate(Bm25System(), benchmark.load(), measures=["nDCG@10"], benchmark=benchmark.name)
    # "cough": the shorter 10 (grade 1) before 11 (grade 2).  "rash fever": 12 (grade 0) before 11 (grade 1).
    ideal = 2 + 1 / math.log2(3)
    assert judged.scores["nDCG@10"]["PMC-Clinical", "1"] == pytest.approx((1 + 2 / math.log2(3)) / ideal)
    assert judged.scores["nDCG@10"]["PMC-Clinical", "2"] == pytest.approx(1 / math.log2(3))


def test_the_protocol_says_where_the_files_come_from(bright_folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / commit
    bright_folder.rename(snapshot)
    judged = evaluate(Bm25System(), load_collections(f"bright/biology:{snapshot}"), benchmark="bright")
    assert judged.protocol.origins == (f"xlangai/BRIGHT@{commit}",)
    assert "benchmark: bright (xlangai/BRIGHT@0123456789ab, revision " in str(judged.protocol)


def test_the_hub_is_asked_for_the_same_commit_throughout(
    bright_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` itself reads the folder as the repository, by the configs in its card."""
    import datasets
    import huggingface_hub

    configs = {
        config: {"biology": f"{config}/biology-*.parquet"} for config in ("documents", "examples", "gpt4_reason")
    }
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        card += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    (bright_folder / "README.md").write_text("\n".join([*card, "---", ""]))
    commit = "f" * 40
    asked = []

    def info(self: Any, repository: str, revision: str | None = None) -> Any:
        asked.append((repository, revision))
        return type("Info", (), {"sha": commit})

    def at_commit(function: Any) -> Any:
        def call(repository: str, *arguments: str, revision: str, **named: Any) -> Any:
            assert (repository, revision) == ("xlangai/BRIGHT", commit)
            return function(str(bright_folder), *arguments, **named)

        return call

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("load_dataset", "get_dataset_config_names", "get_dataset_split_names"):
        monkeypatch.setattr(datasets, name, at_commit(getattr(datasets, name)))
    from_hub = open_benchmark("bright/biology@v1").load()["biology"]
    local = load_collections(f"bright/biology:{bright_folder}")["biology"]
    assert asked == [("xlangai/BRIGHT", "v1")]
    assert from_hub.origin == f"xlangai/BRIGHT@{commit}"
    assert (from_hub.sha256, from_hub.rewrites) == (local.sha256, local.rewrites)


def test_a_hub_that_cannot_be_reached_is_an_error_with_the_cure() -> None:
    with pytest.raises(EndpointError, match=r"R2MED/Biology could not be had .* give their folder as NAME:FOLDER"):
        list(HubSource("R2MED/Biology").rows("corpus", "corpus"))


@pytest.mark.parametrize(
    ("path", "content", "found"),
    [
        ("documents/biology.jsonl", '{"id": "1"}', r"biology\.jsonl, line 1: .*missing required field `content`"),
        ("documents/biology.jsonl", '{"id": "", "content": "x"}', r"line 1: the id is empty"),
        (
            "documents/biology.jsonl",
            '{"id": "1", "content": "x"}\n{"id": "1", "content": "y"}',
            r"line 2: the id '1' stands there before with another text",
        ),
        ("documents/biology.jsonl", "", r"documents, biology of local files: there is no document"),
        ("examples/biology.jsonl", '{"id": "1", "query": "x"}', r"line 1: the query '1' has no field gold_ids"),
        ("examples/biology.jsonl", '{"id": "1", "query": " ", "gold_ids": []}', r"line 1: the query '1' has no text"),
        (
            "examples/biology.jsonl",
            '{"id": "1", "query": "x", "gold_ids": ["01"]}\n' * 2,
            r"line 2: the query '1' stands there before",
        ),
        (
            "examples/biology.jsonl",
            '{"id": "1", "query": "x", "gold_ids": ["01"], "excluded_ids": ["01"]}',
            r"document '01' is relevant to query '1' and excluded",
        ),
        ("examples/biology.jsonl", '{"id": "1", "query": "x", "gold_ids": []}', r"no query has a relevant document"),
    ],
)
def test_what_is_wrong_with_brights_files_is_named(bright_folder: Path, path: str, content: str, found: str) -> None:
    for old in (bright_folder / path).parent.glob("biology*"):
        old.unlink()
    (bright_folder / path).write_text(content)
    with pytest.raises(InputError, match=found):
        load_collections(f"bright/biology:{bright_folder}")


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (-1.0, r"qrels\.jsonl, line 2: the score is -1; it must be a whole number"),
        (0.5, r"line 2: the score is 0\.5"),
        (1.0, r"line 2: query '1' and document '10' were judged 2 before and 1 now"),
    ],
)
def test_a_judgment_that_cannot_be_is_named(r2med_folder: Path, score: float, found: str) -> None:
    (r2med_folder / "PMC-Clinical/qrels/qrels-00000-of-00001.parquet").unlink()
    rows = [{"q_id": "1", "p_id": "10", "score": grade} for grade in (2, score)]
    (r2med_folder / "PMC-Clinical/qrels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=found):
        load_collections(f"r2med/PMC-Clinical:{r2med_folder}")


def test_a_truncated_file_and_a_missing_part_are_named(bright_folder: Path) -> None:
    part = bright_folder / "documents/biology-00001-of-00002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"biology-00001-of-00002\.parquet \([\d,]+ bytes\) cannot be read.*download"):
        load_collections(f"bright/biology:{bright_folder}")
    part.unlink()
    with pytest.raises(InputError, match=r"holds 1 of the 2 parts of biology"):
        load_collections(f"bright/biology:{bright_folder}")


def test_an_unknown_domain_config_or_split_is_named_with_those_there_are(bright_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'unknown domain "biolgy"; did you mean "biology"\? Known: biology, earth'):
        open_benchmark("bright", domains=["biolgy"])
    with pytest.raises(ConfigError, match=r'unknown domain "leetcode"'):
        open_benchmark("bright-long/leetcode")
    with pytest.raises(ConfigError, match=r'unknown domain "pharmacy".*biology'):
        open_benchmark("pocket", domains=["pharmacy"]).load()
    with pytest.raises(
        InputError, match=r"there is no .*documents/pony\.parquet.*splits of documents there: aops, bio"
    ):
        load_collections(f"bright/pony:{bright_folder}")
    with pytest.raises(InputError, match=r"long_documents/pony.*The splits of long_documents there: biology"):
        load_collections(f"bright-long/pony:{bright_folder}")
    (bright_folder / "documents").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"the configs in .*BRIGHT: examples, gpt4_reason, long_documents"):
        load_collections(f"bright/biology:{bright_folder}")
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        open_benchmark(f"r2med:{tmp_path / 'nowhere'}")


def test_oddities_that_change_no_score_are_counted_and_said(
    bright_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples(
        bright_folder / "examples/biology-00000-of-00001.parquet",
        [*BIOLOGY, ("9", "no gold", [], [], ["N/A"]), ("10", "gone", ["gone"], [], ["N/A"])],
    )
    documents(bright_folder / "documents/biology-00001-of-00002.parquet", [*PASSAGES[2:], PASSAGES[2]])
    with caplog.at_level(logging.WARNING):
        read = load_collections(f"bright/biology:{bright_folder}")["biology"]
    assert list(read.queries) == ["007", "8", "10"]
    assert "1 documents stand in the corpus twice" in caplog.text
    assert "biology: 1 queries have no judgment" in caplog.text
    assert "1 judged documents are not in the corpus" in caplog.text


def test_benchmarks_are_judged_together_only_under_one_protocol(bright_folder: Path, r2med_folder: Path) -> None:
    two = together([open_benchmark(f"bright/{name}:{bright_folder}") for name in ("biology", "aops")])
    assert list(two.load()) == ["biology", "aops"] and two.name == "bright, bright"
    assert list(two.instructions) == ["biology", "aops"]
    with pytest.raises(ConfigError, match="different lengths"):
        together([open_benchmark(f"bright:{bright_folder}"), open_benchmark(f"r2med:{r2med_folder}")])
    with pytest.raises(InputError, match='two collections are named "biology"'):
        together([open_benchmark(f"bright/biology:{bright_folder}")] * 2).load()


def test_the_benchmarks_have_the_domains_and_instructions_of_the_paper() -> None:
    assert (len(bright.DOMAINS), len(r2med.DOMAINS)) == (12, 8)
    assert bright.instructions(["leetcode"]) == {
        "leetcode": "Given a Coding problem, retrieve relevant examples that help answer the problem."
    }
    assert r2med.INSTRUCTIONS["Medical-Sciences"] == (
        "Given a Medical Science post, retrieve relevant passages that help answer the post."
    )
