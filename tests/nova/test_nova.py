"""The real Nova with the real Glance: whose image is recorded, which backups are rotated away."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    Filters,
    instances,
    relation_queries,
    schema,
)
from related_images.db.notifications import store
from related_images.errors import Conflict
from related_images.manage import nova_properties
from related_images.manage.notification_parser import read
from related_images.protocol import schemas
from tests.client.scripted import Asked, Reply, serving, shown
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
ADMIN = ServedGlance.token("root", "administration", "admin")
PATIENCE = 600

REFUSALS = [f"{whose} {status}" for whose in ("ours", "foreign") for status in (400, 403, 409, 503)]
REFUSALS += ["ours 413"]

GLANCES: dict[str, dict[str, Any]] = {
    "filtered": {},
    "passing": {},
    "verified": {"options": {"nova_rotation": "verified"}},
    "unaccompanied": {"options": {"nova_rotation": "verified"}},
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
        glances["down"].lose_tables()
        plan, told = directory / "plan.json", directory / "outcome.json"
        refusing = stack.enter_context(serving())
        refusing.script = refuse
        urls = {name: glance.url for name, glance in glances.items()}
        told_of = {"refusing": refusing.url, "refusals": ",".join(REFUSALS)}
        plan.write_text(json.dumps(urls | told_of))
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


def refuse(asked: Asked) -> Reply:
    """Refuse as the name of the image says, with an error of the filter or a foreign one.

    The real filter refuses none of Nova's images with 400, 409 or 413, and Glance none with 503.
    """
    if asked.path == "/v2/schemas/image":
        return shown({"name": "image", "properties": {}})
    whose, status = json.loads(asked.body)["name"].split()
    if whose == "foreign":
        return Reply(int(status), b"<html>Not of ours</html>", {"Content-Type": "text/html"})
    error = Conflict("What was wrong and what to do.")
    return shown(schemas.fault(int(status), error, None), int(status), Retry_After="1")


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
    named = {deed: outcome.image(deed).get("instance_uuid") for deed in there}
    assert named["snapshot"] == named["backup"] == first
    assert named["volume-backed snapshot"] is None
    assert named["snapshot with forged metadata"] == shelved
    assert named["volume-backed, started from a backup"] == first
    assert outcome.image("volume-backed, started from a backup")["image_type"] == "backup"


def test_backfill_believes_what_nova_writes_and_not_what_is_inherited(outcome: Outcome) -> None:
    # the image of a shelved instance is gone when that is unshelved
    there = [deed for deed in SNAPSHOTS if deed != "shelve"]
    found = {deed: nova_properties.read(outcome.image(deed)) for deed in there}
    doubted = {deed: claim.doubt for deed, claim in found.items() if claim and claim.doubt}
    assert list(doubted) == ["volume-backed, started from a backup"]
    assert "on volumes" in str(doubted["volume-backed, started from a backup"])
    assert [deed for deed, claim in found.items() if claim is None] == ["volume-backed snapshot"]


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
        for row in database.read(relation_queries.find, Filters(), 1000)
        if row.kind != "boot"
    }
    for deed, (kind, _) in SNAPSHOTS.items():
        said = None if deed in SILENT else (outcome.instance_id(deed), kind)
        assert found.get(outcome.image_id(deed)) == said, deed
    first, heir = (
        database.read(instances._find, Filters(NOVA, outcome.instance_id(deed)), 1)[0]
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


def test_servers_are_found_by_name(outcome: Outcome) -> None:
    told = outcome.told["names"]
    odd, twin = told["made"]
    assert told["odd"] == [odd]
    assert told["twins"] == sorted([twin, outcome.instance_id("shelve")])
    assert told["nobody"] == told["stranger"] == []


def test_the_names_of_servers_are_listed_in_pages(outcome: Outcome) -> None:
    pages = outcome.told["names"]["pages"]
    assert len(pages["own"]) > 1
    assert set(pages["own"][:-1]) == {3}
    assert sum(pages["own"]) <= sum(pages["all"])
    assert pages["stranger"] == pages["refused"] == [0]


def test_plain_rotation_deletes_real_backups(outcome: Outcome) -> None:
    assert outcome.told["rotation"]["passing"] == {
        "before": BACKUPS,
        "after": ["of another server", "never uploaded", "backup 4"],
    }


@pytest.mark.parametrize("name", ["verified", "unaccompanied"])
def test_verified_rotation_deletes_exactly_the_oldest(outcome: Outcome, name: str) -> None:
    assert outcome.told["rotation"][name] == {
        "before": BACKUPS,
        "after": [*BACKUPS[1:], "backup 4"],
    }


def test_without_the_filter_snapshots_work_and_one_warning_is_logged(outcome: Outcome) -> None:
    plain = outcome.told["plain"]
    assert plain["made"] == ["active", "active"]
    assert plain["log"].count("does not say that it recorded") == 1


def test_while_relations_are_down_nothing_is_half_made(outcome: Outcome) -> None:
    down = outcome.told["down"]
    assert down["images"] == ["base"]
    assert down["states"] == ["active", "active"]
    # Nova sets this state before it asks Glance, and leaves it; docs/nova.md says how to end it
    assert down["shelved"] == [["active", "shelving"], ["active", None]]


@pytest.mark.parametrize(
    "deed", ["createImage", "createBackup", "createImage of volumes", "shelve"]
)
def test_while_relations_are_down_nova_says_so_to_its_user(outcome: Outcome, deed: str) -> None:
    status, message, retry_after = outcome.told["down"]["refused"][deed]
    assert (status, retry_after) == (503, "1")
    assert message.startswith("the database cannot be used now")


def test_without_a_service_token_nova_says_what_is_needed(outcome: Outcome) -> None:
    status, message, _ = outcome.told["refused"]["without a service token"]
    assert status == 403
    assert "one of these roles is needed" in message


@pytest.mark.parametrize("status", [400, 403, 409, 413, 503])
def test_nova_passes_every_refusal_on(outcome: Outcome, status: int) -> None:
    answered, message, retry_after = outcome.told["refused"][f"ours {status}"]
    assert answered == status
    assert "What was wrong and what to do." in message
    assert retry_after == (None if status in (400, 403) else "1")


@pytest.mark.parametrize("status", [400, 403, 409, 413, 503])
def test_the_openstack_command_shows_every_refusal(outcome: Outcome, status: int) -> None:
    code, said = outcome.told["shown"][f"ours {status}"]
    assert code == 1
    assert "What was wrong and what to do." in said


@pytest.mark.parametrize(("status", "answered"), [(400, 400), (403, 403), (409, 500), (503, 500)])
def test_what_others_refuse_is_answered_as_ever(
    outcome: Outcome, status: int, answered: int
) -> None:
    got, message, _ = outcome.told["refused"][f"foreign {status}"]
    assert got == answered
    assert ("Unexpected API Error" in message) == (answered == 500)
