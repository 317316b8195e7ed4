"""Taking notifications from message buses in batches, each acknowledged when it is stored."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import oslo_messaging
from oslo_config import cfg
from oslo_messaging.notify.listener import BatchNotificationServer

from related_images.db import Database
from related_images.db.notifications import Event, store
from related_images.errors import (
    BusUnusable,
    FieldInvalid,
    NotificationMalformed,
    StoreUnavailable,
)
from related_images.manage.notification_parser import read

LOG = logging.getLogger(__name__)

PRIORITIES: Final = ("info", "error")
"""Nova sends under these; the queue of one that nobody takes from would grow for ever."""

BATCH: Final = 100
BATCH_SECONDS: Final = 0.5
"""How long a batch waits to become full."""

PAUSE: Final = 1.0
"""Seconds before the database, or the file, is tried again."""

PREFETCH: Final = 1000
"""How many unacknowledged messages the bus hands out at once.

Of those that come again after a loss of the bus, oslo.messaging leaves up to 512 unacknowledged;
with fewer than these at once, nothing else would ever come.
"""


REFUSED: Final = "the database cannot keep what it says"


@dataclass(frozen=True)
class Bus:
    """Where the notifications of one Nova are."""

    installation_uuid: str
    url: str | None = field(repr=False)
    topic: str
    exchange: str


@dataclass(frozen=True)
class Malformed:
    """A message that cannot be understood, or not be kept, and why."""

    message: object
    reason: str


@dataclass
class Listener:
    """Stores what notifications say.

    :param set_aside: the file that malformed ones are appended to, one JSON object a line
    """

    database: Database
    set_aside: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at_once: int = BATCH

    def take(self, installation_uuid: str, messages: Sequence[object]) -> bool:
        """Store a batch, for as long as it takes; say whether that was done before the stop."""
        found = [_understood(installation_uuid, message) for message in messages]
        refused = self._store([one for one in found if isinstance(one, Event)])
        if refused is None:
            return False
        found = [
            Malformed(message, REFUSED) if one in refused else one
            for one, message in zip(found, messages, strict=True)
        ]
        malformed = [one for one in found if isinstance(one, Malformed)]
        if not self._put_aside(installation_uuid, malformed):
            return False
        with self._lock:
            self.counts.update(_outcome(one) for one in found)
        return True

    def _put_aside(self, installation_uuid: str, malformed: Iterable[Malformed]) -> bool:
        """Whether the file took them; if not, they come again after a pause."""
        lines = [_line(installation_uuid, one) for one in malformed]
        try:
            if lines:
                with self._lock, self.set_aside.open("a", encoding="utf-8") as file:
                    file.writelines(lines)
        except OSError as error:
            LOG.error("waiting for the file that takes what is malformed: %s", error)
            self.stopping.wait(PAUSE)
            return False
        for one in malformed:
            LOG.warning("set aside in %s: %s", self.set_aside, one.reason)
        return True

    def _store(self, events: Sequence[Event]) -> list[Event] | None:
        """Those that the database cannot keep, when all others are stored; ``None`` at the stop.

        Of a database that is away or too slow fewer are asked at once, so that some get through,
        and of one that refuses some until it refuses one alone.
        """
        waits, refused = False, list[Event]()
        while events and not self.stopping.is_set():
            part = events[: self._at_once]
            try:
                store(self.database, part)
            except StoreUnavailable as error:
                if not waits:
                    LOG.error("waiting for the database, no message is lost: %s", error.for_log())
                waits = True
                self._at_once = max(1, len(part) // 2)
                self.stopping.wait(PAUSE)
            except FieldInvalid:
                self._at_once = max(1, len(part) // 2)
                if len(part) == 1:
                    refused += part
                    events = events[1:]
            else:
                events = events[len(part) :]
                self._at_once = min(BATCH, self._at_once + 1)
        return None if events else refused


def _understood(installation_uuid: str, message: object) -> Event | Malformed | None:
    try:
        return read(installation_uuid, message)
    except NotificationMalformed as error:
        return Malformed(message, str(error))


def _outcome(found: Event | Malformed | None) -> str:
    if found is None:
        return "of no concern"
    return "set aside" if isinstance(found, Malformed) else "stored"


def _line(installation_uuid: str, one: Malformed) -> str:
    row = {"installation_uuid": installation_uuid, "reason": one.reason, "message": one.message}
    return json.dumps(row, default=repr) + "\n"


class _Dispatcher:
    """What oslo.messaging gives a batch to, and hears from which messages are to come again."""

    supported_priorities = PRIORITIES

    def __init__(self, take: Callable[[Sequence[object]], bool]) -> None:
        self._take = take

    def dispatch(self, incoming: Sequence[Any]) -> Sequence[Any]:
        return () if self._take([message.message for message in incoming]) else incoming


def serve(buses: Iterable[Bus], listener: Listener, config_files: Sequence[str]) -> None:
    """Listen to all the buses until the listener is stopped.

    A bus that is away is waited for.

    :param config_files: of oslo.config, for what else oslo.messaging may be told
    :raises BusUnusable: if one cannot be listened to
    """
    begun = [_Begun(_server(bus, listener, config_files), listener.stopping) for bus in buses]
    listener.stopping.wait()
    for bus in begun:
        bus.end()
    for bus in begun:
        if bus.error is not None:
            raise BusUnusable(f"a bus cannot be listened to: {bus.error}") from bus.error


class _Begun:
    """A server that is begun in a thread of its own, since that waits for the bus."""

    def __init__(self, server: BatchNotificationServer, stopping: threading.Event) -> None:
        self.error: Exception | None = None
        self._server = server
        self._stopping = stopping
        self._thread = threading.Thread(target=self._begin, daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        try:
            self._server.start()
        except Exception as error:  # noqa: BLE001 - nobody is above a thread
            self.error = error
            self._stopping.set()

    def end(self) -> None:
        if not self._thread.is_alive() and self.error is None:
            self._server.stop()
            self._server.wait()


def _transport(conf: cfg.ConfigOpts, url: str | None) -> Any:
    """
    :raises BusUnusable: without what oslo.messaging says, which may be a part of the password
    """
    try:
        if url is None or "://" in url:
            return oslo_messaging.get_notification_transport(conf, url=url)
    except (ValueError, oslo_messaging.InvalidTransportURL):
        pass
    raise BusUnusable(
        "a transport URL cannot be used: it is not of the form rabbit://user:password@host:5672/, "
        "or its port or a parameter is not valid; write / : @ ? # % in a user or password as %2F "
        "%3A %40 %3F %23 %25"
    )


def _server(bus: Bus, listener: Listener, config_files: Sequence[str]) -> BatchNotificationServer:
    conf = cfg.ConfigOpts()
    conf([], project="related-images", default_config_files=list(config_files))
    transport = _transport(conf, bus.url)
    conf.set_default("rabbit_qos_prefetch_count", PREFETCH, group="oslo_messaging_rabbit")
    server = BatchNotificationServer(
        transport,
        [oslo_messaging.Target(topic=bus.topic, exchange=bus.exchange)],
        _Dispatcher(lambda messages: listener.take(bus.installation_uuid, messages)),
        executor="threading",
        allow_requeue=True,
        batch_size=BATCH,
        batch_timeout=BATCH_SECONDS,
    )
    conf.set_default("executor_thread_pool_size", 1)
    return server
