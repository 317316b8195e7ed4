"""Delete an image and start an instance from it concurrently, in two processes."""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from uuid import UUID

from related_images.db import Reporter, delete_protection, recording
from related_images.db.database import Database
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import NewRelation

INSTALLATION = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e09"
Outcome = str


def play_rounds(url: str, rounds: int) -> Counter[tuple[Outcome, Outcome]]:
    """Return how often each pair of outcomes (deletion, start) occurred in the rounds."""
    spawn = multiprocessing.get_context("spawn")
    barrier, (result, sender) = spawn.Barrier(2), spawn.Pipe(duplex=False)
    other = spawn.Process(target=_start, args=(url, rounds, barrier, sender))
    other.start()
    sender.close()  # otherwise `recv` would not notice that the other process died
    deleted = _play(url, rounds, barrier, _delete)
    started = result.recv()
    other.join()
    return Counter(zip(deleted, started, strict=True))


def _start(url: str, rounds: int, barrier: Barrier, sender: object) -> None:
    sender.send(_play(url, rounds, barrier, _attach))  # type: ignore[attr-defined]


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


def _attach(database: Database, number: int) -> Outcome:
    new = NewRelation(
        INSTALLATION,
        f"vm-{number}",
        _image(number),
        "boot",
        None,
        "service",
        "p-1",
        datetime.now(UTC),
    )
    try:
        recording.attach(database, new, Reporter(frozenset()))
    except (ImageBeingDeleted, ImageGone) as error:
        return error.code
    return "started"
