"""The operators' program, run in this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from related_images.manage import main

CHANGED = ("alembic", "related_images.db.circuit_breaker")
"""Loggers whose level a command sets."""


def run(*words: str) -> int:
    """Run one command; gives its exit code."""
    with logging_as_it_was():
        return main(words)


@contextmanager
def logging_as_it_was() -> Iterator[None]:
    """A program sets up the log of its process, which is the tests' here.

    It writes to a stream that one test captures; the migrations of Glance, and the check of the
    import directions, silence every logger.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, CHANGED))}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for logger, level in levels.items():
            logger.setLevel(level)
        for name in root.manager.loggerDict:
            logging.getLogger(name).disabled = False
