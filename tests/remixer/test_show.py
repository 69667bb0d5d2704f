"""What `reasonembed show` prints: examples with their texts, grades and reasons."""

from __future__ import annotations

import pytest

from reasonembed.errors import InputError
from reasonembed.remixer.show import iter_shown
from reasonembed.workspace import Workspace


def test_an_example_comes_with_source_positives_negatives_grades_and_reasons(pocket):
    workspace, _ = pocket
    shown = list(iter_shown(workspace, "biology"))
    assert len(shown) == 24
    for one in shown:
        assert one.query_id == f"{one.source.doc_id}-q0"
        assert one.conditions.conditioned is False
        assert all(found.grade >= 3 and found.reason and found.document.text for found in one.positives)
        assert all(found.grade <= 2 and found.reason for found in one.negatives)
        ids = {found.document.doc_id for found in (*one.positives, *one.negatives)}
        assert one.source.doc_id not in ids
    reasons = {found.document.doc_id: found.reason for found in shown[0].positives}
    assert not any("analysis" in reason.lower() for reason in reasons.values())


def test_a_limit_shows_the_first_ones(pocket):
    workspace, _ = pocket
    assert len(list(iter_shown(workspace, "biology", limit=2))) == 2


def test_a_domain_that_is_not_there_is_named_with_those_that_are(pocket):
    workspace, _ = pocket
    with pytest.raises(InputError, match=r"no finished examples of aops \(domains here: biology\)"):
        next(iter_shown(workspace, "aops"))
    with pytest.raises(InputError, match="domains here: none"):
        next(iter_shown(Workspace("/nowhere/at/all"), "aops"))


def test_another_corpus_is_refused(pocket, corpus_of):
    workspace, _ = pocket
    with pytest.raises(InputError, match="its content differs"):
        next(iter_shown(workspace, "biology", corpus=corpus_of({"a": "text"})))
