"""Count the attempts of database calls: a call that an open circuit breaker refuses makes none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from related_images.db.database import Database, Mode


@contextmanager
def attempts() -> Iterator[list[str]]:
    """Yield the transactions that this thread begins, ``read`` or ``write``, without probes."""
    asking, attempt, made = threading.get_ident(), Database._attempt, list[str]()

    def note(database: Database, mode: Mode, task: Callable[..., Any], *args: Any) -> Any:
        if threading.get_ident() == asking:
            made.append("write" if mode.writes else "read")
        return attempt(database, mode, task, *args)

    with mock.patch.object(Database, "_attempt", note):
        yield made
