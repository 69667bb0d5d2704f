"""The TOML file of systems, and rewriting: from a file and recorded or scripted replies to judged rankings."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonembed.errors import ConfigError, InputError
from reasonembed.llm.door import open_door
from reasonembed.workflow.judging import collections_under, judge
from reasonembed.workflow.rewriting import read_rewrites, rewrite_queries, with_rewrites
from reasonembed.workflow.systems import read_tables, systems_from

FILE = """
[sparse]
retriever = "bm25q"

[thought]
retriever = "bm25"
queries = ["original", "thought"]

[hybrid]
parts = ["sparse", "thought"]
weights = [0.3, 0.7]

[reranked]
first = "hybrid"
rerank = {model = "scripted", k = 3, samples = 2, weight = 0.5}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "systems.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def biology() -> dict:
    from reasonembed.pocket import pocket_folder

    return collections_under([pocket_folder("biology")])


def test_a_file_of_systems_is_judged_and_each_says_what_it_did(tmp_path: Path, biology: dict) -> None:
    with open_door("scripted", journal_path=tmp_path / "journal.sqlite") as door:
        report = rewrite_queries(biology, tmp_path / "thought.jsonl", door=door)
        asked = door.spent.asked
        rewrite_queries(biology, tmp_path / "again.jsonl", door=door)
        assert door.spent.asked == asked == len(biology["biology"].queries)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "thought.jsonl").read_bytes()
    assert report.written == asked - len(report.dropped) == asked
    collections = with_rewrites(biology, [tmp_path / "thought.jsonl"])
    systems = systems_from(written(tmp_path, FILE), collections, cache=tmp_path / "cache")
    judgment = judge(systems, collections, base="sparse")
    assert list(judgment.results) == ["sparse", "thought", "hybrid", "reranked"]
    assert "original + thought queries" in judgment.protocols["thought"]
    assert "weighted sum after min-max (weights 0.3, 0.7, depth 1000)" in judgment.protocols["hybrid"]
    assert (
        "best 3 reranked by scripted (mean grade of 2 samples at temperature 0.7), weight 0.5"
        in (judgment.protocols["reranked"])
    )
    hybrid, reranked = (judgment.evaluations[name][0].runs["biology"] for name in ("hybrid", "reranked"))
    for query_id, ranking in reranked.items():
        assert set(list(ranking)[:3]) == set(list(hybrid[query_id])[:3])
        assert list(ranking)[3:] == list(hybrid[query_id])[3:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[a]\nmodle = "x"', 'did you mean "model"'),
        ('[a]\nretriever = "bm25k"', 'did you mean "bm25'),
        ('[a]\nmodel = "x"\ninstructoin = "y"', 'did you mean "instruction"'),
        ('[a]\nparts = ["bm25", "desne"]\n[dense]\nmodel = "x"', 'did you mean "dense"'),
        ('[a]\nparts = ["b"]\n[b]\nparts = ["a"]', "cannot be made of itself"),
        ('[a]\nfirst = "bm25"\nrerank = {model = "x", wieght = 1.0}', 'did you mean "weight"'),
        ('[a]\nfirst = "bm25"\nrerank = {model = "x", weight = 3.0}', "must lie between 0 and 1"),
        ("", "names no system"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_nearest_word(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_tables(written(tmp_path, text))


def test_unknown_wordings_and_rerankers_without_a_cache_are_refused(tmp_path: Path, biology: dict) -> None:
    path = written(tmp_path, '[a]\nretriever = "bm25"\nqueries = ["orignal"]')
    with pytest.raises(ConfigError, match='did you mean "original"'):
        systems_from(path, biology)
    path = written(tmp_path, '[a]\nfirst = "bm25"\nrerank = {model = "scripted"}')
    with pytest.raises(ConfigError, match="must be kept"):
        systems_from(path, biology)


def test_a_file_of_rewrites_for_another_benchmark_or_with_a_query_twice_is_refused(
    tmp_path: Path, biology: dict
) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"domain": "pony", "query_id": "1", "text": "x"}\n')
    with pytest.raises(InputError, match="no wording for any query of biology; it speaks of pony"):
        with_rewrites(biology, [path])
    path.write_text('{"domain": "pony", "query_id": "1", "text": "x"}\n' * 2)
    with pytest.raises(InputError, match="line 2: the query '1' of pony stands there twice"):
        read_rewrites(path)


def test_a_model_on_named_devices_scores_as_on_one(tmp_path: Path, biology: dict, tiny_models: dict[str, Path]) -> None:
    model = f'model = "{tiny_models["bert"]}"\ninstruction = ""\nmax_tokens = 32\n'
    text = f'[one]\n{model}[several]\n{model}devices = ["cpu", "cpu"]\n[wrong]\n{model}devices = ["gpu"]\n'
    systems = systems_from(written(tmp_path, text), biology)
    results = judge({name: systems[name] for name in ("one", "several")}, biology).results
    assert results["one"]["nDCG@10"]["mean"] == pytest.approx(results["several"]["nDCG@10"]["mean"], abs=1e-9)
    with pytest.raises(ConfigError, match='no device "gpu"'):
        systems["wrong"]()
