"""``reconcile`` corrects the results of kills and of deletions without the filter."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from related_images.db import image_identity, reconcile, stored_state, tables
from related_images.db.column_types import EPOCH
from related_images.failpoints import Point
from tests.guarantees.reconciling import ADMIN, INSTALLATION, NOW, Reconciler, new_id
from tests.guarantees.test_kill_points import KILLED, ROUNDS
from tests.servers import PATIENCE, ServedGlance

OWNER, SERVICE = "alice:demo:member", "nova:service:service"
TUPLE = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": "i-1", "X-Service-Token": SERVICE}


@pytest.fixture
def reconciler(served: ServedGlance, capsys: pytest.CaptureFixture[str]) -> Reconciler:
    return Reconciler(database_of(served), served.url, capsys)


def database_of(served: ServedGlance) -> str:
    return f"sqlite:///{served.directory}/related-images.db"


def created(served: ServedGlance, **properties: Any) -> str:
    body = {"name": "i-1", "disk_format": "raw", "container_format": "bare", **properties}
    answer = served.request("POST", "/v2/images", OWNER, TUPLE, body)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def delete(served: ServedGlance, image_id: str) -> None:
    assert served.request("DELETE", f"/v2/images/{image_id}", OWNER).status == 204


@contextmanager
def without_relations(served: ServedGlance) -> Iterator[None]:
    """Rename the table of relations; wait at the end until the server uses it again."""
    with closing(sqlite3.connect(served.directory / "related-images.db", PATIENCE)) as other:
        other.execute("ALTER TABLE related_relation RENAME TO elsewhere")
        yield
        other.execute("ALTER TABLE elsewhere RENAME TO related_relation")
    deadline = time.monotonic() + PATIENCE
    while served.request("GET", "/v2/info/relations", ADMIN).json["database"] != "up":
        assert time.monotonic() < deadline, "it does not recover"
        time.sleep(0.05)


def test_images_in_glance_are_not_changed(served: ServedGlance, reconciler: Reconciler) -> None:
    ids = [
        created(served),
        created(served, os_hidden=True),
        created(served, visibility="community"),
    ]
    counts = reconciler.run(*NOW)
    assert counts["present"] >= 3
    assert not any(reconciler.is_marked(id) for id in ids)


def test_an_image_that_was_never_created_is_marked(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    created(served)
    image_id = new_id()
    reconciler.announce(image_id)
    assert reconciler.run(*NOW)["marked_deleted"] == 1
    assert reconciler.is_marked(image_id)
    assert reconciler.run(*NOW)["marked_deleted"] == 0


def test_a_deletion_that_could_not_be_recorded_is_found(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    created(served)
    image_id = created(served)
    with without_relations(served):
        delete(served, image_id)
    assert not reconciler.is_marked(image_id)
    reconciler.run(*NOW)
    assert reconciler.is_marked(image_id)


def test_relations_of_pending_requests_are_not_examined(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    created(served)
    young, old = new_id(), new_id()
    reconciler.announce(young, age=timedelta(minutes=59))
    reconciler.announce(old, age=timedelta(minutes=61))
    counts = reconciler.run()
    assert (counts["marked_deleted"], counts["too_new"]) == (1, 1)
    assert (reconciler.is_marked(young), reconciler.is_marked(old)) == (False, True)
    reconciler.run(*NOW)


def test_a_dry_run_counts_and_changes_nothing(served: ServedGlance, reconciler: Reconciler) -> None:
    created(served)
    image_id = new_id()
    reconciler.announce(image_id)
    assert reconciler.run("--dry-run", *NOW)["marked_deleted"] == 1
    assert not reconciler.is_marked(image_id)
    assert reconciler.run(*NOW)["marked_deleted"] == 1


def restore(served: ServedGlance, image_id: str) -> None:
    """Restore the image with the scrubber, which refuses to run twice on a machine."""
    conf = served.directory / "glance-api.conf"
    scrubber = [sys.executable, "-m", "glance.cmd.scrubber", "--config-file", str(conf)]
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            [*scrubber, "--restore", image_id], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            return
        assert "already running" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr


def test_a_restored_image_gets_its_relations_back(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    image_id = created(served)
    octets = {"Content-Type": "application/octet-stream"}
    assert served.request("PUT", f"/v2/images/{image_id}/file", OWNER, octets, b"x").status == 204
    delete(served, image_id)
    assert reconciler.is_marked(image_id)
    restore(served, image_id)
    assert reconciler.run(*NOW)["restored"] == 1
    assert not reconciler.is_marked(image_id)
    path = f"/v2/images?installation_uuid={INSTALLATION}&instance_id=i-1&limit=1000"
    listed = served.request("GET", path, OWNER).json["images"]
    assert image_id in [image["id"] for image in listed]


def test_an_announcement_of_an_existing_image_is_removed(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    image_id = created(served)
    later = image_identity.CLOCKS_APART + timedelta(seconds=5)
    for instance in ("i-2", "i-3"):
        reconciler.announce(image_id, age=-later, instance=instance)
    # a relation of a pending request does not keep the others
    reconciler.announce(image_id, age=-3 * later, instance="i-4")
    assert withdrawn(reconciler, 2 * later, dry_run=True) == 2
    assert withdrawn(reconciler, 2 * later) == 2
    assert [row.instance_id for row in reconciler.relations(image_id)] == ["i-4", "i-1"]
    assert withdrawn(reconciler, 4 * later) == 1
    assert [row.instance_id for row in reconciler.relations(image_id)] == ["i-1"]


def withdrawn(reconciler: Reconciler, ahead: timedelta, dry_run: bool = False) -> int:
    """Return how many relations a run removes that examines those before now + ``ahead``."""
    now = datetime.now(UTC)
    run = reconcile.Run(until=now + ahead, started_at=now)
    reconcile.reconcile(
        reconciler.database(), reconciler.glance(), run, dry_run, seen=lambda _: None
    )
    return run.counts.withdrawn


def test_the_time_of_the_latest_backup_is_corrected_after_an_older_version(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    created(served)
    reconciler.run(*NOW)
    unaware = update(tables.instance).values(latest_snapshot_at=EPOCH)
    wrong = reconciler.database().write(lambda connection: connection.execute(unaware).rowcount)
    assert reconciler.run("--dry-run", *NOW)["corrected"] > 0
    assert 0 < reconciler.run(*NOW)["corrected"] <= wrong
    assert reconciler.run(*NOW)["corrected"] == 0


def test_a_position_in_an_unknown_format_is_ignored(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    created(served)
    stored = reconcile.Run(datetime.now(UTC), datetime.now(UTC), after=10**9).as_json()
    for text in (stored.replace("checked", "seen"), "{}", "[]", "at 7"):
        reconciler.database().write(stored_state.put, reconcile.POSITION, text)
        assert reconciler.run(*NOW)["checked"] > 0


def test_the_last_run_is_shown(served: ServedGlance, reconciler: Reconciler) -> None:
    created(served)
    counts = reconciler.run(*NOW)
    info = served.request("GET", "/v2/info/relations", "root:admin:admin").json
    assert info["last_reconciliation"].items() >= {"until": counts["until"]}.items()
    assert info["unreconciled"] == 0
    for_others = served.request("GET", "/v2/info/relations", OWNER).json
    assert set(for_others["last_reconciliation"]) == {"until", "finished_at"}
    assert for_others["unreconciled"] is None


def test_reconcile_refuses_a_token_without_administrator_rights(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    image_id = new_id()
    created(served)
    reconciler.announce(image_id)
    for token in (OWNER, "nova:service:member,service", "eve:demo:reader"):
        assert "use an account with the admin role" in reconciler.refusal(*NOW, token=token)
    assert not reconciler.is_marked(image_id)
    reconciler.run(*NOW)


IN_RECONCILE = [point for point in Point if point.name.startswith("RECONCILE")]
SMALL = "from related_images.db import reconcile\nreconcile.BATCH = 2\n"


@pytest.mark.slow
@pytest.mark.parametrize("point", IN_RECONCILE, ids=lambda point: point.name.lower())
def test_a_killed_run_is_continued_by_the_next(
    served: ServedGlance, reconciler: Reconciler, point: Point
) -> None:
    kept = created(served)
    for _ in range(ROUNDS):
        orphans = [new_id() for _ in range(5)]
        reconciler.announce(*orphans)
        program = [sys.executable, "-c", SMALL + KILLED, point.name]
        killed = subprocess.run([*program, *reconciler.arguments(*NOW)], check=False)
        assert killed.returncode == -9
        reconciler.run(*NOW)
        reconciler.run(*NOW)
        assert all(reconciler.is_marked(orphan) for orphan in orphans)
        assert not reconciler.is_marked(kept)
    print(f"{point.name}: survived {ROUNDS} rounds")
