"""The real Nova with the real Glance: whose image is recorded, which backups are rotated away."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from related_images.manage.notifications import read
from related_images.queries import Database, Filters
from related_images.queries.notifications import store
from related_images.store import lookups, schema
from tests.servers import ServedGlance

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
ADMIN = ServedGlance.token("root", "administration", "admin")
PATIENCE = 600

GLANCES: dict[str, dict[str, Any]] = {
    "filtered": {},
    "passing": {},
    "verified": {"options": {"nova_rotation": "verified"}},
    "plain": {"with_filter": False},
    "down": {},
}
BACKUPS = ["backup 1", "backup 2", "backup 3", "of another server", "never uploaded"]

SNAPSHOTS = {
    "snapshot": ("snapshot", None),
    "backup": ("backup", "daily"),
    "backup of an odd type": ("backup", None),
    "shelve": ("snapshot", None),
    "volume-backed snapshot": ("snapshot", None),
    "snapshot by an administrator": ("snapshot", None),
    "snapshot with forged metadata": ("snapshot", None),
    "volume-backed, started from a backup": ("snapshot", None),
    "cross-cell resize": ("snapshot", None),
}
"""What Nova did, and the kind and label that are recorded."""

SILENT = {
    "shelve",
    "volume-backed snapshot",
    "volume-backed, started from a backup",
    "cross-cell resize",
}
"""Of the images that come of these, Nova sends no notification."""


@dataclass(frozen=True)
class Outcome:
    """What the lab reports, and the Glance that holds an image of each kind."""

    told: dict[str, Any]
    glance: ServedGlance

    def image_id(self, deed: str) -> str:
        return str(self.told["images"][deed]["image_id"])

    def instance_id(self, deed: str) -> str:
        return str(self.told["images"][deed]["instance_id"])

    def image(self, deed: str) -> dict[str, Any]:
        return dict(self._get(f"/v2/images/{self.image_id(deed)}"))

    def relation(self, deed: str) -> dict[str, Any]:
        """The only relation of the image."""
        (found,) = self._get(f"/v2/images/{self.image_id(deed)}/relations")["relations"]
        return dict(found)

    def _get(self, path: str) -> Any:
        answer = self.glance.request("GET", path, ADMIN)
        assert answer.status == 200, answer.body
        return answer.json


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    directory = tmp_path_factory.mktemp("nova")
    with ExitStack() as stack:
        glances: dict[str, ServedGlance] = {}
        for name, options in GLANCES.items():
            _make_alike(directory / name, directory / "filtered")
            glances[name] = stack.enter_context(ServedGlance(directory / name, **options))
        _break(glances["down"])
        plan, told = directory / "plan.json", directory / "outcome.json"
        plan.write_text(json.dumps({name: glance.url for name, glance in glances.items()}))
        lab = subprocess.run(
            [sys.executable, "-m", "tests.nova.lab", str(plan), str(told)],
            env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert lab.returncode == 0, lab.stderr[-5000:]
        yield Outcome(json.loads(told.read_text()), glances["filtered"])


def _make_alike(directory: Path, first: Path) -> None:
    """Spare a Glance the making of its database, which takes seconds."""
    directory.mkdir()
    for name in ("glance.db", "glance-version"):
        if (first / name).exists():
            shutil.copy(first / name, directory)


def _break(glance: ServedGlance) -> None:
    with closing(sqlite3.connect(glance.directory / "related-images.db")) as connection:
        connection.execute("DROP TABLE related_relation")
        connection.commit()


@pytest.mark.parametrize("deed", SNAPSHOTS)
def test_every_image_is_recorded_with_the_instance_it_was_made_from(
    outcome: Outcome, deed: str
) -> None:
    recorded = outcome.relation(deed)
    kind, label = SNAPSHOTS[deed]
    assert recorded["installation_uuid"] == NOVA
    assert recorded["instance_id"] == outcome.instance_id(deed)
    assert (recorded["kind"], recorded["label"], recorded["source"]) == (kind, label, "service")


def test_what_nova_writes_into_the_properties_is_wrong(outcome: Outcome) -> None:
    first, shelved = outcome.instance_id("snapshot"), outcome.instance_id("shelve")
    # the image of a shelved instance is gone when that is unshelved
    there = [deed for deed in SNAPSHOTS if deed != "shelve"]
    claims = {deed: outcome.image(deed).get("instance_uuid") for deed in there}
    assert claims["snapshot"] == claims["backup"] == first
    assert claims["volume-backed snapshot"] is None
    assert claims["snapshot with forged metadata"] == shelved
    assert claims["volume-backed, started from a backup"] == first
    assert outcome.image("volume-backed, started from a backup")["image_type"] == "backup"


def test_an_administrators_snapshot_is_the_administrators(outcome: Outcome) -> None:
    recorded = outcome.relation("snapshot by an administrator")
    assert recorded["project_id"] == outcome.image("snapshot by an administrator")["owner"]
    assert recorded["project_id"] == "administration"


def test_notifications_name_the_same_instances(outcome: Outcome, sqlite_url: str) -> None:
    schema.upgrade(make_url(sqlite_url))
    database = Database(sqlite_url, 20)
    stamped = [
        {"timestamp": "2026-01-31 12:00:00.000000", **sent}
        for sent in outcome.told["notifications"]
    ]
    events = [event for sent in stamped if (event := read(NOVA, sent)) is not None]
    for _ in range(2):
        store(database, events)
    found = {
        row.image_id: (row.instance_id, row.kind)
        for row in database.read(lookups.relations, Filters(), 1000)
        if row.kind != "boot"
    }
    for deed, (kind, _) in SNAPSHOTS.items():
        said = None if deed in SILENT else (outcome.instance_id(deed), kind)
        assert found.get(outcome.image_id(deed)) == said, deed
    first, heir = (
        database.read(lookups.instances, Filters(NOVA, outcome.instance_id(deed)), 1)[0]
        for deed in ("snapshot", "volume-backed, started from a backup")
    )
    assert (first.boot_image_id, first.project_id) == (outcome.told["base"], "demo")
    assert first.ended_at is None
    assert heir.ended_at is not None


def test_nova_says_whose_an_instance_is_or_was(outcome: Outcome) -> None:
    assert outcome.told["projects"] == {"first": "demo", "deleted": "demo", "unknown": None}


def test_nova_tells_which_policies_servers_carry_to_who_sees_them(outcome: Outcome) -> None:
    seen = {outcome.instance_id("snapshot"): "demo"}
    nobody: dict[str, str] = {}
    assert outcome.told["policies"] == {
        "one": seen,
        "none": nobody,
        "own": seen,
        "stranger": nobody,
        "project": seen,
        "another": nobody,
        "all": seen,
    }


def test_the_deletion_of_a_server_that_nova_has_or_hides_is_not_recorded(
    outcome: Outcome,
) -> None:
    told = outcome.told["deletions"]
    assert (told["deleted"], told["unknown"]) == ("", "")
    assert "the compute service still has the server" in told["there"]
    assert "it answered 403 to a question about all projects" in told["by its user"]


def test_plain_rotation_deletes_real_backups(outcome: Outcome) -> None:
    assert outcome.told["rotation"]["passing"] == {
        "before": BACKUPS,
        "after": ["of another server", "never uploaded", "backup 4"],
    }


def test_verified_rotation_deletes_exactly_the_oldest(outcome: Outcome) -> None:
    assert outcome.told["rotation"]["verified"] == {
        "before": BACKUPS,
        "after": [*BACKUPS[1:], "backup 4"],
    }


def test_without_the_filter_snapshots_work_and_one_warning_is_logged(outcome: Outcome) -> None:
    plain = outcome.told["plain"]
    assert plain["made"] == ["active", "active"]
    assert plain["log"].count("does not say that it recorded") == 1


def test_while_relations_are_down_nothing_is_half_made(outcome: Outcome) -> None:
    down = outcome.told["down"]
    assert (down["refused"], down["images"]) == ([500, 500], ["base"])
    assert down["state"] == "active"
