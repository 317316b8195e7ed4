"""What is asked of databases, counted: whether a call is refused at once, no clock can tell."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from related_images.db.database import Database


@contextmanager
def attempts() -> Iterator[list[str]]:
    """The transactions that this thread begins, by their kind; others may probe meanwhile."""
    asking, attempt, made = threading.get_ident(), Database._attempt, list[str]()

    def note(database: Database, writing: int, task: Callable[..., Any], *args: Any) -> Any:
        if threading.get_ident() == asking:
            made.append("write" if writing else "read")
        return attempt(database, writing, task, *args)

    with mock.patch.object(Database, "_attempt", note):
        yield made
