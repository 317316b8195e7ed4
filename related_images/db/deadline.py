"""A deadline for each thread's waits for a database, for drivers without a limit of their own."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline(threading.local):
    """The deadline of the current thread.

    :ivar end: the deadline by :func:`time.monotonic`, in seconds
    """

    end: float = math.inf

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Set the deadline to ``seconds`` from now, unless it is earlier already.

        The previous deadline applies again at the end of the context.
        """
        before = self.end
        self.end = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.end = before


deadline = Deadline()
