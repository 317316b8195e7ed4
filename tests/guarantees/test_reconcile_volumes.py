"""``reconcile --resources`` and ``backfill`` of volumes: kills at each point, and peak memory."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from related_images.db import Database, notifications, origins, schema
from related_images.db.notifications import Created
from related_images.db.tables import instance, origin, state
from related_images.failpoints import Point
from related_images.model import Filters, InstanceRef
from tests.client.scripted import Scripted
from tests.guarantees.reconciling import ADMIN, INSTALLATION
from tests.guarantees.test_kill_points import KILLED, ROUNDS
from tests.guarantees.test_reconcile_resources import IN_RECONCILE, MEASURED, SMALL
from tests.manage.scripted_cinder import ScriptedCinder, backup, snapshot, volume
from tests.manage.scripted_nova import vm

pytestmark = pytest.mark.slow

LONG_AGO = datetime.now(UTC) - timedelta(days=1)
COMMANDS = {
    "reconcile": ("reconcile", "--rate", "10000", "--resources", INSTALLATION),
    "backfill": ("backfill", "-f", "json", "--cinder-installation", INSTALLATION),
}


@dataclass
class Program:
    """One of the commands, with a scripted Cinder and one database."""

    name: str
    connection: str
    endpoint: str
    cinder: ScriptedCinder
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        return [
            *(*COMMANDS[self.name], "--connection", self.connection),
            *("--os-auth-type", "admin_token", "--os-token", ADMIN),
            *("--os-endpoint", self.endpoint),
        ]

    def run(self, program: str) -> str:
        """Run the command in a program, note its counts, and return the last line of its stderr."""
        command = [sys.executable, "-c", program, *self.arguments]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        self.counts = found.get("counts", found)
        return done.stderr.splitlines()[-1] if done.stderr else ""

    def database(self) -> Database:
        return Database(self.connection, 20)

    def record(self, *numbers: int) -> None:
        """Record volumes of which only a notification is known."""
        names = [vm(number) for number in numbers]
        recorded = [
            Created(InstanceRef(INSTALLATION, one, "volume"), "demo", LONG_AGO) for one in names
        ]
        notifications.store(self.database(), recorded)

    def live(self) -> set[str]:
        rows = select(instance.c.instance_id).where(instance.c.ended_at.is_(None))
        return set(self.database().read(lambda connection: connection.execute(rows).scalars()))

    def origins(self) -> dict[str, InstanceRef | None]:
        found = origins.page(self.database(), Filters(), 1000, None).items
        return {one.instance_id: one.source for one in found}

    def number_of_origins(self) -> int:
        rows = select(func.count()).select_from(origin)
        return int(self.database().read(lambda connection: connection.execute(rows).scalar_one()))

    def positions(self) -> list[str]:
        """Return the names under which unfinished runs are stored."""
        rows = select(state.c.name).where(state.c.name.like("%resources-position:%"))
        return list(self.database().read(lambda connection: connection.execute(rows).scalars()))


@pytest.fixture(params=list(COMMANDS))
def program(request: pytest.FixtureRequest, tmp_path: Path, scripted: Scripted) -> Program:
    connection = f"sqlite:///{tmp_path}/related-images.db"
    schema.upgrade(connection)
    scripted.script = cinder = ScriptedCinder()
    return Program(request.param, connection, scripted.url, cinder)


PATIENT = """
from related_images.manage import database_access
database_access.TIMEOUT = 300.0
"""
"""A slow machine must not change the results."""
PEAK = PATIENT + MEASURED.replace("[1])", "[1], file=sys.stderr)")
RUN = "import sys; from related_images.manage import main; sys.exit(main())"


@pytest.mark.parametrize("point", IN_RECONCILE, ids=lambda point: point.name.lower())
def test_a_killed_run_is_continued_by_the_next(program: Program, point: Point) -> None:
    cinder, is_backfill = program.cinder, program.name == "backfill"
    cinder.volumes, cinder.size = [volume(1)], 3
    gone = set[str]()
    for hundred in range(100, 100 * ROUNDS + 1, 100):
        recorded = range(hundred, hundred + 9, 2)
        program.record(1, *recorded)
        gone |= {vm(number) for number in recorded}
        cinder.volumes += [volume(hundred + number, source_volid=vm(1)) for number in (1, 3, 5)]
        cinder.snapshots += [snapshot(hundred + number, vm(1)) for number in (11, 13)]
        cinder.backups += [backup(hundred + number, vm(1)) for number in (21, 23)]
        command = [sys.executable, "-c", SMALL + KILLED, point.name, *program.arguments]
        killed = subprocess.run(command, capture_output=True, check=False)
        assert killed.returncode == -9
        program.run(RUN)
        made = [*cinder.volumes, *cinder.snapshots, *cinder.backups]
        assert program.live() == {one["id"] for one in made} | (gone if is_backfill else set())
        source = InstanceRef(INSTALLATION, vm(1), "volume")
        assert program.origins() == {one["id"]: source for one in made if one["id"] != vm(1)}
        assert program.number_of_origins() == len(made) - 1
        assert program.positions() == []
    print(f"{program.name} {point.name}: survived {ROUNDS} rounds")


def test_memory_does_not_grow_with_the_volumes(program: Program) -> None:
    cinder, peaks = program.cinder, list[int]()
    cinder.size = 50
    for number in (400, 4_000):
        for first in range(1, number, 50):
            program.record(*range(first, first + 50))
        # a tenth of the recorded volumes is gone, and as many were missed
        there = [one for one in range(1, number + number // 10) if one % 10]
        image = {"volume_image_metadata": {"image_id": vm(7)}}
        cinder.volumes = [
            volume(one, **({"source_volid": vm(2)} if one % 2 else image)) for one in there
        ]
        cinder.snapshots = [snapshot(one, vm(1)) for one in there[:: number // 100]]
        peaks.append(int(program.run(PEAK)))
        assert program.counts["listed"] == len(cinder.volumes) + len(cinder.snapshots)
        assert program.counts["started"] > number // 3
    print(f"{program.name}: bytes at the most: {peaks}")
    # for ten times as many volumes
    assert peaks[1] < 2 * peaks[0]
