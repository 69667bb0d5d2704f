"""One item ahead in a thread of its own, in order, with errors where they belong."""

from __future__ import annotations

import threading
import time

import pytest

from reasonembed.redapter.prefetch import ahead


def _thread_is_gone() -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(thread.name.startswith("reasonembed-prefetch") for thread in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_item_comes_once_in_order_with_its_result(count: int) -> None:
    assert list(ahead(range(count), lambda item: item * 10)) == [(item, item * 10) for item in range(count)]


def test_while_one_is_in_use_the_next_is_worked_on_in_another_thread_and_no_other() -> None:
    began = [threading.Event() for _ in range(4)]
    threads = set()

    def work(item: int) -> int:
        threads.add(threading.get_ident())
        began[item].set()
        return item

    for item, _ in ahead(range(4), work):
        if item + 1 < 4:
            assert began[item + 1].wait(5)
        assert not any(event.is_set() for event in began[item + 2 :])
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_comes_where_its_item_is_asked_for() -> None:
    seen = []
    with pytest.raises(ValueError, match="the third"):
        for item, _ in ahead(range(5), _fails_at_2):
            seen.append(item)
    assert seen == [0, 1] and _thread_is_gone()


def test_left_early_no_thread_stays() -> None:
    pairs = ahead(range(5), lambda item: item)
    assert next(pairs) == (0, 0)
    pairs.close()  # type: ignore[attr-defined]
    assert _thread_is_gone()


def _fails_at_2(item: int) -> int:
    if item == 2:
        raise ValueError("the third")
    return item
