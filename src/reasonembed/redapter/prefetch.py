"""What the next step needs, made ready while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each of `items` with what `work` gives for it; while one is in use, a thread works on the next.

    An error of `work` is raised where its own item is asked for, not before. Left early, it waits for the thread.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reasonembed-prefetch") as thread:
        waiting: tuple[T, Future[R]] | None = None
        for item in items:
            following = item, thread.submit(work, item)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


__all__ = ["ahead"]
