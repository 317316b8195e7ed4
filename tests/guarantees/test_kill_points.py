"""Kills at every failpoint: every image has its relation, and lists show no other images."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from related_images.db import (
    Filters,
    relation_queries,
    schema,
)
from related_images.db.database import Database
from related_images.failpoints import Point
from tests.guarantees import upgrading
from tests.guarantees.forking_glance import ForkingGlance

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("RELATED_IMAGES_KILL_ROUNDS", "2"))
"""The number of kills at each failpoint."""

IN_REQUESTS = [
    point
    for point in Point
    if not point.name.startswith(("RECONCILE", "RESOURCES", "MERGE", "MIGRATE"))
]
IN_MIGRATIONS = [point for point in Point if point.name.startswith("MIGRATE")]


@pytest.fixture(scope="module")
def forking_glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkingGlance]:
    with ForkingGlance(tmp_path_factory.mktemp("forking_glance")) as running:
        yield running


def related(directory: Path) -> dict[str, set[str]]:
    """Return the images made from each instance, without images marked deleted."""
    database = Database(f"sqlite:///{directory}/related-images.db", 30)
    found: dict[str, set[str]] = {}
    for row in database.read(relation_queries.find, Filters(), 1_000_000):
        if row.kind != "boot" and row.image_deleted_at is None:
            found.setdefault(row.instance_id, set()).add(row.image_id)
    database.close()
    return found


@pytest.mark.parametrize("point", IN_REQUESTS, ids=lambda point: point.name.lower())
def test_a_kill_during_a_request_loses_no_relation(
    forking_glance: ForkingGlance, point: Point
) -> None:
    chance = random.Random(point.name)
    for _ in range(ROUNDS):
        assert forking_glance.kill_at(point, chance.randint(1, 6)) == -9, (
            f"{point} was never reached"
        )
        images, relations = forking_glance.images(), related(forking_glance.directory)
        for image_id, instance in images.items():
            assert image_id in relations.get(instance, ()), f"{image_id} lacks its relation"
        for instance in list(relations)[:2]:
            of_instance = {id for id, name in images.items() if name == instance}
            assert set(forking_glance.images_of(instance)) == of_instance
    print(f"{point.name}: survived {ROUNDS} rounds, {len(images)} images")


KILLED = """
import os, sys
from related_images import failpoints
from related_images.manage import main
point = failpoints.Point[sys.argv.pop(1)]
failpoints.hook = lambda reached: os.kill(os.getpid(), 9) if reached is point else None
sys.exit(main())
"""


def killed(point: Point, *arguments: str) -> int:
    """Run ``related-images`` until ``point``; return the exit code, -9 for a kill."""
    return subprocess.run(
        [sys.executable, "-c", KILLED, point.name, *arguments], check=False, capture_output=True
    ).returncode


@pytest.mark.parametrize("point", IN_MIGRATIONS, ids=lambda point: point.name.lower())
def test_a_killed_upgrade_is_completed_by_the_next(database_url: str, point: Point) -> None:
    schema.upgrade(database_url, schema.REVISIONS[0])
    upgrading.write(database_url, 1, 2)
    assert killed(point, "db", "upgrade", "--connection", database_url) == -9
    schema.upgrade(database_url)
    with schema.connected(database_url) as connection:
        schema.verify(connection)
        assert schema.differences(connection) == []
    assert upgrading.numbers(database_url) == [1, 2]
