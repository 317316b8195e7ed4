"""How often a command may ask a service that others need too."""

import time
from collections.abc import Callable


class RateLimit:
    """At most ``rate`` requests a second, evenly spread.

    :ivar sleep: waits for so many seconds
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sleep = sleep
        self._clock = clock
        self._pause = 1 / rate
        self._next = clock()

    def keep(self) -> None:
        """Wait until the next request may go out."""
        early = self._next - self._clock()
        if early > 0:
            self.sleep(early)
        self._next = self._clock() + self._pause
