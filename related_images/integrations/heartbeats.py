"""The time during which a process has reported everything, and the heartbeats that state it."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

LOG = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between two heartbeats. A silence of more than 3 minutes is a gap."""

PAUSE: Final = 1.0
"""Seconds between a loss and the next heartbeat, which covers the losses of this time too."""


def _now() -> datetime:
    return datetime.now(UTC)


class Coverage:
    """Since when a process has lost no report. Several threads may use it.

    :param now: returns the time
    :ivar has_lost: set when a report is lost
    """

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self.has_lost = threading.Event()
        self._now = now
        self._lock = threading.Lock()
        self._since = now()
        self._unfinished: dict[object, datetime] = {}

    @contextmanager
    def report(self) -> Iterator[None]:
        """Send a report in this block. If the block raises, the report is lost."""
        key = object()
        with self._lock:
            self._unfinished[key] = self._now()
        try:
            yield
        except BaseException:  # a report that ends in any other way than well is lost
            with self._lock:
                self._since = self._now()
            self.has_lost.set()
            raise
        finally:
            with self._lock:
                del self._unfinished[key]

    def interval(self) -> tuple[datetime, datetime] | None:
        """Return the last interval without a lost report.

        It ends before the first report that is not finished, because that one may be lost.

        :returns: its begin and end; ``None`` if it is empty
        """
        with self._lock:
            until = min([self._now(), *self._unfinished.values()])
            return (self._since, until) if self._since < until else None


@dataclass(frozen=True, slots=True)
class ProcessHeartbeat:
    """A heartbeat.

    :ivar process: names the process; another process never has the same name
    :ivar since: since when the process has lost no report
    :ivar until: until when this is certain
    """

    process: str
    since: datetime
    until: datetime


class Heartbeat:
    """Sends the coverage of this process regularly, from a thread.

    :param send: sends one heartbeat; an exception means that it did not arrive, and the next one
        covers the same time
    :param interval: seconds between two heartbeats
    """

    def __init__(
        self, send: Callable[[ProcessHeartbeat], None], interval: float = INTERVAL
    ) -> None:
        self._send = send
        self._interval = interval
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._coverage = Coverage()
        self._failure: type[Exception] | None = None

    @property
    def coverage(self) -> Coverage:
        """The coverage of this process. A new process begins with its first call of a method."""
        self.ensure_running()
        return self._coverage

    def ensure_running(self) -> None:
        """Start the thread, if this process has none: threads do not survive a fork."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._coverage = Coverage()
            threading.Thread(target=self._run, args=(self._coverage,), daemon=True).start()
            self._pid = os.getpid()

    def _run(self, coverage: Coverage) -> None:
        process = _process_name()
        while True:
            self._beat(coverage, process)
            if coverage.has_lost.wait(self._interval):
                # without a heartbeat, nobody learns of the loss if the process ends
                time.sleep(PAUSE)
                coverage.has_lost.clear()

    def _beat(self, coverage: Coverage, process: str) -> None:
        interval = coverage.interval()
        if interval is None:
            return
        try:
            self._send(ProcessHeartbeat(process, *interval))
        except Exception as error:  # noqa: BLE001 - whatever fails, the thread must go on
            if type(error) is not self._failure:  # not every minute
                LOG.warning("a heartbeat did not arrive, the next one covers its time: %s", error)
            self._failure = type(error)
        else:
            self._failure = None


def _process_name() -> str:
    """Return a name of at most 64 characters, which no other process has."""
    host = re.sub("[^A-Za-z0-9._-]", "_", socket.gethostname())[:20]
    return f"{host}:{os.getpid()}:{uuid4().hex}"
