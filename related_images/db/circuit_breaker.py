"""A circuit breaker: fail at once after a failure, and probe in the background for recovery.

See "Circuit Breaker" in Michael Nygard, *Release It!*.
"""

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
"""The longest pause between two probes, in seconds; each pause is random, with full jitter."""

QUIET: Final = 60.0
"""The time in seconds during which a repeated failure with the same reason is logged once."""

Probe = Callable[[], None]
"""Repeats the failed access; raises :exc:`StoreUnavailable` while it fails."""


class Breaker:
    """A circuit breaker; :meth:`trip` opens it, a successful probe closes it.

    :param name: the protected operation, for the log
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._error: StoreUnavailable | None = None
        self._watch: _Watch | None = None
        self._logged_since_open: set[str] = set()
        self._logged, self._logged_at, self._is_logged = "", -math.inf, False

    def check(self) -> None:
        """Do nothing if the breaker is closed.

        :raises StoreUnavailable: if it is open: the error of the newest failure
        """
        error = self._error
        if error is not None:
            raise type(error)(str(error))

    def trip(self, error: StoreUnavailable, probe: Probe) -> None:
        """Open the breaker unless it is open, and start to probe.

        :param error: the error that :meth:`check` raises
        """
        with self._lock:
            if self._error is None:
                self._open(error)
                if not self._watch_by(probe):
                    # without a probe nothing would close the breaker
                    self._error = None

    def suspect(self, probe: Probe) -> None:
        """Start to probe without opening the breaker; it opens if the ``probe`` fails."""
        with self._lock:
            if self._watch is None:
                self._watch_by(probe)

    def reset(self) -> None:
        """Close the breaker and end the probes, so that the next call tries the access."""
        with self._lock:
            watch, self._watch, self._error = self._watch, None, None
        if watch is not None:
            watch.end()

    def _watch_by(self, probe: Probe) -> bool:
        """Repeat this probe, instead of an earlier one, until it succeeds.

        :returns: whether a thread could be started
        """
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
        self._logged_since_open = {logged}
        self._is_logged = logged != self._logged or now - self._logged_at > QUIET
        if self._is_logged:
            LOG.error(
                "%s failed; further calls are refused until it works again: %s", self._name, logged
            )
            self._logged, self._logged_at = logged, now

    def _still(self, error: StoreUnavailable) -> None:
        """Replace the error that :meth:`check` raises with the newest one."""
        self._error, logged = error, error.for_log()
        if logged not in self._logged_since_open:
            LOG.error("%s still fails: %s", self._name, logged)
        self._logged_since_open.add(logged)

    def failed(self, watch: "_Watch", error: BaseException) -> None:
        """Handle a failed probe; an error other than :exc:`StoreUnavailable` is only logged."""
        with self._lock:
            if self._watch is not watch:
                return
            if not isinstance(error, StoreUnavailable):
                LOG.error("%s: the probe failed unexpectedly", self._name, exc_info=error)
            elif self._error is None:
                self._open(error)
            else:
                self._still(error)

    def worked(self, watch: "_Watch", probe: Probe) -> bool:
        """Handle a successful probe, and return whether the thread can end."""
        with self._lock:
            if self._watch is not watch:
                return True
            if watch.probe is not probe:
                return False  # another call failed meanwhile: its probe must succeed too
            if self._error is not None and self._is_logged:
                LOG.warning("%s works again", self._name)
            self._watch = self._error = None
            return True


class _Watch:
    """A thread that repeats a probe until it succeeds; the probe can be replaced."""

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
