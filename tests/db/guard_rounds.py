"""Delete an image and, in another process, start an instance or renew a lease concurrently."""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from uuid import UUID

from sqlalchemy import Connection, update

from related_images.db import Reporter, delete_protection, recording, resource_types
from related_images.db.database import Database
from related_images.db.tables import lease
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import InstanceRef, NewRelation

INSTALLATION = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e09"
Outcome = str


def play_rounds(url: str, rounds: int, kind: str) -> Counter[tuple[Outcome, Outcome]]:
    """Return how often each pair of outcomes (deletion, use) occurred in the rounds.

    :param kind: ``boot`` for a start, ``use`` for the renewal of an expired lease
    """
    if kind == "use":
        _hold_expired(url, rounds)
    spawn = multiprocessing.get_context("spawn")
    barrier, (result, sender) = spawn.Barrier(2), spawn.Pipe(duplex=False)
    other = spawn.Process(target=_start, args=(url, rounds, kind, barrier, sender))
    other.start()
    sender.close()  # otherwise `recv` would not notice that the other process died
    deleted = _play(url, rounds, barrier, _delete)
    started = result.recv()
    other.join()
    return Counter(zip(deleted, started, strict=True))


def _start(url: str, rounds: int, kind: str, barrier: Barrier, sender: object) -> None:
    sender.send(_play(url, rounds, barrier, USES[kind]))  # type: ignore[attr-defined]


def _play(
    url: str, rounds: int, barrier: Barrier, move: Callable[[Database, int], Outcome]
) -> list[Outcome]:
    database, chance, outcomes = Database(url, 20.0), random.Random(move.__name__), []
    for number in range(rounds):
        barrier.wait(60)
        time.sleep(chance.choice([0, 0, 0.0005, 0.001, 0.002]))
        outcomes.append(move(database, number))
    database.close()
    return outcomes


def _image(number: int) -> str:
    return str(UUID(int=number + 1))


def _delete(database: Database, number: int) -> Outcome:
    try:
        begun = delete_protection.begin(database, _image(number), None, forced=False)
    except ImageInUse as error:
        return error.code
    time.sleep(random.choice([0, 0.001]))  # Glance deletes the image
    delete_protection.deleted(database, begun)
    return "deleted"


def _hold_expired(url: str, rounds: int) -> None:
    """Record a lease for each round, and let all of them expire."""
    database = Database(url, 20.0)
    resource_types.register(database, "stack")
    for number in range(rounds):
        recording.attach(database, _lease(number), Reporter(frozenset()))
        database.write(_expire)
    database.close()


def _expire(connection: Connection) -> None:
    now = datetime.now(UTC)
    ended = update(lease).where(lease.c.expires_at > now)
    connection.execute(ended.values(expires_at=now - timedelta(hours=1)))


def _lease(number: int) -> NewRelation:
    until = datetime.now(UTC) + timedelta(days=1)
    stack = InstanceRef(INSTALLATION, f"vm-{number}", "stack")
    new = replace(_start_of(number), instance=stack, kind="use", expires_at=until)
    return replace(new, instance_project_id="p-1")


def _start_of(number: int) -> NewRelation:
    return NewRelation(
        InstanceRef(INSTALLATION, f"vm-{number}"),
        _image(number),
        "boot",
        None,
        "service",
        "p-1",
        datetime.now(UTC),
    )


def _attach(database: Database, new: NewRelation) -> Outcome:
    try:
        recording.attach(database, new, Reporter(frozenset()))
    except (ImageBeingDeleted, ImageGone) as error:
        return error.code
    return "used"


def _boot(database: Database, number: int) -> Outcome:
    return _attach(database, _start_of(number))


def _renew(database: Database, number: int) -> Outcome:
    return _attach(database, _lease(number))


USES = {"boot": _boot, "use": _renew}
