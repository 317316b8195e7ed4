"""What only SQLite needs: to write by turns, given to whoever has waited longest."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """One at a time, in the order of asking.

    The lock of the standard library goes to whoever comes by first, which under load is the thread
    that has just released it; others then wait for as long as the load lasts.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Wait at most ``seconds`` for a turn, and say whether it came."""
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
        """Stop waiting, unless the turn came at the same moment."""
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
