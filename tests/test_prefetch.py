"""The next page is requested while the current one is processed."""

import threading
from collections.abc import Iterator

import pytest

from related_images.errors import BadInput
from related_images.prefetch import prefetch


def test_closing_does_not_wait_for_the_pending_page() -> None:
    may_go_on = threading.Event()

    def pages() -> Iterator[int]:
        yield 1
        may_go_on.wait()

    coming = prefetch(pages())
    assert next(coming) == 1
    coming.close()
    may_go_on.set()


def test_failed_page_raises_when_it_is_consumed() -> None:
    def pages() -> Iterator[int]:
        yield 1
        raise BadInput("no second one")

    coming = prefetch(pages())
    assert next(coming) == 1
    with pytest.raises(BadInput, match="no second one"):
        next(coming)
