"""Doing two things at once where one of them is waiting."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Generator[T]:
    """The items, each one asked for while the one before it is dealt with.

    Whoever needs no more leaves at once, and the one that is on its way is dropped.
    """
    coming = _asked(items)
    while (item := coming.result()) is not None:
        coming = _asked(items)
        yield item


def _asked(items: Iterator[T]) -> Future[T | None]:
    coming: Future[T | None] = Future()

    def ask() -> None:
        try:
            coming.set_result(next(items, None))
        # raised where the item is awaited
        except BaseException as error:  # noqa: BLE001
            coming.set_exception(error)

    # a thread of a pool would be waited for at the end of the program
    threading.Thread(target=ask, daemon=True).start()
    return coming
