"""A real Nova with a real Glance: recorded relations, and the rotation of backups."""

import json
import os
import shutil
import subprocess
import sys
import time
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
from related_images.errors import (
    Conflict,
    ImageBeingDeleted,
    ImageNotFound,
    RelatedImagesError,
    StoreUnavailable,
)
from related_images.manage import nova_properties
from related_images.manage.notification_parser import read
from related_images.protocol import schemas
from tests.client.scripted import Asked, Reply, serving, shown
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
ADMIN = ServedGlance.token("root", "administration", "admin")
CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
PATIENCE = 600
PATIENCE_OF_NOVA_API = 10
"""Seconds after which the silent Glance answers; the report is abandoned before."""

REFUSALS = [
    f"{origin} {status}" for origin in ("filter", "proxy") for status in (400, 403, 409, 503)
]
REFUSALS += ["filter 413"]

STARTS = {
    "being deleted": "20000000-0000-4000-8000-000000000001",
    "not found": "20000000-0000-4000-8000-000000000002",
    "silent": "20000000-0000-4000-8000-000000000003",
    "unavailable": "20000000-0000-4000-8000-000000000004",
}
"""How the fake Glance answers the report of a server that is started from each of its images."""

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
    "shelve": ("shelved", None),
    "volume-backed snapshot": ("snapshot", None),
    "backup by createImage": ("backup", "daily"),
    "volume-backed backup": ("backup", "daily"),
    "volume-backed backup without a label": ("backup", None),
    "snapshot by an administrator": ("snapshot", None),
    "snapshot with forged metadata": ("snapshot", None),
    "volume-backed, started from a backup": ("snapshot", None),
    "cross-cell resize": ("snapshot", None),
}
"""Actions of Nova, and the kind and label that are recorded for their images."""

SILENT = {
    "shelve",
    "volume-backed snapshot",
    "volume-backed backup",
    "volume-backed backup without a label",
    "volume-backed, started from a backup",
    "cross-cell resize",
}
"""Nova sends no notification for the images of these actions."""

MALFORMED = {
    "kind": "relation_kind is 'snapshot', and must be backup",
    "only a label": "relation_kind is missing, and must be backup",
    "label": "relation_label: the relation label 'every day!'",
    "createBackup": "createBackup records the kind backup",
}
"""What Nova answers to malformed metadata."""

NOTIFIED = {"backup by createImage": "snapshot"}
"""The kind in the notifications of the actions for which it differs."""

ON_VOLUMES = [action for action in SNAPSHOTS if action.startswith("volume-backed ")]


@dataclass(frozen=True)
class Outcome:
    """The results of the lab, and the Glance with the images."""

    results: dict[str, Any]
    glance: ServedGlance

    def image_id(self, action: str) -> str:
        return str(self.results["images"][action]["image_id"])

    def instance_id(self, action: str) -> str:
        return str(self.results["images"][action]["instance_id"])

    def image(self, action: str) -> dict[str, Any]:
        return dict(self._get(f"/v2/images/{self.image_id(action)}"))

    def relation(self, action: str) -> dict[str, Any]:
        """The relation of the image to the server that it was made from."""
        found = self._get(f"/v2/images/{self.image_id(action)}/relations")["relations"]
        (made,) = [row for row in found if row["kind"] != "boot"]
        return dict(made)

    def started(self, name: str) -> set[tuple[str, str]]:
        """The images from which a server is started, and the source of the report."""
        server_id = self.results["starts"]["servers"][name]
        found = self._get(f"/v2/relations?kind=boot&instance_id={server_id}")["relations"]
        assert {row["project_id"] for row in found} <= {"demo"}
        return {(row["image_id"], row["source"]) for row in found}

    def get(self, path: str) -> Any:
        return self._get(path)

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
            _copy_database(directory / name, directory / "filtered")
            glances[name] = stack.enter_context(ServedGlance(directory / name, **options))
        glances["down"].lose_tables()
        plan, results = directory / "plan.json", directory / "outcome.json"
        refusing = stack.enter_context(serving())
        refusing.script = refuse
        urls = {name: glance.url for name, glance in glances.items()}
        refusing_plan = {
            "refusing": refusing.url,
            "refusals": ",".join(REFUSALS),
            "starts": json.dumps(STARTS),
        }
        plan.write_text(json.dumps(urls | refusing_plan))
        lab = subprocess.run(
            [sys.executable, "-m", "tests.nova.lab", str(plan), str(results)],
            env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert lab.returncode == 0, lab.stderr[-5000:]
        yield Outcome(json.loads(results.read_text()), glances["filtered"])


def _copy_database(directory: Path, first: Path) -> None:
    """Copy the database of the first Glance, since creating one takes seconds."""
    directory.mkdir()
    for name in ("glance.db", "glance-version"):
        if (first / name).exists():
            shutil.copy(first / name, directory)


def refuse(asked: Asked) -> Reply:
    """Refuse with the status in the name of the image, as the filter does or as a proxy does.

    The real filter never refuses an image of Nova with 400, 409 or 413, nor Glance with 503.
    """
    if asked.path == "/v2/schemas/image":
        # Nova takes all others for properties that a user has set
        fields: dict[str, Any] = {name: {} for name in _active_image("")}
        return shown({"name": "image", "properties": fields})
    if asked.path == "/v2/relations":
        return refuse_start(json.loads(asked.body)["relations"])
    if asked.method == "GET":
        return shown(_active_image(asked.path.rpartition("/")[2]))
    origin, status = json.loads(asked.body)["name"].split()
    if origin == "proxy":
        return Reply(int(status), b"<html>an error page</html>", {"Content-Type": "text/html"})
    error = Conflict("What was wrong and what to do.")
    return shown(schemas.fault(int(status), error, None), int(status), Retry_After="1")


def refuse_start(items: list[dict[str, Any]]) -> Reply:
    name = next(name for name, id in STARTS.items() if id == items[0]["image_id"])
    if name == "silent":
        time.sleep(PATIENCE_OF_NOVA_API)
    if name == "unavailable":
        error: RelatedImagesError = StoreUnavailable("the database is down")
        return shown(schemas.fault(503, error, None), 503, Retry_After="1")
    missing = ImageBeingDeleted("wait") if name == "being deleted" else ImageNotFound("gone")
    status = 409 if name == "being deleted" else 404
    results = [{"status": status, "error": schemas.described(missing)} for _ in items]
    return shown({"relations": results})


def _active_image(image_id: str) -> dict[str, Any]:
    times = dict.fromkeys(("created_at", "updated_at"), "2026-01-31T12:00:00Z")
    formats = {"disk_format": "raw", "container_format": "bare", "size": 6, "tags": []}
    limits = {"min_disk": 0, "min_ram": 0, "visibility": "public", "protected": False}
    return {"id": image_id, "name": "n", "status": "active", **times, **formats, **limits}


@pytest.mark.parametrize("action", SNAPSHOTS)
def test_every_image_is_recorded_with_its_server(outcome: Outcome, action: str) -> None:
    recorded = outcome.relation(action)
    kind, label = SNAPSHOTS[action]
    assert recorded["installation_uuid"] == NOVA
    assert recorded["instance_id"] == outcome.instance_id(action)
    assert (recorded["kind"], recorded["label"], recorded["source"]) == (kind, label, "service")


@pytest.mark.parametrize("action", ["backup by createImage", *ON_VOLUMES[1:]])
def test_the_image_has_the_other_metadata_of_the_request(outcome: Outcome, action: str) -> None:
    image = outcome.image(action)
    assert [name for name in image if name.startswith("relation_")] == []
    assert image.get("color") == (None if "without" in action else "red")


def test_malformed_metadata_are_refused_before_anything_is_made(outcome: Outcome) -> None:
    told = outcome.results["malformed"]
    for name, text in MALFORMED.items():
        for status, message, _ in told["refused"][name]:
            assert (status, text in message) == (400, True), message
    assert (told["images"], told["nothing taken"]) == ([], True)


def test_properties_that_nova_sets_can_be_wrong(outcome: Outcome) -> None:
    first, shelved = outcome.instance_id("snapshot"), outcome.instance_id("shelve")
    # Nova deletes the image of a shelved server when it is unshelved
    there = [action for action in SNAPSHOTS if action != "shelve"]
    servers = {action: outcome.image(action).get("instance_uuid") for action in there}
    assert servers["snapshot"] == servers["backup"] == first
    assert servers["volume-backed snapshot"] is None
    assert servers["snapshot with forged metadata"] == shelved
    assert servers["volume-backed, started from a backup"] == first
    assert outcome.image("volume-backed, started from a backup")["image_type"] == "backup"


def test_backfill_rejects_inherited_properties(outcome: Outcome) -> None:
    # Nova deletes the image of a shelved server when it is unshelved
    there = [action for action in SNAPSHOTS if action != "shelve"]
    found = {action: nova_properties.read(outcome.image(action)) for action in there}
    rejected = {
        action: claim.contradiction
        for action, claim in found.items()
        if claim and claim.contradiction
    }
    assert list(rejected) == ["volume-backed, started from a backup"]
    assert "booted from a volume" in str(rejected["volume-backed, started from a backup"])
    assert [action for action, claim in found.items() if claim is None] == ON_VOLUMES


def test_a_snapshot_by_an_administrator_belongs_to_the_administrators_project(
    outcome: Outcome,
) -> None:
    recorded = outcome.relation("snapshot by an administrator")
    assert recorded["project_id"] == outcome.image("snapshot by an administrator")["owner"]
    assert recorded["project_id"] == "administration"


def test_notifications_record_the_relations_of_the_filter(
    outcome: Outcome, sqlite_url: str
) -> None:
    schema.upgrade(make_url(sqlite_url))
    database = Database(sqlite_url, 20)
    notifications = [
        {"timestamp": "2026-01-31 12:00:00.000000", **sent}
        for sent in outcome.results["notifications"]
    ]
    events = [event for sent in notifications if (event := read(NOVA, sent)) is not None]
    for _ in range(2):
        store(database, events)
    found = {
        row.image_id: (row.instance_id, row.kind)
        for row in database.read(relation_queries.find, Filters(), 1000)
        if row.kind != "boot"
    }
    for action, (kind, _) in SNAPSHOTS.items():
        kind = NOTIFIED.get(action, kind)
        expected = None if action in SILENT else (outcome.instance_id(action), kind)
        assert found.get(outcome.image_id(action)) == expected, action
    first, heir = (
        database.read(instances._find, Filters(NOVA, outcome.instance_id(action)), 1)[0]
        for action in ("snapshot", "volume-backed, started from a backup")
    )
    assert (first.boot_image_id, first.project_id) == (outcome.results["base"], "demo")
    assert first.ended_at is None
    assert heir.ended_at is not None


def test_nova_returns_the_project_of_a_server(outcome: Outcome) -> None:
    assert outcome.results["projects"] == {"first": "demo", "deleted": "demo", "unknown": None}


def test_nova_shows_the_backup_policies_of_servers_that_the_caller_may_see(
    outcome: Outcome,
) -> None:
    seen = {outcome.instance_id("snapshot"): "demo"}
    nobody: dict[str, str] = {}
    assert outcome.results["policies"] == {
        "one": seen,
        "none": nobody,
        "own": seen,
        "stranger": nobody,
        "project": seen,
        "another": nobody,
        "all": seen,
    }


def test_the_deletion_of_a_server_that_nova_shows_or_hides_is_not_recorded(
    outcome: Outcome,
) -> None:
    deletions = outcome.results["deletions"]
    assert (deletions["deleted"], deletions["unknown"]) == ("", "")
    assert "the compute service still has the server" in deletions["there"]
    assert "it answered 403 to a request for servers of all projects" in deletions["by its user"]


def test_servers_are_found_by_name(outcome: Outcome) -> None:
    told = outcome.results["names"]
    odd, twin = told["made"]
    assert told["odd"] == [odd]
    assert told["twins"] == sorted([twin, outcome.instance_id("shelve")])
    assert told["nobody"] == told["stranger"] == []


def test_the_names_of_servers_are_listed_in_pages(outcome: Outcome) -> None:
    pages = outcome.results["names"]["pages"]
    assert len(pages["own"]) > 1
    assert set(pages["own"][:-1]) == {3}
    assert sum(pages["own"]) <= sum(pages["all"])
    assert pages["stranger"] == pages["refused"] == [0]


def test_the_rotation_of_nova_deletes_wrong_backups(outcome: Outcome) -> None:
    assert outcome.results["rotation"]["passing"] == {
        "before": BACKUPS,
        "after": ["of another server", "never uploaded", "backup 4"],
    }


@pytest.mark.parametrize("name", ["verified", "unaccompanied"])
def test_verified_rotation_deletes_only_the_oldest_backup(outcome: Outcome, name: str) -> None:
    assert outcome.results["rotation"][name] == {
        "before": BACKUPS,
        "after": [*BACKUPS[1:], "backup 4"],
    }


def test_without_the_filter_snapshots_work_and_one_warning_is_logged(outcome: Outcome) -> None:
    plain = outcome.results["plain"]
    assert plain["made"] == ["active", "active"]
    assert plain["log"].count("does not confirm that it recorded") == 1


def test_nothing_is_left_over_while_the_database_is_unavailable(outcome: Outcome) -> None:
    down = outcome.results["down"]
    assert down["images"] == ["base"]
    assert down["states"] == ["active", "active"]
    # Nova sets this state before the request to Glance and does not reset it; see docs/nova.md
    assert down["shelved"] == [["active", "shelving"], ["active", None]]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("createImage", "the database cannot be used now"),
        ("createBackup", "the database cannot be used now"),
        ("createImage of volumes", "The image service cannot record the image now"),
        ("shelve", "the database cannot be used now"),
    ],
)
def test_nova_shows_the_message_while_the_database_is_unavailable(
    outcome: Outcome, action: str, said: str
) -> None:
    status, message, retry_after = outcome.results["down"]["refused"][action]
    assert (status, retry_after) == (503, "1")
    assert message.startswith(said)


def test_nova_shows_the_message_without_a_service_token(outcome: Outcome) -> None:
    status, message, _ = outcome.results["refused"]["without a service token"]
    assert status == 403
    assert "one of these roles is needed" in message


@pytest.mark.parametrize("status", [400, 403, 409, 413, 503])
def test_nova_passes_on_every_refusal_of_the_filter(outcome: Outcome, status: int) -> None:
    answered, message, retry_after = outcome.results["refused"][f"filter {status}"]
    assert answered == status
    assert "What was wrong and what to do." in message
    assert retry_after == (None if status in (400, 403) else "1")


@pytest.mark.parametrize("status", [400, 403, 409, 413, 503])
def test_the_openstack_command_shows_every_refusal(outcome: Outcome, status: int) -> None:
    code, errors = outcome.results["shown"][f"filter {status}"]
    assert code == 1
    assert "What was wrong and what to do." in errors


@pytest.mark.parametrize(("status", "answered"), [(400, 400), (403, 403), (409, 500), (503, 500)])
def test_nova_handles_other_refusals_as_without_the_filter(
    outcome: Outcome, status: int, answered: int
) -> None:
    status_of_nova, message, _ = outcome.results["refused"][f"proxy {status}"]
    assert status_of_nova == answered
    assert ("Unexpected API Error" in message) == (answered == 500)


def test_servers_started_from_images_are_reported(outcome: Outcome) -> None:
    base, other = outcome.results["starts"]["images"]
    both = {(base, "service"), (other, "service")}
    assert outcome.started("image") == both
    # Nova refuses another image for a root volume
    assert outcome.started("image into a volume") == {(base, "service")}
    assert outcome.started("root volume") == set()


def test_the_root_volume_of_a_server_is_reported(outcome: Outcome) -> None:
    server = outcome.results["starts"]["servers"]["root volume"]
    (origin,) = outcome.get(f"/v2/origins?instance_id={server}")["origins"]
    assert (origin["installation_uuid"], origin["resource_type"]) == (NOVA, "server")
    assert (origin["source"]["installation_uuid"], origin["project_id"]) == (CINDER, "demo")
    assert origin["source"]["resource_type"] == "volume"
    for name in ("image", "image into a volume"):
        server = outcome.results["starts"]["servers"][name]
        assert outcome.get(f"/v2/origins?instance_id={server}")["origins"] == []


def test_several_servers_of_one_request_are_reported_together(outcome: Outcome) -> None:
    assert outcome.results["starts"]["many"] == [["/relations", 3]]


@pytest.mark.parametrize("name", ["unacceptable", "no host"])
def test_a_server_that_could_not_be_built_does_not_use_its_image(
    outcome: Outcome, sqlite_url: str, name: str
) -> None:
    schema.upgrade(make_url(sqlite_url))
    database = Database(sqlite_url, 20)
    base = outcome.results["starts"]["images"][0]
    assert outcome.started(name) == {(base, "service")}
    server_id = outcome.results["starts"]["servers"][name]
    notifications = [
        {"timestamp": "2026-01-31 12:00:00.000000", **sent}
        for sent in outcome.results["notifications"]
    ]
    store(database, [event for sent in notifications if (event := read(NOVA, sent)) is not None])
    (found,) = database.read(instances._find, Filters(NOVA, server_id), 1)
    assert (found.project_id, found.ended_at is not None) == ("demo", True)


@pytest.mark.parametrize("name", ["being deleted", "not found"])
def test_a_server_is_not_created_from_an_image_that_is_being_deleted(
    outcome: Outcome, name: str
) -> None:
    (status, message, _), log = outcome.results["refused starts"][name]
    assert (status, message) == (400, "Can not find requested image")
    assert "is not reported" not in log
    assert name not in outcome.results["refused starts"]["names"]


@pytest.mark.parametrize("name", ["silent", "unavailable"])
def test_a_server_is_created_although_its_start_is_not_reported(
    outcome: Outcome, name: str
) -> None:
    refused, log = outcome.results["refused starts"][name]
    assert refused is None
    assert log.count("the start of a server is not reported") == 1
    assert name in outcome.results["refused starts"]["names"]
