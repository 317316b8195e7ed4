"""Thousands of notifications while the bus, the database and the listener are killed.

What the witnesses cover is stored, what was lost is a gap, and a comparison with Nova closes it.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import oslo_messaging
import pytest
from kombu.connection import Connection as BusConnection
from oslo_config import cfg
from sqlalchemy import Connection, select

from related_images.db import (
    Database,
    Filters,
    coverage,
    installations,
    listing,
    notifications,
    origins,
    schema,
)
from related_images.db.tables import installation, instance, project
from related_images.manage import cinder_notifications
from related_images.manage.notification_parser import Reader, nova_reader
from related_images.model import BOOT, CINDER_BUS, NOVA_BUS, Gap
from tests.client.scripted import Scripted
from tests.conftest import started
from tests.guarantees.galera import Node, alone
from tests.guarantees.reconciling import INSTALLATION, NOW
from tests.guarantees.test_reconcile_resources import Reconciler
from tests.manage.scripted_nova import ScriptedNova, server, vm
from tests.manage.test_listen import Listening, notification
from tests.rabbitmq import RabbitMQ, rabbitmq

pytestmark = pytest.mark.slow

NUMBER: Final = int(os.environ.get("RELATED_IMAGES_KILLED_NOTIFICATIONS", "1000"))
CINDER: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
QUEUES: Final = 4
"""The number of queues of both services: one for each priority."""
PATIENCE: Final = 900.0
LOST: Final = 60
"""The number of notifications that are lost on purpose."""

_PAYLOADS: Final = {
    row["event_type"]: row["payload"]
    for row in map(
        json.loads,
        (Path(__file__).parents[1] / "manage" / "cinder_notifications.jsonl")
        .read_text()
        .splitlines(),
    )
}
"""What a Cinder sends, by the type of event."""


def base(number: int) -> str:
    return str(UUID(int=1000 + number))


class Cloud:
    """A Nova and a Cinder that send what happens in the lives of servers and volumes.

    :ivar live: the image of each live server that was started from one
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.live: dict[int, str | None] = {}
        self._numbers = iter(range(1, 10**9))

    def messages(self, number: int) -> list[dict[str, Any]]:
        """Return notifications of many lives at the same time; some of them are sent again."""
        lives: list[Iterator[dict[str, Any]]] = []
        sent: list[dict[str, Any]] = []
        while len(sent) < number:
            if len(lives) < 60:
                lives.append(self.chance.choice([self.server, self.server, self.volume])())
            life = self.chance.choice(lives)
            message = next(life, None)
            if message is None:
                lives.remove(life)
                continue
            sent.append(message)
            if self.chance.random() < 0.03:
                sent.append(self.chance.choice(sent[-500:]))
        return sent[:number]

    def server(self) -> Iterator[dict[str, Any]]:
        number = next(self._numbers)
        owner = f"project-{number % 7}"

        def nova(event: str, **data: Any) -> dict[str, Any]:
            event_type, payload = notification(event, vm(number), tenant_id=owner, **data)
            return self._message(event_type, payload, NOVA_BUS)

        if self.chance.random() < 0.1:
            fault = {"nova_object.data": {"exception": "ImageNotActive"}}
            yield nova("create.error", fault=fault)
            return
        if self.chance.random() < 0.2:
            device = {"volume_id": self._id(), "boot_index": 0}
            yield nova("create.end", block_devices=[{"nova_object.data": device}])
        else:
            yield nova("create.end", image_uuid=base(self.chance.randrange(40)))
        for _ in range(self.chance.randint(0, 3)):
            image_id = self._id()
            task = self.chance.choice(["image_snapshot", "image_backup"])
            yield nova("snapshot.start", snapshot_image_id=image_id, task_state=task)
            if self.chance.random() < 0.9:
                yield nova("snapshot.end", snapshot_image_id=image_id, task_state=None)
        if self.chance.random() < 0.3:
            yield nova("rebuild.end", image_uuid=base(self.chance.randrange(40)))
        if self.chance.random() < 0.3:
            yield nova(self.chance.choice(["unshelve.end", "power_on.end"]))
        yield nova("resize.end")
        if self.chance.random() < 0.6:
            yield nova("delete.end")

    def volume(self) -> Iterator[dict[str, Any]]:
        volume_id, owner = self._id(), f"project-{self.chance.randrange(7)}"

        def cinder(event: str, **data: Any) -> dict[str, Any]:
            payload = _PAYLOADS.get(event, {}) | {"volume_id": volume_id, "tenant_id": owner} | data
            return self._message(event, payload, CINDER_BUS)

        source = self._id() if self.chance.random() < 0.5 else None
        yield cinder("volume.create.end", snapshot_id=source)
        snapshot_id, backup_id = self._id(), self._id()
        yield cinder("snapshot.create.end", snapshot_id=snapshot_id)
        if self.chance.random() < 0.5:
            yield cinder("backup.create.end", backup_id=backup_id)
            yield cinder("backup.delete.end", backup_id=backup_id)
        if self.chance.random() < 0.3:
            owner = f"{owner}-other"
            yield cinder("volume.transfer.accept.end")
        if self.chance.random() < 0.5:
            yield cinder("snapshot.delete.end", snapshot_id=snapshot_id)
            yield cinder("volume.delete.end")

    def _id(self) -> str:
        return str(UUID(int=self.chance.getrandbits(128)))

    def _message(self, event_type: str, payload: Any, witness: str) -> dict[str, Any]:
        return {
            "message_id": self._id(),
            "publisher_id": "service.host",
            "event_type": event_type,
            "priority": "ERROR" if event_type.endswith(".error") else "INFO",
            "payload": payload,
            "witness": witness,
        }


class Buses:
    """The buses of both services, on which messages are sent as oslo.messaging's driver does."""

    TOPICS: Final = {
        NOVA_BUS: ("nova", "versioned_notifications"),
        CINDER_BUS: ("openstack", "cinder_notifications"),
    }

    def __init__(self, url: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], project="nova")
        self._transport = oslo_messaging.get_notification_transport(conf, url=url)
        conf.set_override("amqp_durable_queues", True, group="oslo_messaging_rabbit")

    def send(self, messages: Iterable[dict[str, Any]]) -> None:
        """Send messages, each until the bus accepts it; the time of a first attempt remains."""
        for message in messages:
            message.setdefault("timestamp", str(datetime.now(UTC).replace(tzinfo=None)))
            exchange, topic = self.TOPICS[message["witness"]]
            target = oslo_messaging.Target(
                topic=f"{topic}.{message['priority'].lower()}", exchange=exchange
            )
            self._transport._send_notification(target, {}, message, version=2.0, retry=-1)

    def close(self) -> None:
        self._transport.cleanup()


def graph(database: Database) -> dict[str, set[Any]]:
    """Return everything that notifications record, but not which report was the first one."""
    rows = listing.relations(database, Filters(), 10**6, None).items
    every = origins.page(database, Filters(), 10**6, None).items
    return {
        "relations": {
            (one.instance, one.image_id, one.kind, one.project_id, one.source) for one in rows
        },
        "starts": {
            (one.instance, one.image_id, one.created_at) for one in rows if one.kind == BOOT
        },
        "origins": {(one.instance, one.source, one.since, one.project_id) for one in every},
        "resources": database.read(resources),
    }


def resources(connection: Connection) -> set[Any]:
    """Return the owner and the end of each resource."""
    query = (
        select(
            installation.c.resource_type,
            instance.c.instance_id,
            project.c.project_id,
            instance.c.ended_at,
        )
        .join_from(instance, installation, installation.c.id == instance.c.installation_ref)
        .outerjoin(project, project.c.id == instance.c.project_ref)
    )
    return {tuple(row) for row in connection.execute(query)}


READERS: Final[Mapping[str, tuple[str, Reader]]] = {
    NOVA_BUS: (INSTALLATION, nova_reader(CINDER)),
    CINDER_BUS: (CINDER, cinder_notifications.read),
}


def store_in_order(database: Database, messages: Sequence[dict[str, Any]]) -> None:
    events = []
    for message in messages:
        uuid, read = READERS[message["witness"]]
        events.append(read(uuid, message))
    known = [event for event in events if event is not None]
    for begin in range(0, len(known), 50):
        database.write(notifications._store_all, known[begin : begin + 50])


def wait_until_covered(database: Database, listening: Listening, time_: datetime) -> None:
    """Wait until all queues cover the time: then all that was sent before is stored.

    A listener that starts while the database is down ends with an error. It is started again, as a
    supervisor of services does.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        found = database.read(coverage.load).values()
        ends = [spans[-1][1] for one in found for spans in one.stretches.values()]
        if len(ends) == QUEUES and min(ends) > time_:
            return
        state = (sorted(ends), listening.log.read_text()[-2000:])
        assert time.monotonic() < deadline, state
        if not listening.is_running():
            assert "the database server is running" in state[1], state
            listening.start()
        time.sleep(0.5)


def gaps(database: Database, witness: str) -> list[Gap]:
    """Return the gaps of a witness after the first time that it covered."""
    found = [one for one in database.read(coverage.gaps) if one.witness == witness]
    return [one for one in found if one.since is not None]


def sent_at(message: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(message["timestamp"]).replace(tzinfo=UTC)


def is_in(gap: Gap, time_: datetime) -> bool:
    assert gap.since is not None
    return gap.since <= time_ and (gap.until is None or time_ <= gap.until)


@pytest.fixture
def node() -> Iterator[Node]:
    yield from started(alone)


@pytest.fixture
def broker() -> Iterator[RabbitMQ]:
    yield from started(rabbitmq)


def test_10_000_notifications_are_stored_or_a_gap(
    tmp_path: Path,
    node: Node,
    broker: RabbitMQ,
    scripted: Scripted,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    cloud = Cloud(chance)
    messages = cloud.messages(NUMBER)
    node.ask("CREATE DATABASE related")
    url = node.url("related")
    schema.upgrade(url)
    database = Database(url, PATIENCE)
    for uuid, witness in ((INSTALLATION, NOVA_BUS), (CINDER, CINDER_BUS)):
        installations.register(database, uuid, witness, (), [witness])
    options = tmp_path / "related-images.conf"
    options.write_text(f"[related_images]\nconnection = {url}\ndatabase_timeout = 20\n")
    listening = Listening(
        tmp_path / "listener",
        url,
        [(INSTALLATION, broker.url, "versioned_notifications")],
        where=[
            *("--config-file", str(options)),
            *("--config-file", str(tmp_path / "listener" / "oslo.conf")),
            *("--cinder-installation", CINDER, "--cinder-transport-url", broker.url),
        ],
    )

    def kill_listener() -> None:
        listening.end(signal.SIGKILL)
        time.sleep(chance.uniform(0, 2))
        listening.start()

    def kill_bus() -> None:
        broker.kill()
        time.sleep(chance.uniform(0, 2))
        broker.start()

    def kill_database() -> None:
        node.kill()
        time.sleep(chance.uniform(0, 4))
        node.start()

    faults = [*[kill_listener] * 5, *[kill_bus] * 3, *[kill_database] * 4]
    chance.shuffle(faults)
    begun = time.monotonic()
    buses = Buses(broker.url)
    with listening:
        wait_until_covered(database, listening, datetime.now(UTC))
        first, rest = messages[: NUMBER // 2], messages[NUMBER // 2 :]
        lost, rest = rest[:LOST], rest[LOST:]
        send_under(faults[:6], buses, first, chance)
        wait_until_covered(database, listening, datetime.now(UTC))
        listening.end(signal.SIGKILL)
        buses.send(lost)
        delete_queues(broker)
        listening.start()
        wait_until_covered(database, listening, datetime.now(UTC))
        send_under(faults[6:], buses, rest, chance)
        wait_until_covered(database, listening, datetime.now(UTC))
        spent = time.monotonic() - begun
        listening.end(signal.SIGTERM)
    buses.close()

    expected = Database(f"sqlite:///{tmp_path}/in-order.db", PATIENCE)
    schema.upgrade(f"sqlite:///{tmp_path}/in-order.db")
    store_in_order(expected, first + rest)
    found, wanted = graph(database), graph(expected)
    for name, rows in wanted.items():
        assert found[name] == rows, (seed, name, list(found[name] ^ rows)[:5])
    stored = {one["message_id"] for one in first + rest}
    lost = [one for one in lost if one["message_id"] not in stored]
    for witness in (NOVA_BUS, CINDER_BUS):
        times = [sent_at(one) for one in lost if one["witness"] == witness]
        assert times
        assert all(any(is_in(gap, at) for gap in gaps(database, witness)) for at in times), seed

    nova = ScriptedNova(live_servers(messages))
    scripted.script = nova
    reconciler = Reconciler(url, scripted.url, nova, capsys)
    counts = reconciler.run(*NOW)
    assert counts["complete"]
    assert live_in(database) >= {one["id"] for one in nova.servers if one["image"]}
    assert not {one.since for one in gaps(database, NOVA_BUS) if one.until is not None}
    again = reconciler.run(*NOW)
    assert (again["started"], again["ended"], again["restored"]) == (0, 0, 0)
    with capsys.disabled():
        print(
            f"\n{NUMBER} notifications in {spent:.0f} s, 5 kills of the listener, 3 of the bus, "
            f"4 of the database, {len(lost)} lost on purpose: "
            + ", ".join(f"{len(rows)} {name}" for name, rows in found.items())
            + f"; reconcile: {counts['started']} started, {counts['ended']} ended"
        )


def send_under(
    faults: Sequence[Callable[[], None]],
    buses: Buses,
    messages: Sequence[dict[str, Any]],
    chance: random.Random,
) -> None:
    """Send the messages in as many parts as there are faults; each fault happens during one."""
    size = -(-len(messages) // len(faults))
    for place, fault in enumerate(faults):
        part = messages[place * size : (place + 1) * size]
        sender = threading.Thread(target=buses.send, args=(part,))
        sender.start()
        time.sleep(chance.uniform(0.1, 2))
        fault()
        sender.join()


def delete_queues(broker: RabbitMQ) -> None:
    """Delete the queues with what is in them."""
    with BusConnection(broker.url.replace("rabbit:", "amqp:")) as connection:  # type: ignore[no-untyped-call]
        for _, topic in Buses.TOPICS.values():
            connection.default_channel.queue_delete(f"{topic}.info")
            connection.default_channel.queue_delete(f"{topic}.error")


def live_servers(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what Nova lists at the end: lost notifications tell it too."""
    found: dict[str, dict[str, Any]] = {}
    numbers = {vm(number): number for number in range(1, len(messages) + 1)}
    for message in dict.fromkeys(map(json.dumps, messages)):
        one = json.loads(message)
        if one["witness"] != NOVA_BUS:
            continue
        data = one["payload"]["nova_object.data"]
        id, event = data["uuid"], one["event_type"]
        if event in ("instance.create.end", "instance.rebuild.end"):
            found[id] = server(numbers[id], data["image_uuid"] or None, tenant_id=data["tenant_id"])
        elif event == "instance.delete.end":
            del found[id]
    return list(found.values())


def live_in(database: Database) -> set[str]:
    """Return the live servers that are recorded with an image."""
    used = listing.relations(database, Filters(in_use=True, kind=BOOT), 10**6, None).items
    return {one.instance_id for one in used}
