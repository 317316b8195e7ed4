"""``related-images listen`` with a real RabbitMQ: no notification is lost or stored twice."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import oslo_messaging
import pytest
from kombu.connection import Connection
from oslo_config import cfg
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    Filters,
    Instance,
    Relation,
    instances,
    relation_queries,
    schema,
)
from tests.conftest import started
from tests.rabbitmq import RabbitMQ, rabbitmq
from tests.servers import PATIENCE, RELATED_IMAGES

pytestmark = pytest.mark.slow

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_NOVA = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
TOPIC = "versioned_notifications"
NUMBER = int(os.environ.get("RELATED_IMAGES_NOTIFICATIONS", "400"))
"""How many notifications are sent while the bus and the listeners are killed."""


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    yield from started(rabbitmq)


@pytest.fixture
def url(sqlite_url: str) -> str:
    schema.upgrade(make_url(sqlite_url))
    return sqlite_url


def nth(number: int) -> str:
    return str(UUID(int=number))


def notification(event: str, instance: str = "inst-1", **data: Any) -> tuple[str, dict[str, Any]]:
    """Return the event type and the payload of a notification, with few of Nova's fields."""
    fields = {"uuid": instance, "tenant_id": "demo", "image_uuid": "", "host": "c1", **data}
    return f"instance.{event}", {"nova_object.name": "Payload", "nova_object.data": fields}


class Nova:
    """Sends notifications as Nova does, with retries until the bus accepts them."""

    def __init__(self, url: str, topic: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], project="nova")
        self._transport = oslo_messaging.get_notification_transport(conf, url=url)
        conf.set_override("amqp_durable_queues", True, group="oslo_messaging_rabbit")
        conf.set_override("control_exchange", "nova")
        self._notifier = oslo_messaging.Notifier(
            self._transport, "nova-compute:c1", driver="messagingv2", topics=[topic], retry=-1
        )

    def __enter__(self) -> "Nova":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.cleanup()

    def send(self, event: str, payload: Any) -> None:
        self._notifier.info({}, event, payload)


class Listening:
    """A listener in a process of its own."""

    def __init__(
        self,
        directory: Path,
        url: str,
        buses: Sequence[tuple[str, str, str]],
        *,
        where: Sequence[str] = (),
    ) -> None:
        """``where`` are the words that name database and bus in place of ``url`` and ``buses``."""
        directory.mkdir(exist_ok=True)
        self._options = directory / "oslo.conf"
        self._options.write_text(
            "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
            "rabbit_retry_interval = 1\nrabbit_interval_max = 1\n"
        )
        self.dead_letters = directory / "dead-letters.jsonl"
        self.log = directory / "listen.log"
        named = where or ["--connection", url, "--config-file", str(self._options)]
        self._arguments = ["listen", *named]
        self._arguments += ["--dead-letters", str(self.dead_letters)]
        for installation, bus, topic in buses:
            self._arguments += ["--installation", installation, "--transport-url", bus]
            self._arguments += ["--topic", topic]

    def __enter__(self) -> "Listening":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", RELATED_IMAGES, *self._arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def forget_options(self) -> None:
        """Declare queues with other arguments than Nova does."""
        self._options.write_text("")

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def command_line(self) -> str:
        """What every user of the machine can see."""
        return Path(f"/proc/{self._process.pid}/cmdline").read_text()

    def end(self, sent: signal.Signals) -> int:
        self._process.send_signal(sent)
        return self._process.wait(PATIENCE)


def relations(url: str, **filters: Any) -> list[Relation]:
    return Database(url, PATIENCE).read(relation_queries.find, Filters(**filters), 100_000)


def wait_for(number: int, url: str, listening: Listening, **filters: Any) -> list[Relation]:
    """Wait until ``number`` relations are stored, and return them."""
    deadline = time.monotonic() + 4 * PATIENCE
    while len(found := relations(url, **filters)) < number:
        state = (len(found), listening.log.read_text()[-2000:])
        assert time.monotonic() < deadline, state
        assert listening.is_running(), state
        time.sleep(0.1)
    return found


def test_relations_are_recorded(tmp_path: Path, url: str, broker: RabbitMQ) -> None:
    bus = (NOVA, broker.url, "one")
    with Listening(tmp_path, url, [bus]) as listening, Nova(*bus[1:]) as nova:
        nova.send(*notification("delete.end", "inst-2"))
        nova.send(*notification("create.end", "inst-2", image_uuid=nth(1)))
        for _ in range(2):
            nova.send(*notification("create.end", image_uuid=nth(1)))
            backup = {"snapshot_image_id": nth(2), "task_state": "image_backup"}
            nova.send(*notification("snapshot.start", **backup))
            nova.send(*notification("snapshot.end", snapshot_image_id=nth(2), task_state=None))
        nova.send(*notification("create.end", "from-volume"))
        nova.send(*notification("resize.end", image_uuid=nth(9)))
        nova.send(*notification("rebuild.end", image_uuid=nth(3)))
        wait_for(4, url, listening)
        assert listening.end(signal.SIGTERM) == 0
    log = listening.log.read_text()
    assert log.index("connecting to 1 bus") < log.index(f"listening to the bus of {NOVA}")
    found = {(row.instance_id, row.image_id, row.kind, row.source) for row in relations(url)}
    assert found == {
        ("inst-1", nth(1), "boot", "notification"),
        ("inst-1", nth(2), "backup", "notification"),
        ("inst-1", nth(3), "boot", "notification"),
        ("inst-2", nth(1), "boot", "notification"),
    }
    first, second = sorted(listed_instances(url), key=lambda row: row.instance_id)
    assert (first.project_id, first.boot_image_id, first.ended_at) == ("demo", nth(3), None)
    assert second.ended_at is not None


def listed_instances(url: str) -> list[Instance]:
    return Database(url, PATIENCE).read(instances._find, Filters(), 100)


@pytest.mark.parametrize("section", ["DEFAULT", "oslo_messaging_notifications"])
@pytest.mark.parametrize("named", ["paste", "file"])
def test_no_password_is_on_the_command_line(
    tmp_path: Path, url: str, broker: RabbitMQ, section: str, named: str
) -> None:
    """As docs/nova.md starts it: the bus from nova.conf, the database from a file beside it."""
    topic = f"files-{section}-{named}"
    nova_conf, paste, ours = (tmp_path / name for name in ("nova.conf", "paste.ini", "ours.conf"))
    rabbit = "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
    nova_conf.write_text(f"[{section}]\ntransport_url = {broker.url}\n{rabbit}")
    ours.write_text(f"[related_images]\nconnection = {url}\n")
    use = "use = egg:related-images#instance_aware"
    paste.write_text(f"[filter:related-images]\n{use}\nconnection = {url}\n")
    where = ["--paste", str(paste)] if named == "paste" else ["--config-file", str(ours)]
    where += ["--config-file", str(nova_conf), "--topic", topic, "--installation", NOVA]
    with (
        Listening(tmp_path, url, [], where=where) as listening,
        Nova(broker.url, topic) as nova,
    ):
        nova.send(*notification("create.end", image_uuid=nth(1)))
        wait_for(1, url, listening)
        for secret in (url, "guest"):
            assert secret not in listening.command_line()
        assert listening.end(signal.SIGTERM) == 0


def test_malformed_notifications_become_dead_letters(
    tmp_path: Path, url: str, broker: RabbitMQ
) -> None:
    bus = (NOVA, broker.url, "odd")
    odd: list[tuple[str, Any]] = [
        ("instance.create.end", None),
        ("instance.delete.end", {"nova_object.data": {"uuid": "inst-1"}}),
        notification("create.end", image_uuid="no uuid"),
        notification("delete.end", "no id!"),
        notification("snapshot.end", tenant_id="x" * 256, snapshot_image_id=nth(1)),
    ]
    with Listening(tmp_path, url, [bus]) as listening, Nova(*bus[1:]) as nova:
        for event, payload in odd:
            nova.send(event, payload)
        _send_garbage(broker, "odd")
        nova.send(*notification("create.end", image_uuid=nth(1)))
        wait_for(1, url, listening)
        assert listening.end(signal.SIGTERM) == 0
    rows = [json.loads(line) for line in listening.dead_letters.read_text().splitlines()]
    payloads = [row["message"].get("payload") for row in rows]
    assert payloads == [*(payload for _, payload in odd), None, None]
    assert "'tenant_id' is missing" in rows[1]["reason"]
    assert "7 dead letters, 1 stored" in listening.log.read_text()


def _send_garbage(broker: RabbitMQ, topic: str) -> None:
    """Send messages that are not in the format of oslo.messaging."""
    address = broker.url.replace("rabbit://", "amqp://")
    with Connection(address) as connection:  # type: ignore[no-untyped-call]
        producer = connection.Producer()
        for body in (b"\xff", b"[]", b"{}"):
            producer.publish(
                body,
                routing_key=f"{topic}.info",
                content_type="application/json",
                content_encoding="utf-8",
            )


def test_a_bus_that_refuses_the_queue_stops_the_listener(
    tmp_path: Path, url: str, broker: RabbitMQ
) -> None:
    bus = (NOVA, broker.url, "declared-otherwise")
    with Nova(*bus[1:]) as nova:
        nova.send(*notification("create.end", image_uuid=nth(1)))
    listening = Listening(tmp_path, url, [bus])
    listening.forget_options()
    with listening:
        assert listening.wait() == 1
    log = listening.log.read_text()
    assert "inequivalent arg 'durable'" in log
    assert "listening to the bus" not in log


def test_two_novas_with_the_same_instance(tmp_path: Path, url: str, broker: RabbitMQ) -> None:
    for other in started(rabbitmq):
        buses = [(NOVA, broker.url, "both"), (OTHER_NOVA, other.url, "both")]
        with (
            Listening(tmp_path, url, buses) as listening,
            Nova(broker.url, "both") as one,
            Nova(other.url, "both") as two,
        ):
            one.send(*notification("create.end", image_uuid=nth(1)))
            two.send(*notification("create.end", image_uuid=nth(2)))
            found = wait_for(2, url, listening)
    assert {(row.installation_uuid, row.image_id) for row in found} == {
        (NOVA, nth(1)),
        (OTHER_NOVA, nth(2)),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nor [DEFAULT] of any file; give Nova's nova.conf"),
        (["--config-file", os.devnull], f"nor [DEFAULT] of {os.devnull}; give Nova's nova.conf"),
        (["--installation", OTHER_NOVA, "--transport-url", "rabbit://"], "in the same order"),
    ],
)
def test_each_installation_has_a_bus(url: str, arguments: list[str], said: str) -> None:
    program = "import sys; from related_images.manage import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "listen", "--connection", url]
    done = subprocess.run(
        [*command, "--installation", NOVA, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_nothing_is_lost_while_the_database_is_unavailable(
    tmp_path: Path, url: str, broker: RabbitMQ
) -> None:
    bus = (NOVA, broker.url, "waiting")
    with Listening(tmp_path, url, [bus]) as listening, Nova(*bus[1:]) as nova:
        nova.send(*notification("create.end", image_uuid=nth(1)))
        wait_for(1, url, listening)
        _rename_table(url, "related_relation", "away")
        nova.send(*notification("create.end", image_uuid=nth(2)))
        _wait_for_word("waiting for the database", listening)
        _rename_table(url, "away", "related_relation")
        wait_for(2, url, listening)


def _rename_table(url: str, name: str, other: str) -> None:
    with closing(sqlite3.connect(make_url(url).database or "")) as connection:
        connection.execute(f"ALTER TABLE {name} RENAME TO {other}")


def _wait_for_word(word: str, listening: Listening) -> None:
    deadline = time.monotonic() + PATIENCE
    while word not in listening.log.read_text():
        assert time.monotonic() < deadline, listening.log.read_text()
        time.sleep(0.05)


def test_nothing_is_lost_or_stored_twice_while_the_bus_and_the_listeners_are_killed(
    tmp_path: Path, url: str
) -> None:
    chance = random.Random(20260131)
    events = [_event(number) for number in range(NUMBER)]
    sent = [event for event in events for _ in range(1 + (chance.random() < 0.1))]
    chance.shuffle(sent)
    for broker in started(rabbitmq):
        bus = [(NOVA, broker.url, TOPIC)]
        with (
            Listening(tmp_path / "a", url, bus) as one,
            Listening(tmp_path / "b", url, bus) as two,
            Nova(broker.url, TOPIC) as nova,
        ):
            sender = threading.Thread(target=_send_all, args=(nova, sent))
            sender.start()
            killed = _kill_at_random(chance, broker, (one, two), url, sender)
            sender.join()
            found = wait_for(NUMBER, url, one)
        assert killed["broker"]
        assert killed["listener"]
    assert sorted(row.image_id for row in found) == [nth(number) for number in range(NUMBER)]


def _send_all(nova: Nova, sent: Sequence[tuple[str, Any]]) -> None:
    for event in sent:
        nova.send(*event)


def _event(number: int) -> tuple[str, dict[str, Any]]:
    return notification("snapshot.end", f"inst-{number % 50}", snapshot_image_id=nth(number))


def _kill_at_random(
    chance: random.Random,
    broker: RabbitMQ,
    listeners: Sequence[Listening],
    url: str,
    sender: threading.Thread,
) -> dict[str, int]:
    """Kill listeners and the bus after random numbers of relations; return how often."""
    killed = {"broker": 0, "listener": 0}
    for broker_too in (False, True, False, True):
        goal = len(relations(url)) + chance.randrange(NUMBER // 8)
        while len(relations(url)) < goal and sender.is_alive():
            time.sleep(0.02)
        victim = chance.choice(listeners)
        victim.end(signal.SIGKILL)
        killed["listener"] += 1
        if broker_too:
            broker.kill()
            broker.start()
            killed["broker"] += 1
        victim.start()
    return killed
