"""``backfill`` and ``reconcile --resources`` with the real Cinder, if nobody else reports."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select

from related_images.db import (
    Database,
    coverage,
    installations,
    notifications,
    origins,
    schema,
    usages,
)
from related_images.db.notifications import Created
from related_images.db.tables import instance, project
from related_images.manage import cinder_admin
from related_images.manage.rate_limit import RateLimit
from related_images.model import Filters, InstanceRef
from tests.client.scripted import Reply, serving
from tests.cloud.cloud import Cloud
from tests.cloud.plan import VOLUMES
from tests.cloud.volume_actions import VolumeActions

YESTERDAY: Final = datetime.now(UTC) - timedelta(days=1)


class Records:
    """A database to which no service and no listener reports."""

    def __init__(self, cloud: Cloud, file: Path) -> None:
        self.url = f"sqlite:///{file}"
        self._cloud = cloud
        schema.upgrade(self.url)

    @contextmanager
    def opened(self) -> Iterator[Database]:
        with closing(Database(self.url, 20)) as database:
            yield database

    def run(self, *words: str, who: str = "admin") -> subprocess.CompletedProcess[str]:
        where = ("--connection", self.url, "--os-cloud", who)
        return self._cloud.command("related-images", *words, *where)

    def reconcile(self, *words: str) -> dict[str, Any]:
        how = ("--resources", VOLUMES, "--older-than", "0h", "--rate", "1000", *words)
        done = self.run("reconcile", *how)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def backfill(self, *words: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the counts, and the rejected image of each volume."""
        done = self.run("backfill", "--cinder-installation", VOLUMES, "-f", "json", *words)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return told["counts"], {row["instance_id"]: row["image_id"] for row in told["doubted"]}

    def origins(self) -> dict[str, str | None]:
        """Return the source of each resource that has an origin."""
        with self.opened() as database:
            found = origins.page(database, Filters(), 500, None).items
        assert {one.reported_by for one in found} <= {"backfill"}
        return {one.instance_id: one.source.instance_id if one.source else None for one in found}

    def live(self) -> dict[str, str | None]:
        """Return the owner of each live resource."""
        rows = (
            select(instance.c.instance_id, project.c.project_id)
            .select_from(instance.outerjoin(project, project.c.id == instance.c.project_ref))
            .where(instance.c.ended_at.is_(None))
        )
        with self.opened() as database:
            found = database.read(lambda connection: connection.execute(rows).all())
        return {row[0]: row[1] for row in found}

    def gaps(self) -> set[tuple[str, datetime | None]]:
        """Return the witnesses with a gap, and when the gap begins."""
        with self.opened() as database:
            return {(gap.witness, gap.since) for gap in database.read(coverage.gaps)}

    def state(self, image_id: str) -> str:
        with self.opened() as database:
            (usage,) = usages.usages(database, [image_id], None)
        return usage.state


@pytest.fixture
def records(cloud: Cloud, tmp_path: Path) -> Records:
    return Records(cloud, tmp_path / "records.db")


@pytest.fixture(scope="module")
def actions(cloud: Cloud) -> VolumeActions:
    return VolumeActions(cloud)


@pytest.fixture(scope="module")
def image(actions: VolumeActions) -> str:
    return actions.image("of volumes that nobody reports")


def test_a_backfill_records_what_cinder_itself_has_stored(
    cloud: Cloud, actions: VolumeActions, image: str, records: Records
) -> None:
    demo = cloud.connection("alice").current_project_id
    base = actions.volume("base", image_id=image)
    snapshot = actions.snapshot(base)
    sources = {
        snapshot: base,
        actions.volume("clone", source_volume_id=base): base,
        actions.volume("of a snapshot", snapshot_id=snapshot): snapshot,
    }
    forged = actions.volume("forged")
    actions.describe(forged, image)
    planned, _ = records.backfill("--dry-run")
    assert records.live() == {}
    counts, rejected = records.backfill()
    assert {**planned, "dry_run": False} == counts
    assert records.origins().items() >= sources.items()
    assert {base, forged}.isdisjoint(records.origins())
    made = {base, forged, *sources}
    assert {one: records.live()[one] for one in made} == dict.fromkeys(made, demo)
    # the true claim looks like the forged one; the clone has it too, and a recorded source
    assert {one: rejected.get(one) for one in made} == {
        **dict.fromkeys(made),
        **dict.fromkeys((base, forged), image),
    }
    again, _ = records.backfill()
    assert (again["started"], again["recorded"], again["moved"]) == (0, 0, 0)
    assert again["listed"] == counts["listed"]


def test_a_run_corrects_what_nobody_reported(
    cloud: Cloud, actions: VolumeActions, image: str, records: Records
) -> None:
    kept, gone, moved = (actions.volume(name) for name in ("kept", "gone", "moved"))
    expected = ("cinder-api", "cinder-bus")
    with records.opened() as database:
        installations.register(database, VOLUMES, "cinder", (), expected)
    records.backfill()
    assert records.gaps() == {(name, None) for name in expected}
    actions.delete_volume(gone)
    snapshot = actions.snapshot(kept)
    missed = actions.volume("missed", snapshot_id=snapshot)
    actions.transfer(moved)
    before = records.live()
    planned = records.reconcile("--dry-run")
    assert records.live() == before
    assert records.gaps() == {(name, None) for name in expected}
    counts = records.reconcile()
    names = ("listed", "ended", "started", "recorded", "moved", "restored", "doubtful")
    assert {name: counts[name] for name in names} == {name: planned[name] for name in names}
    found = {name: counts[name] for name in names if name != "listed"}
    assert found == {
        "ended": 1,
        "started": 2,
        "recorded": 2,
        "moved": 1,
        "restored": 0,
        "doubtful": 0,
    }
    bob = cloud.connection("bob").current_project_id
    demo = cloud.connection("alice").current_project_id
    expected_live = {one: owner for one, owner in before.items() if one != gone}
    assert records.live() == {**expected_live, moved: bob, snapshot: demo, missed: demo}
    assert records.origins().items() >= {snapshot: kept, missed: snapshot}.items()
    # Cinder does not say which volumes use an image: only the filter in cinder-api does
    began = datetime.fromisoformat(counts["started_at"])
    assert records.gaps() == {("cinder-api", None), ("cinder-bus", began)}
    assert counts["unknown"] > 0
    assert records.state(image) == "unknown"
    again = records.reconcile()
    assert all(again[name] == 0 for name in names if name != "listed")


@pytest.mark.parametrize("number", [1, 12])
def test_the_volumes_of_another_cinder_are_not_ended(records: Records, number: int) -> None:
    ids = [f"{one:08x}-0000-4000-8000-000000000000" for one in range(number)]
    with records.opened() as database:
        recorded = [Created(InstanceRef(VOLUMES, one, "volume"), "p-1", YESTERDAY) for one in ids]
        notifications.store(database, recorded)
    done = records.run("reconcile", "--resources", VOLUMES, "--older-than", "0h")
    assert done.returncode == 1
    assert "lists others: nothing was changed" in done.stderr
    assert sorted(records.live()) == ids


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(503), "Cinder answered 503"),
        (Reply(404, b"<html>no such backend</html>"), "the status is 404"),
        (Reply(200, b'{"versions": []}'), "not the expected JSON"),
    ],
)
def test_a_doubtful_response_ends_nothing(records: Records, reply: Reply, said: str) -> None:
    records.backfill()
    before = records.live()
    with serving() as scripted:
        scripted.script = lambda asked: reply
        endpoint = ("--os-block-storage-endpoint-override", scripted.url)
        done = records.run("reconcile", "--resources", VOLUMES, "--older-than", "0h", *endpoint)
    assert done.returncode == 1
    assert said in done.stderr
    assert records.live() == before


@pytest.mark.parametrize("command", ["reconcile", "backfill"])
def test_an_ordinary_user_is_refused(records: Records, command: str) -> None:
    """Cinder ignores `all_tenants` of such a user, and would list one project only."""
    option = {"reconcile": "--resources", "backfill": "--cinder-installation"}[command]
    with records.opened() as database:
        installations.register(database, VOLUMES, "cinder", (), ("cinder-bus",))
    done = records.run(command, option, VOLUMES, who="alice")
    assert done.returncode == 1
    assert "use an account with the admin role" in done.stderr
    assert done.stdout == ""


def test_a_listing_continues_if_the_last_volume_of_a_page_is_deleted(
    cloud: Cloud, actions: VolumeActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {actions.volume(f"of page {number}") for number in range(4)}
    monkeypatch.setattr(cinder_admin, "PAGE", 1)
    adapter = cloud.connect("admin").block_storage
    volumes, _, _ = cinder_admin.resources(adapter, RateLimit(1000))
    listed, deleted = list[str](), set[str]()
    for page in volumes.pages(""):
        listed += page.resources
        if made.intersection(page.resources) and len(deleted) < 2:
            deleted |= page.resources.keys()
            actions.delete_volume(*page.resources)
    assert listed == sorted(listed)
    assert made <= set(listed)
    assert len(deleted) == 2
