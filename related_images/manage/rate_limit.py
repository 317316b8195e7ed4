"""A limit for the requests that a command sends to a service."""

import time
from collections.abc import Callable


class RateLimit:
    """Allow at most ``rate`` requests per second, evenly spaced.

    :param rate: requests per second; ``math.inf`` for no limit
    :param clock: returns seconds of a monotonic clock
    :param sleep: waits for a number of seconds
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sleep = sleep
        self._clock = clock
        self._interval = 1 / rate
        self._next = clock()

    def wait(self) -> None:
        """Wait until the next request is allowed."""
        remaining = self._next - self._clock()
        if remaining > 0:
            self.sleep(remaining)
        self._next = self._clock() + self._interval
