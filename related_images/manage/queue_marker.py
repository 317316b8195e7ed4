"""Prove that a queue loses nothing: a marker travels through it all the time.

A listener sends itself a marker through each of its queues. When it receives the marker, it has
received everything that was sent to the queue before, so that the time until the marker was sent is
covered. It sends the next marker before it acknowledges this one. So the queue always holds a
marker, also while no listener runs, and it is lost only with the rest of the queue. A listener that
finds no marker in a queue sends one that does not continue the covered time: the time since the
last one is a gap.

Several listeners may share a queue, and each sends markers. If a listener receives the marker of
another listener, it does not send it on if its own marker is on the way and covers all the time
since.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from related_images import validation
from related_images.errors import BadInput, StoreUnavailable

LOG = logging.getLogger(__name__)

EVENT_TYPE: Final = "related_images.marker"

LOST_AFTER: Final = timedelta(seconds=30)
"""The time after which another marker is sent, in case that one is lost."""

REPORT_EVERY: Final = timedelta(seconds=10)
"""The time between two heartbeats of a queue."""

BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker.

    :ivar since: the begin of the time that is covered if the marker is received; if it is
        ``sent_at``, the marker does not continue an earlier one
    """

    id: str
    since: datetime
    sent_at: datetime

    def as_message(self, priority: str) -> dict[str, Any]:
        """Return the notification that carries the marker.

        A listener of an older version ignores its event type.
        """
        since, sent_at = map(validation.format_time, (self.since, self.sent_at))
        return {
            "message_id": self.id,
            "publisher_id": "related-images",
            "event_type": EVENT_TYPE,
            "priority": priority.upper(),
            "payload": {"since": since, "queue": priority},
            "timestamp": sent_at,
        }


def is_marker(message: object) -> bool:
    """Return whether a notification carries a marker."""
    return isinstance(message, Mapping) and message.get("event_type") == EVENT_TYPE


def queue_of(message: Mapping[str, Any]) -> str:
    """Return the priority of the queue of a marker."""
    payload = message.get("payload")
    return str(payload.get("queue")) if isinstance(payload, Mapping) else ""


def _read(message: Mapping[str, Any]) -> Marker | None:
    """Return the marker in a notification, or ``None`` if it is malformed."""
    try:
        since = validation.parse_time("since", message["payload"]["since"])
        sent_at = validation.parse_time("timestamp", message["timestamp"])
        return Marker(str(message["message_id"]), since, sent_at)
    except (KeyError, TypeError, BadInput):
        return None


@dataclass
class QueueWatch:
    """What one queue covers.

    :param send: sends a marker to the queue; raises an error of the bus if that fails
    :param report: stores a covered time; raises :exc:`StoreUnavailable` if that fails
    :ivar received: when the latest marker that was received had been sent; what is received next
        was sent later
    """

    send: Callable[[Marker], None]
    report: Callable[[datetime, datetime], None]
    received: datetime = BEGINNING
    _own: Marker | None = None
    _reported_at: datetime = BEGINNING
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, now: datetime) -> None:
        """Send a marker if none is on the way, or it seems to be lost."""
        with self._lock:
            if self._own is None or now - self._own.sent_at > LOST_AFTER:
                self._send(now, now)

    def receive(self, message: Mapping[str, Any], now: datetime) -> bool:
        """Process a marker that was received after everything before it was stored.

        :returns: whether the marker may be acknowledged; if not, it must remain in the queue
        """
        found = _read(message)
        if found is None:
            return True
        with self._lock:
            self.received = max(self.received, found.sent_at)
            is_first = found.since == found.sent_at
            if self._is_proven_by_own(found) and (is_first or self._store(found, now)):
                return True
            is_due = is_first or now - self._reported_at >= REPORT_EVERY
            stored = is_due and self._store(found, now)
            return self._send(found.sent_at if stored else found.since, now)

    def _is_proven_by_own(self, found: Marker) -> bool:
        """Return whether the marker on the way covers the time since ``found`` was sent.

        It does so after this listener is killed, too.
        """
        own = self._own
        return own is not None and own.id != found.id and own.since <= found.sent_at <= own.sent_at

    def _store(self, found: Marker, now: datetime) -> bool:
        """Store the time that the marker covers; return whether that succeeded."""
        try:
            self.report(found.since, found.sent_at)
        except StoreUnavailable as error:
            LOG.error("the covered time is stored later: %s", error.for_log())
            return False
        self._reported_at = now
        return True

    def _send(self, since: datetime, now: datetime) -> bool:
        new = Marker(str(uuid4()), since, now)
        try:
            self.send(new)
        except Exception as error:  # noqa: BLE001 - the drivers of oslo.messaging raise many types
            LOG.warning("cannot send a marker to the bus: %s", type(error).__name__)
            return False
        self._own = new
        return True
