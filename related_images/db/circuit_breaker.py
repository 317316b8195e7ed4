"""The memory of failure: refuse at once, and find out in the background when that is over."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import tenacity

from related_images.errors import StoreUnavailable

LOG = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 5.0
"""Seconds between two probes at the most; each pause is drawn anew from zero to its limit."""


class Breaker:
    """Closed until :meth:`trip`, then open until ``probe`` returns instead of raising.

    :param name: what is protected, for the log
    :param probe: raises :exc:`StoreUnavailable` for as long as it is of no use to try
    """

    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self._name = name
        self._probe = probe
        self._lock = threading.Lock()
        self._error: StoreUnavailable | None = None
        self._watch: threading.Thread | None = None
        self._is_over = threading.Event()

    def check(self) -> None:
        """Raise the error that opened the breaker, if it is open."""
        error = self._error
        if error is not None:
            raise type(error)(str(error))

    def trip(self, error: StoreUnavailable) -> None:
        """Open, and watch for the end of it. Tripping an open breaker changes nothing."""
        with self._lock:
            if self._error is None:
                self._error = error
                LOG.error("%s failed, refused until it works again: %s", self._name, error)
                self._begin_watch()

    def reset(self) -> None:
        """Close and end the watch, so that the next who asks tries it itself."""
        with self._lock:
            self._is_over.set()
            if self._watch is not None:
                self._watch.join()
            self._error = self._watch = None
            self._is_over.clear()

    def _begin_watch(self) -> None:
        watch = threading.Thread(
            target=self._keep_watch, name=f"related-images {self._name}", daemon=True
        )
        try:
            watch.start()
        except RuntimeError as fault:
            # nobody would find out that it works again, so the next who asks has to try
            LOG.error("%s cannot be watched: %s", self._name, fault)
            self._error = None
        else:
            self._watch = watch

    def _keep_watch(self) -> None:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._still_open),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            sleep=tenacity.sleep_using_event(self._is_over),
        )(self._try)
        if not self._is_over.is_set():
            LOG.warning("%s works again", self._name)
            self._error = None

    def _try(self) -> None:
        if not self._is_over.is_set():
            self._probe()

    def _still_open(self, error: BaseException) -> bool:
        """Tell callers the newest reason; a fault of the probe's own must not end the watch."""
        if isinstance(error, StoreUnavailable):
            self._tell(error)
        else:
            LOG.error("%s cannot be tried", self._name, exc_info=error)
        return isinstance(error, Exception)

    def _tell(self, error: StoreUnavailable) -> None:
        if str(error) != str(self._error):
            LOG.error("%s still fails: %s", self._name, error)
        self._error = error
