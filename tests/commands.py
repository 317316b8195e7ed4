"""Run ``related-images`` in this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from related_images.manage import main

CHANGED = ("alembic", "related_images.db.circuit_breaker")
"""The loggers whose level a command sets."""


def run(*words: str) -> int:
    """Run one command; return its exit code."""
    with logging_as_it_was():
        return main(words)


@contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Restore the logging configuration of the test process afterwards.

    A command logs to a stream that one test captures. Glance's migrations and the check of the
    import contracts disable all loggers.
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
