"""Receive notifications in batches, and acknowledge them after they are stored."""

import hashlib
import json
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO, cast

import oslo_messaging
from oslo_config import cfg
from oslo_messaging.notify.listener import BatchNotificationServer

from related_images import validation
from related_images.db import Database, witnesses
from related_images.db.column_types import EPOCH
from related_images.db.notifications import Event, store
from related_images.errors import (
    BadInput,
    BusUnusable,
    NotificationMalformed,
    StoreUnavailable,
)
from related_images.manage import queue_marker
from related_images.manage.notification_parser import Reader, read, sent_at
from related_images.manage.queue_marker import Marker, QueueWatch
from related_images.model import NOVA_BUS, Heartbeat

LOG = logging.getLogger(__name__)

PRIORITIES: Final = ("info", "error")
"""The priorities that Nova uses. A queue without a consumer would grow without limit."""

BATCH: Final = 100
BATCH_SECONDS: Final = 0.5
"""Seconds to wait for a batch to become full."""

PAUSE: Final = 1.0
"""Seconds before a retry of the database or the dead-letter file."""

MARKER_PAUSE: Final = 1.0
"""Seconds before a marker is sent on if no notification came with it."""

CHECK_SECONDS: Final = 1.0
"""Seconds between two checks of whether the markers are lost."""

LOSS_NAME_LENGTH: Final = 64

PREFETCH: Final = 1000
"""Unacknowledged messages that RabbitMQ delivers, its ``prefetch_count``.

oslo.messaging leaves up to 512 messages unacknowledged that RabbitMQ delivers again after a lost
connection. With a smaller value RabbitMQ would deliver no further message.
"""


TEMPORARY: Final = (StoreUnavailable, MemoryError, OSError, ImportError)
"""Failures after which the listener waits, because the event is not their cause."""

UNREADABLE: Final = (ValueError, KeyError, TypeError, NotificationMalformed, BadInput)
"""The failures of reading a dead letter."""

REFUSED: Final = "its event cannot be stored; the log of the listener has the reason"


@dataclass(frozen=True)
class Bus:
    """The message bus of one Nova or Cinder.

    :ivar url: the transport URL; ``None`` for the one in the configuration files
    :ivar read: reads the notifications
    :ivar witness: the witness that reports through the bus
    """

    installation_uuid: str
    url: str | None = field(repr=False)
    topic: str
    exchange: str
    read: Reader = read
    witness: str = NOVA_BUS


@dataclass(frozen=True)
class Malformed:
    """A message that cannot be parsed or stored, and the reason."""

    message: object
    reason: str


@dataclass
class Listener:
    """Store notifications in the database, and malformed ones as dead letters in a file.

    :param dead_letters: the file, one JSON object per line
    :ivar stopping: set it to stop the listener
    :ivar counts: the number of messages by outcome
    """

    database: Database
    dead_letters: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _batch_size: int = BATCH

    def store(
        self,
        installation_uuid: str,
        messages: Sequence[object],
        since: datetime = EPOCH,
        *,
        read: Reader = read,
        witness: str = NOVA_BUS,
    ) -> bool:
        """Store a batch of messages, and wait for the database as long as necessary.

        :param installation_uuid: the installation of the bus
        :param messages: notifications as oslo.messaging delivers them
        :param since: a time before they were sent
        :param read: reads the messages
        :param witness: the witness that reports through the bus
        :returns: True if all messages are stored; otherwise they must be delivered again
        """
        parsed = [_parse(read, installation_uuid, message) for message in messages]
        refused = self._store_events([one for one in parsed if isinstance(one, Event)])
        if refused is None:
            return False
        parsed = [
            Malformed(message, REFUSED) if one in refused else one
            for one, message in zip(parsed, messages, strict=True)
        ]
        malformed = [one for one in parsed if isinstance(one, Malformed)]
        if not self._store_losses(installation_uuid, witness, malformed, since):
            return False
        if not self._write_dead_letters(installation_uuid, witness, malformed):
            return False
        with self._lock:
            self.counts.update(_outcome(one) for one in parsed)
        return True

    def retry(self, readers: Mapping[str, Reader]) -> int:
        """Store the dead letters that can be stored now, and remove them from the file.

        Each of them ends its gap. The file must not be changed in the meantime.

        :param readers: reads the messages, by witness
        :returns: the number of those that remain in the file
        :raises StoreUnavailable: if the database is unavailable; then the file does not change
        :raises OSError: if the file cannot be read or written
        """
        with open_private(self.dead_letters, "r") as file:
            lines, before = file.readlines(), os.fstat(file.fileno())
        remaining = [line for line in lines if not self._retry(line, readers)]
        new = self.dead_letters.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open_private(new, "x") as file:
            file.writelines(remaining)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            if os.geteuid() == 0:  # the listener, which is another user, must be able to write
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
        new.replace(self.dead_letters)
        self.counts.update({"stored": len(lines) - len(remaining), "dead letters": len(remaining)})
        return len(remaining)

    def _retry(self, line: str, readers: Mapping[str, Reader]) -> bool:
        """Store one dead letter; return whether that succeeded."""
        try:
            row = json.loads(line)
            uuid, gap = validation.installation_uuid(row["installation_uuid"]), str(row["gap"])
            witness = str(row["witness"])
            event = readers[witness](uuid, row["message"])
            if event is not None:
                store(self.database, [event])
        except StoreUnavailable:
            raise
        except Exception as error:  # one dead letter must not keep the others from being stored
            is_bug = not isinstance(error, UNREADABLE)
            LOG.warning("a dead letter remains: %s", error, exc_info=is_bug)
            return False
        witnesses.find_again(self.database, uuid, witness, gap)
        return True

    def _store_losses(
        self,
        installation_uuid: str,
        witness: str,
        malformed: Iterable[Malformed],
        since: datetime,
    ) -> bool:
        """Store that the bus lost these messages; return ``False`` after a pause if that fails."""
        try:
            for one in malformed:
                lost = sent_at(one.message) or since, datetime.now(UTC)
                witnesses.lose(self.database, installation_uuid, witness, name(one.message), lost)
        except StoreUnavailable as error:
            LOG.error("waiting for the database, no message is lost: %s", error.for_log())
            self.stopping.wait(PAUSE)
            return False
        return True

    def _write_dead_letters(
        self, installation_uuid: str, witness: str, malformed: Iterable[Malformed]
    ) -> bool:
        """Append to the file; return ``False`` after a pause if that fails."""
        lines = [_line(installation_uuid, witness, one) for one in malformed]
        try:
            if lines:
                with self._lock, open_private(self.dead_letters, "a") as file:
                    file.writelines(lines)
        except OSError as error:
            LOG.error("waiting for the dead-letter file: %s", error)
            self.stopping.wait(PAUSE)
            return False
        for one in malformed:
            LOG.warning("wrote a dead letter to %s: %s", self.dead_letters, one.reason)
        return True

    def _store_events(self, events: Sequence[Event]) -> list[Event] | None:
        """Store events, and return those that cannot be stored; ``None`` if stopped.

        The batch size is halved while the database is unavailable or slow, so that small batches
        succeed. It is halved as well to find the one event that cannot be stored, which is tried
        twice.
        """
        is_waiting, refused, failed = False, list[Event](), None
        while events and not self.stopping.is_set():
            batch = events[: self._batch_size]
            try:
                store(self.database, batch)
            except TEMPORARY as error:
                if not is_waiting:
                    LOG.error("waiting for the database, no message is lost: %s", _shown(error))
                is_waiting = True
                self._batch_size = max(1, len(batch) // 2)
                self.stopping.wait(PAUSE)
            except Exception:  # the database refuses an event, or this program has a bug
                self._batch_size = max(1, len(batch) // 2)
                if len(batch) == 1 and batch[0] is failed:
                    LOG.exception("the event of a notification cannot be stored")
                    refused += batch
                    events = events[1:]
                elif len(batch) == 1:
                    failed = batch[0]
                    self.stopping.wait(PAUSE)
            else:
                events = events[len(batch) :]
                self._batch_size = min(BATCH, self._batch_size + 1)
        return None if events else refused


def _shown(error: Exception) -> str:
    return error.for_log() if isinstance(error, StoreUnavailable) else repr(error)


def _parse(read: Reader, installation_uuid: str, message: object) -> Event | Malformed | None:
    try:
        return read(installation_uuid, message)
    except NotificationMalformed as error:
        return Malformed(message, str(error))


def _outcome(parsed: Event | Malformed | None) -> str:
    if parsed is None:
        return "ignored"
    return "dead letters" if isinstance(parsed, Malformed) else "stored"


def _line(installation_uuid: str, witness: str, one: Malformed) -> str:
    row = {
        "installation_uuid": installation_uuid,
        "witness": witness,
        "reason": one.reason,
        "gap": name(one.message),
        "message": one.message,
    }
    return json.dumps(row, default=repr) + "\n"


def open_private(path: Path, mode: str) -> TextIO:
    """Open a text file; if it is new, only this user may read it: it holds data of other users.

    :param mode: as that of :func:`open`
    :raises OSError: if this user cannot open it
    """
    # root may retry the dead letters of another user, whose link could lead to a file of root
    more = 0 if mode == "a" else os.O_NOFOLLOW

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | more, 0o600)

    return cast(TextIO, open(path, mode, encoding="utf-8", opener=create))


def name(message: object) -> str:
    """Return the name of the loss of a message."""
    given = message.get("message_id") if isinstance(message, Mapping) else None
    if validation.is_word(given, LOSS_NAME_LENGTH):
        return str(given)
    return hashlib.sha256(json.dumps(message, default=repr).encode()).hexdigest()


class _Dispatcher:
    """A dispatcher of oslo.messaging.

    :param watches: the watch of each queue of the bus, by priority
    """

    supported_priorities = PRIORITIES

    def __init__(self, listener: Listener, bus: Bus, watches: Mapping[str, QueueWatch]) -> None:
        self._listener = listener
        self._bus = bus
        self._watches = watches

    def dispatch(self, incoming: Sequence[Any]) -> Sequence[Any]:
        """Store a batch, and then process its markers.

        :param incoming: the messages of the batch
        :returns: the messages to requeue
        """
        markers = [one for one in incoming if queue_marker.is_marker(one.message)]
        messages = [one.message for one in incoming if not queue_marker.is_marker(one.message)]
        since = min(watch.received for watch in self._watches.values())
        bus = self._bus
        if not self._listener.store(
            bus.installation_uuid, messages, since, read=bus.read, witness=bus.witness
        ):
            return incoming
        if not messages:
            self._listener.stopping.wait(MARKER_PAUSE)
        return [one for one in markers if not self._receive(one.message)]

    def _receive(self, message: Mapping[str, Any]) -> bool:
        """Process a marker; return whether it may be acknowledged."""
        watch = self._watches.get(queue_marker.queue_of(message))
        if watch is None:
            return True
        return not self._listener.stopping.is_set() and watch.receive(message, datetime.now(UTC))


def serve(buses: Sequence[Bus], listener: Listener, config_files: Sequence[str]) -> None:
    """Listen to all buses until the listener is stopped, and wait for buses that are unavailable.

    :param buses: one for each Nova or Cinder
    :param listener: stores the notifications
    :param config_files: files of oslo.config with the options of oslo.messaging
    :raises BusUnusable: if a bus refuses the connection or the queues
    """
    started = [_server(bus, listener, config_files) for bus in buses]
    threads = [
        _ServerThread(server, bus, listener.stopping)
        for bus, (server, _) in zip(buses, started, strict=True)
    ]
    while not listener.stopping.wait(CHECK_SECONDS):
        for (_, watches), thread in zip(started, threads, strict=True):
            for watch in watches if thread.has_started else ():
                watch.check(datetime.now(UTC))
    for thread in threads:
        thread.stop()
    for thread in threads:
        if thread.error is not None:
            raise BusUnusable(f"a message bus cannot be used: {thread.error}") from thread.error


class _ServerThread:
    """Start a server of oslo.messaging in its own thread, since the start waits for the bus."""

    def __init__(
        self, server: BatchNotificationServer, bus: Bus, stopping: threading.Event
    ) -> None:
        self.error: Exception | None = None
        self._server = server
        self._bus = bus
        self._stopping = stopping
        self._thread = threading.Thread(target=self._start, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        try:
            self._server.start()
            LOG.info("listening to the bus of %s", self._bus.installation_uuid)
        except Exception as error:  # noqa: BLE001 - serve() raises it in the main thread
            self.error = error
            self._stopping.set()

    @property
    def has_started(self) -> bool:
        """Whether the server receives messages."""
        return not self._thread.is_alive() and self.error is None

    def stop(self) -> None:
        """Stop the server, if it has started, and wait until it has stored its batch."""
        if self.has_started:
            self._server.stop()
            self._server.wait()


def _transport(conf: cfg.ConfigOpts, url: str | None) -> Any:
    """Return the transport of a URL.

    :raises BusUnusable: without the message of oslo.messaging, which may show the password
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


def _watch(bus: Bus, priority: str, transport: Any, process: str, database: Database) -> QueueWatch:
    """Return the watch of one queue of a bus.

    :param process: the name under which it sends heartbeats
    """
    target = oslo_messaging.Target(topic=f"{bus.topic}.{priority}", exchange=bus.exchange)

    def send(marker: Marker) -> None:
        # not with a Notifier, which hides that it failed
        message = marker.as_message(priority)
        transport._send_notification(target, {}, message, version=2.0, retry=1)

    def report(since: datetime, until: datetime) -> None:
        new = Heartbeat(bus.installation_uuid, bus.witness, process, since, until)
        witnesses.record(database, new)

    return QueueWatch(send, report)


def _process(bus: Bus, priority: str, transport: Any) -> str:
    """Return the name of a queue, which depends on its bus, but not on the password."""
    url = transport._driver._url
    hosts = sorted(f"{host.hostname}:{host.port}" for host in url.hosts)
    named = json.dumps([hosts, url.virtual_host, bus.exchange, bus.topic])
    return f"{priority}.{hashlib.sha256(named.encode()).hexdigest()[:32]}"


def _server(
    bus: Bus, listener: Listener, config_files: Sequence[str]
) -> tuple[BatchNotificationServer, Collection[QueueWatch]]:
    """Return the server of a bus, and the watches of its queues."""
    conf = cfg.ConfigOpts()
    conf([], project="related-images", default_config_files=list(config_files))
    transport = _transport(conf, bus.url)
    conf.set_default("rabbit_qos_prefetch_count", PREFETCH, group="oslo_messaging_rabbit")
    watches = {
        priority: _watch(
            bus, priority, transport, _process(bus, priority, transport), listener.database
        )
        for priority in PRIORITIES
    }
    server = BatchNotificationServer(
        transport,
        [oslo_messaging.Target(topic=bus.topic, exchange=bus.exchange)],
        _Dispatcher(listener, bus, watches),
        executor="threading",
        allow_requeue=True,
        batch_size=BATCH,
        batch_timeout=BATCH_SECONDS,
    )
    conf.set_default("executor_thread_pool_size", 1)
    return server, watches.values()
