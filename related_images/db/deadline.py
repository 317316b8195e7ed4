"""How long a thread may wait for a database, where the driver itself has no such limit."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline(threading.local):
    """When the waits of this thread end, by the monotonic clock."""

    end: float = math.inf

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End them after ``seconds``, or when they were to end before."""
        before = self.end
        self.end = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.end = before


deadline = Deadline()
