from __future__ import annotations

from reasonembed.evaluate.per_query import largest_changes, per_query_rows

BASE = {("x", "1"): 0.5, ("x", "2"): 0.5, ("y", "1"): 0.25, ("y", "2"): 0.0, ("y", "3"): 1.0}
NEW = {("x", "1"): 0.75, ("x", "2"): 0.5, ("y", "1"): 1.0, ("y", "2"): 0.25, ("y", "3"): 0.0}


def test_gains_and_losses_come_largest_first_and_a_query_without_change_is_neither() -> None:
    gains, losses = largest_changes(NEW, BASE)
    assert [(one.domain, one.query_id, one.difference) for one in gains] == [
        ("y", "1", 0.75),
        ("x", "1", 0.25),
        ("y", "2", 0.25),
    ]
    assert [(one.domain, one.query_id, one.base, one.score) for one in losses] == [("y", "3", 1.0, 0.0)]
    assert len(largest_changes(NEW, BASE, limit=2)[0]) == 2


def test_the_order_in_which_queries_come_decides_nothing() -> None:
    backwards = dict(reversed(NEW.items()))
    assert largest_changes(backwards, BASE) == largest_changes(NEW, BASE)


def test_a_row_holds_every_system_that_has_the_query() -> None:
    rows = list(per_query_rows({"MAP": {"base": BASE, "new": NEW, "part": {("y", "3"): 0.5}}}))
    assert [(row["domain"], row["query_id"]) for row in rows] == list(BASE)
    assert rows[0]["scores"] == {"MAP": {"base": 0.5, "new": 0.75}}
    assert rows[4]["scores"] == {"MAP": {"base": 1.0, "new": 0.0, "part": 0.5}}
