"""The memory of failure: refuse at once, and find out in the background when that is over."""

import logging
import math
import operator
import threading
import time
from collections.abc import Callable
from typing import Final

import tenacity

from related_images.errors import StoreUnavailable

LOG = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 5.0
"""Seconds between two probes at the most; each pause is drawn anew from zero to its limit."""

QUIET: Final = 60.0
"""Seconds in which a failure is not logged again that comes and goes for the same reason."""

Probe = Callable[[], None]
"""Does what failed, in kind; raises :exc:`StoreUnavailable` for as long as that fails."""


class Breaker:
    """Closed until :meth:`trip`, then open until a probe returns instead of raising.

    :param name: what is protected, for the log
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._error: StoreUnavailable | None = None
        self._watch: _Watch | None = None
        self._told: set[str] = set()
        self._logged, self._logged_at, self._is_logged = "", -math.inf, False

    def check(self) -> None:
        """Raise the error that opened the breaker, if it is open."""
        error = self._error
        if error is not None:
            raise type(error)(str(error))

    def trip(self, error: StoreUnavailable, probe: Probe) -> None:
        """Open, and watch for the end of it. Tripping an open breaker changes nothing."""
        with self._lock:
            if self._error is None:
                self._open(error)
                if not self._watch_by(probe):
                    # nobody would find out that it works again, so the next who asks has to try
                    self._error = None

    def suspect(self, probe: Probe) -> None:
        """Stay closed, and let the ``probe`` find out whether to open."""
        with self._lock:
            if self._watch is None:
                self._watch_by(probe)

    def reset(self) -> None:
        """Close and end the watch, so that the next who asks tries it itself."""
        with self._lock:
            watch, self._watch, self._error = self._watch, None, None
        if watch is not None:
            watch.end()

    def _watch_by(self, probe: Probe) -> bool:
        """Have this probe tried until it works, from now on; say whether that can be."""
        if self._watch is not None:
            self._watch.probe = probe
            return True
        watch = _Watch(self, probe)
        try:
            watch.begin(self._name)
        except RuntimeError as fault:
            LOG.error("%s cannot be watched: %s", self._name, fault)
            return False
        self._watch = watch
        return True

    def _open(self, error: StoreUnavailable) -> None:
        self._error, logged, now = error, error.for_log(), time.monotonic()
        self._told = {logged}
        self._is_logged = logged != self._logged or now - self._logged_at > QUIET
        if self._is_logged:
            LOG.error("%s failed, refused until it works again: %s", self._name, logged)
            self._logged, self._logged_at = logged, now

    def _still(self, error: StoreUnavailable) -> None:
        """Tell callers the newest reason."""
        self._error, logged = error, error.for_log()
        if logged not in self._told:
            LOG.error("%s still fails: %s", self._name, logged)
        self._told.add(logged)

    def failed(self, watch: "_Watch", error: BaseException) -> None:
        """Learn of a probe that failed; a fault of its own changes nothing."""
        with self._lock:
            if self._watch is not watch:
                return
            if not isinstance(error, StoreUnavailable):
                LOG.error("%s cannot be tried", self._name, exc_info=error)
            elif self._error is None:
                self._open(error)
            else:
                self._still(error)

    def worked(self, watch: "_Watch", probe: Probe) -> bool:
        """Learn of a probe that worked; say whether nothing is left to watch."""
        with self._lock:
            if self._watch is not watch:
                return True
            if watch.probe is not probe:
                return False  # what failed meanwhile is another thing
            if self._error is not None and self._is_logged:
                LOG.warning("%s works again", self._name)
            self._watch = self._error = None
            return True


class _Watch:
    """A thread that tries a probe, which may be exchanged, until it works or the end."""

    def __init__(self, breaker: Breaker, probe: Probe) -> None:
        self.probe = probe
        self._breaker = breaker
        self._is_over = threading.Event()

    def begin(self, name: str) -> None:
        self._thread = threading.Thread(
            target=self._keep, name=f"related-images {name}", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _keep(self) -> None:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._failed)
            | tenacity.retry_if_result(operator.not_),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            sleep=tenacity.sleep_using_event(self._is_over),
        )(self._try)

    def _try(self) -> bool:
        if self._is_over.is_set():
            return True
        probe = self.probe
        probe()
        return self._breaker.worked(self, probe)

    def _failed(self, error: BaseException) -> bool:
        self._breaker.failed(self, error)
        return isinstance(error, Exception)
