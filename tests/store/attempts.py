"""What is asked of databases, counted: whether a call is refused at once, no clock can tell."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from related_images import metrics
from related_images.metrics import Metric


@contextmanager
def attempts() -> Iterator[list[str]]:
    """The tasks that this thread gives to databases, by their kind; others may probe meanwhile."""
    asking, add, made = threading.get_ident(), metrics.add, list[str]()

    def note(metric: Metric, label: str, amount: float = 1) -> None:
        if metric is Metric.DATABASE_TASKS and threading.get_ident() == asking:
            made.append(label)
        add(metric, label, amount)

    with mock.patch.object(metrics, "add", note):
        yield made
