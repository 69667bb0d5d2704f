from __future__ import annotations

from pathlib import Path

import pytest

from reasonembed.beir import Collection, write_beir
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.pocket import POCKET_DOMAINS


def test_pocket_is_the_bundled_collection() -> None:
    pocket = load_collections("pocket")
    assert tuple(pocket) == POCKET_DOMAINS
    for collection in pocket.values():
        assert len(collection.corpus) == 52
        assert len(collection.queries) == 7
        assert all(query.reasoning_query for query in collection.queries.values())
        assert len(collection.flags["unseen"]) == 3
        assert {grade for grades in collection.qrels.values() for grade in grades.values()} <= {1, 2}


def test_a_folder_of_beir_folders_is_one_domain_each(tmp_path: Path, collections: dict[str, Collection]) -> None:
    for domain, collection in collections.items():
        write_beir(tmp_path / "all" / domain, collection)
    (tmp_path / "all" / "notes").mkdir()
    assert list(load_collections(tmp_path / "all")) == ["first", "second"]
    assert list(load_collections(str(tmp_path / "all" / "first"))) == ["first"]


def test_a_folder_without_collections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no BEIR folder"):
        load_collections(tmp_path)
    with pytest.raises(InputError, match=r'there is no folder .*or "pocket"'):
        load_collections(tmp_path / "missing")
