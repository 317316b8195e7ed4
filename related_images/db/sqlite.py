"""A fair lock, which serializes the writes to SQLite within a process."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """A lock that threads acquire in the order of their requests.

    :class:`threading.Lock` is not fair: under load, the thread that has just released it acquires
    it again, and other threads starve.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Hold the lock in a context.

        :param seconds: the timeout
        :returns: whether the lock was acquired in time
        """
        came = self._take(seconds)
        try:
            yield came
        finally:
            if came:
                self._pass_on()

    def _take(self, seconds: float) -> bool:
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        return called.acquire(timeout=max(seconds, 0)) or not self._leave(called)

    def _leave(self, called: threading.Lock) -> bool:
        """Leave the queue, and return whether the lock was not acquired at the last moment."""
        with self._guard:
            if called not in self._waiting:
                return False
            self._waiting.remove(called)
            return True

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
