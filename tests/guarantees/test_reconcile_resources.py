"""``reconcile --resources`` corrects the ends and starts of servers, and only those."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from related_images.db import (
    Database,
    NewRelation,
    coverage,
    installations,
    reconcile_resources,
    recorded_resources,
    relations,
    schema,
)
from related_images.failpoints import Point
from related_images.model import InstanceRef
from related_images.validation import parse_time
from tests import commands
from tests.client.scripted import Reply, Scripted, shown
from tests.guarantees.reconciling import ADMIN, INSTALLATION, NOW, new_id
from tests.guarantees.test_kill_points import KILLED, ROUNDS
from tests.manage.scripted_nova import FAILED, FORBIDDEN, ScriptedNova, server, vm

pytestmark = pytest.mark.slow

LONG_AGO = datetime.now(UTC) - timedelta(days=1)
OTHER = "5c2b7a52-7d0e-4d7e-9f43-3a1f5a0c9b12"


@dataclass
class Reconciler:
    """The command with a scripted Nova and one database."""

    connection: str
    endpoint: str
    nova: ScriptedNova
    capsys: pytest.CaptureFixture[str]

    def arguments(self, *options: str) -> list[str]:
        return [
            *("reconcile", "--connection", self.connection, "--rate", "10000"),
            *("--os-auth-type", "admin_token", "--os-token", ADMIN),
            *("--os-endpoint", self.endpoint),
            *(options if "--resources" in options else ("--resources", INSTALLATION, *options)),
        ]

    def run(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run the command, assert its exit code, and return its counts."""
        self.capsys.readouterr()
        assert commands.run(*self.arguments(*options)) == code
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return found

    def refusal(self, *options: str) -> str:
        """Run the command, assert that it fails, and return its error."""
        self.capsys.readouterr()
        assert commands.run(*self.arguments(*options)) == 1
        return self.capsys.readouterr().err

    def database(self) -> Database:
        return Database(self.connection, 20)

    def start(self, *numbers: int, image: str | None = None, at: datetime = LONG_AGO) -> None:
        """Record that servers were started from an image."""
        begun = [
            NewRelation(
                InstanceRef(INSTALLATION, vm(one)),
                image or new_id(),
                "boot",
                None,
                "service",
                "demo",
                at,
            )
            for one in numbers
        ]
        self.database().write(
            lambda connection: [relations.record(connection, one, relied_on=True) for one in begun]
        )

    def gaps_since(self) -> datetime | None:
        """Return when the gap of the only expected witness begins, which never reports."""
        (gap,) = self.database().read(coverage.gaps)
        return gap.since

    def live(self) -> list[str]:
        """Return the live servers."""
        run = reconcile_resources.begin(self.database(), INSTALLATION, timedelta(0), True)
        return sorted(reconcile_resources._sample(self.database(), run, "server"))


@pytest.fixture
def nova(scripted: Scripted) -> ScriptedNova:
    script = ScriptedNova()
    scripted.script = script
    return script


@pytest.fixture
def reconciler(
    tmp_path: Path, scripted: Scripted, nova: ScriptedNova, capsys: pytest.CaptureFixture[str]
) -> Reconciler:
    connection = f"sqlite:///{tmp_path}/related-images.db"
    schema.upgrade(connection)
    return Reconciler(connection, scripted.url, nova, capsys)


def test_ends_and_starts_are_recorded_and_counted(reconciler: Reconciler) -> None:
    image = new_id()
    reconciler.start(1, 2, 3, 4, image=image)
    reconciler.nova.servers = [server(1, image), server(4, image, **FAILED), server(5, image)]
    planned = reconciler.run("--dry-run")
    assert reconciler.live() == [vm(number) for number in (1, 2, 3, 4)]
    counts = reconciler.run()
    assert {**planned, **times(counts), "dry_run": False} == counts
    assert counts.items() >= {"listed": 3, "checked": 4, "ended": 3, "started": 1}.items()
    assert counts.items() >= {"installation_uuid": INSTALLATION, "complete": True}.items()
    assert reconciler.live() == [vm(1), vm(5)]
    again = reconciler.run()
    assert (again["ended"], again["started"], again["checked"]) == (0, 0, 2)


def times(counts: dict[str, Any]) -> dict[str, Any]:
    return {name: counts[name] for name in ("until", "started_at", "finished_at")}


def test_servers_that_are_being_created_are_not_ended(reconciler: Reconciler) -> None:
    reconciler.start(1)
    reconciler.start(2, at=datetime.now(UTC) - timedelta(minutes=59))
    reconciler.start(3, at=datetime.now(UTC) - timedelta(minutes=61))
    counts = reconciler.run("--allow-empty-nova")
    assert (counts["ended"], counts["too_new"]) == (2, 1)
    assert reconciler.live() == [vm(2)]
    assert reconciler.run("--allow-empty-nova", *NOW)["ended"] == 1


def test_an_incomplete_comparison_has_an_exit_code_of_its_own(reconciler: Reconciler) -> None:
    installations.register(reconciler.database(), INSTALLATION, "nova", (), ("nova-bus",))
    reconciler.start(1, 2)
    reconciler.nova.unlisted = [server(1)]
    counts = reconciler.run(code=3)
    assert (counts["ended"], counts["doubtful"], counts["complete"]) == (1, 1, False)
    assert reconciler.gaps_since() is None
    reconciler.nova.unlisted, reconciler.nova.servers = [], [server(1)]
    counts = reconciler.run()
    assert reconciler.gaps_since() == parse_time("started_at", counts["started_at"])


def test_while_a_cell_is_down_no_server_is_ended(reconciler: Reconciler) -> None:
    """Nova omits its servers from the list, and shows them as UNKNOWN or not at all."""
    reconciler.start(1, 2, 3)
    reconciler.nova.servers = [server(1)]
    reconciler.nova.unlisted = [{"id": vm(2), "status": "UNKNOWN", "tenant_id": "demo"}]
    down = {"services": [{"binary": "nova-compute", "host": "c-1", "status": "UNKNOWN"}]}
    reconciler.nova.replies["/os-services"] = shown(down)
    counts = reconciler.run(code=3)
    assert (counts["ended"], counts["doubtful"]) == (0, 4)
    assert reconciler.live() == [vm(1), vm(2), vm(3)]


@pytest.mark.parametrize(
    ("path", "reply", "said"),
    [
        ("/servers", FORBIDDEN, "use an account with the admin role"),
        ("/servers", Reply(503), "503"),
        ("/servers/detail", Reply(502), "502"),
        ("/servers/detail", Reply(200, b"<html>Maintenance</html>"), "not the expected JSON"),
        (f"/servers/{vm(2)}", Reply(404), "the status is 404"),
        (f"/servers/{vm(2)}", FORBIDDEN, "403"),
        ("/os-services", Reply(500), "500"),
    ],
)
def test_an_inconclusive_response_changes_nothing(
    reconciler: Reconciler, path: str, reply: Reply, said: str
) -> None:
    reconciler.start(1, 2)
    reconciler.nova.servers = [server(1)]
    reconciler.nova.replies[path] = reply
    assert said in reconciler.refusal()
    assert reconciler.live() == [vm(1), vm(2)]


def test_an_empty_nova_is_trusted_only_with_the_option(reconciler: Reconciler) -> None:
    reconciler.start(1)
    assert "lists none" in reconciler.refusal()
    assert reconciler.live() == [vm(1)]
    assert reconciler.run("--allow-empty-nova")["ended"] == 1


def test_the_nova_of_another_installation_is_not_trusted(reconciler: Reconciler) -> None:
    reconciler.start(*range(1, 11))
    reconciler.nova.servers = [server(number, new_id()) for number in range(20, 30)]
    assert "has none of them" in reconciler.refusal()
    assert len(reconciler.live()) == 10


def test_an_unknown_installation_is_refused(reconciler: Reconciler) -> None:
    reconciler.nova.servers = [server(1, new_id())]
    assert "correct the UUID" in reconciler.refusal("--resources", OTHER)


def test_a_run_that_ended_with_an_error_is_continued(
    reconciler: Reconciler, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_resources, "RECORDED", 4)
    reconciler.start(*range(1, 21))
    nova = reconciler.nova
    nova.servers, nova.size = [server(number) for number in range(1, 21) if number % 5], 4
    nova.replies[f"/servers/{vm(15)}"] = Reply(502)
    assert "502" in reconciler.refusal()
    assert len(reconciler.live()) == 18
    nova.replies.clear()
    scripted.asked.clear()
    counts = reconciler.run()
    assert (counts["checked"], counts["listed"], counts["ended"]) == (20, 16, 4)
    assert not any(asked.path.endswith(vm(5)) for asked in scripted.asked)


def test_an_interrupted_run_is_abandoned_with_the_option(reconciler: Reconciler) -> None:
    reconciler.start(*range(1, 5))
    nova = reconciler.nova
    nova.servers, nova.size = [server(number) for number in (1, 2, 3)], 1
    nova.replies[f"/servers/{vm(4)}"] = Reply(502)
    assert "502" in reconciler.refusal()
    nova.replies.clear()
    nova.servers = [server(2)]
    assert reconciler.run("--restart")["ended"] == 3


IN_RECONCILE = [point for point in Point if point.name.startswith("RESOURCES")]
SMALL = (
    "from related_images.db import reconcile_resources, recorded_resources\n"
    "recorded_resources.RECORDED = reconcile_resources.LISTED = 2\n"
)


@pytest.mark.parametrize("point", IN_RECONCILE, ids=lambda point: point.name.lower())
def test_a_killed_run_is_continued_by_the_next(reconciler: Reconciler, point: Point) -> None:
    image, nova = new_id(), reconciler.nova
    nova.servers = [server(1, image)]
    for hundred in range(100, 100 * ROUNDS + 1, 100):
        reconciler.start(1, *range(hundred, hundred + 9, 2), image=image)  # one of them exists
        nova.servers += [server(hundred + number, image) for number in (1, 3, 5, 7)]
        program = [sys.executable, "-c", SMALL + KILLED, point.name]
        killed = subprocess.run([*program, *reconciler.arguments()], check=False)
        assert killed.returncode == -9
        reconciler.run()
        assert set(reconciler.live()) == {one["id"] for one in nova.servers}
        counts = reconciler.run()
        assert (counts["checked"], counts["ended"]) == (len(nova.servers), 0)
    print(f"{point.name}: survived {ROUNDS} rounds")


MEASURED = """
import gc, sys, tracemalloc
from related_images import failpoints
from related_images.manage import main

def measure(point):
    if point is failpoints.Point.RESOURCES_SETTLED:
        if not tracemalloc.is_tracing():
            gc.freeze()
            tracemalloc.start()
        gc.collect()
    if point is failpoints.Point.RESOURCES_FINISHED:
        print(tracemalloc.get_traced_memory()[1])

failpoints.hook = measure
sys.exit(main())
"""
"""The command; it prints the peak of its memory in bytes after the first step."""


def test_memory_does_not_grow_with_the_servers(reconciler: Reconciler) -> None:
    image, peaks = new_id(), list[int]()
    reconciler.nova.size = 50
    for recorded in (400, 4_000):
        for first in range(1, recorded, 400):
            reconciler.start(*range(first, first + 400), image=image)
        # a tenth of the recorded servers is gone, and as many were missed
        there = (number for number in range(1, recorded + recorded // 10) if number % 10)
        reconciler.nova.servers = [server(number, image) for number in there]
        program = [sys.executable, "-c", MEASURED, *reconciler.arguments()]
        done = subprocess.run(program, capture_output=True, check=True, text=True)
        peak, counts = done.stdout.splitlines()
        assert json.loads(counts)["ended"] > recorded // 20
        peaks.append(int(peak))
    print(f"bytes at the most: {peaks}")
    # 3,600 more servers with 200 bytes each would be more than twice as much
    assert peaks[1] < 2 * peaks[0]
