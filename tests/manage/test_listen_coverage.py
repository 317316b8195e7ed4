"""What ``related-images listen`` covers, with a real RabbitMQ: kills, lost queues, dead letters."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kombu.connection import Connection
from sqlalchemy.engine import make_url

from related_images.db import Database, coverage, installations, schema, usages
from related_images.db.coverage import Witness
from related_images.db.intervals import Span
from related_images.model import NOVA_BUS, UNKNOWN, Gap, Usage
from tests.conftest import started
from tests.manage.test_listen import NOVA, Listening, Nova, notification, nth
from tests.rabbitmq import RabbitMQ, rabbitmq
from tests.servers import PATIENCE

pytestmark = pytest.mark.slow

QUEUES = ("info", "error")


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    yield from started(rabbitmq)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    schema.upgrade(make_url(sqlite_url))
    opened = Database(sqlite_url, PATIENCE)
    installations.register(opened, NOVA, "nova", (), [NOVA_BUS])
    yield opened
    opened.close()


def covered(database: Database) -> dict[str, list[Span]]:
    """Return the intervals of each queue, by its priority."""
    (found,) = database.read(coverage.load).values()
    assert isinstance(found, Witness)
    return {process.partition(".")[0]: spans for process, spans in found.stretches.items()}


def wait_until(database: Database, listening: Listening, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 4 * PATIENCE
    while not holds():
        state = (covered(database), listening.log.read_text()[-2000:])
        assert time.monotonic() < deadline, state
        assert listening.is_running(), state
        time.sleep(0.2)


def cover_until(database: Database, listening: Listening, end: datetime) -> None:
    """Wait until both queues cover the time ``end``."""

    def holds() -> bool:
        found = covered(database)
        return all(found.get(queue, [(end, end)])[-1][1] > end for queue in QUEUES)

    wait_until(database, listening, holds)


def gaps(database: Database) -> list[Gap]:
    return database.read(coverage.gaps)


def test_a_killed_listener_continues_what_its_queues_covered(
    tmp_path: Path, sqlite_url: str, database: Database, broker: RabbitMQ
) -> None:
    bus = (NOVA, broker.url, "kept")
    with Listening(tmp_path, sqlite_url, [bus]) as listening, Nova(*bus[1:]) as nova:
        cover_until(database, listening, datetime.now(UTC))
        for sent in (signal.SIGKILL, signal.SIGTERM):
            listening.end(sent)
            nova.send(*notification("create.end", image_uuid=nth(1)))
            listening.start()
            cover_until(database, listening, datetime.now(UTC))
    assert {queue: len(spans) for queue, spans in covered(database).items()} == dict.fromkeys(
        QUEUES, 1
    )
    (before,) = gaps(database)
    assert (before.since, before.until) == (None, min(s[0][0] for s in covered(database).values()))


def test_a_killed_bus_loses_nothing_of_its_stored_queues(
    tmp_path: Path, sqlite_url: str, database: Database
) -> None:
    for broker in started(rabbitmq):
        with Listening(tmp_path, sqlite_url, [(NOVA, broker.url, "stored")]) as listening:
            cover_until(database, listening, datetime.now(UTC))
            broker.kill()
            broker.start()
            cover_until(database, listening, datetime.now(UTC))
    assert len(gaps(database)) == 1


def test_a_deleted_queue_is_a_gap(
    tmp_path: Path, sqlite_url: str, database: Database, broker: RabbitMQ
) -> None:
    with Listening(tmp_path, sqlite_url, [(NOVA, broker.url, "deleted")]) as listening:
        cover_until(database, listening, datetime.now(UTC))
        listening.end(signal.SIGKILL)
        (before,) = covered(database)["info"]
        with Connection(broker.url.replace("rabbit:", "amqp:")) as connection:  # type: ignore[no-untyped-call]
            connection.default_channel.queue_delete("deleted.info")
        deleted_at = datetime.now(UTC)
        listening.start()
        cover_until(database, listening, datetime.now(UTC))
    found = covered(database)
    assert (len(found["info"]), len(found["error"])) == (2, 1)
    begin, end = found["info"][0][1], found["info"][1][0]
    assert begin >= before[1]
    assert begin < deleted_at < end
    assert gaps(database)[-1].until == end


def test_a_dead_letter_is_a_gap(
    tmp_path: Path, sqlite_url: str, database: Database, broker: RabbitMQ
) -> None:
    bus = (NOVA, broker.url, "dead")
    with Listening(tmp_path, sqlite_url, [bus]) as listening, Nova(*bus[1:]) as nova:
        cover_until(database, listening, datetime.now(UTC))
        before = datetime.now(UTC)
        nova.send(*notification("create.end", image_uuid="no uuid"))
        wait_until(database, listening, lambda: len(gaps(database)) == 2)
        cover_until(database, listening, datetime.now(UTC))
    gap = gaps(database)[-1]
    assert gap.since is not None
    assert gap.until is not None
    assert before <= gap.since <= gap.until <= datetime.now(UTC)
    image, times = nth(1), (before, gap.until)
    found = usages.open_gaps(database)
    states = [
        usages.usages(database, [image], None, {image: "p-1"}, found, {image: created_at})[0]
        for created_at in times
    ]
    assert states == [
        Usage(image, used_by_others=False, state=UNKNOWN, gaps=(gap,)),
        Usage(image, used_by_others=False, state="unused"),
    ]
