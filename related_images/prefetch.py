"""Fetch the next item of an iterator while the caller processes the current one."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Generator[T]:
    """Yield the items in order; a thread fetches the next item while the caller processes one.

    A caller that stops early does not wait for the item that is being fetched; it is discarded.

    :param items: the source; ``None`` is not a valid item
    :raises BaseException: what ``items`` raises, at the item for which it was raised
    """
    pending = _fetch_next(items)
    while (item := pending.result()) is not None:
        pending = _fetch_next(items)
        yield item


def _fetch_next(items: Iterator[T]) -> Future[T | None]:
    pending: Future[T | None] = Future()

    def fetch() -> None:
        try:
            pending.set_result(next(items, None))
        # `pending.result()` raises it in the thread of the caller
        except BaseException as error:  # noqa: BLE001
            pending.set_exception(error)

    # at exit, the interpreter waits for the threads of a pool, but not for a daemon thread
    threading.Thread(target=fetch, daemon=True).start()
    return pending
