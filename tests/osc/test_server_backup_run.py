"""``server backup run`` with a real Glance and a scripted Nova. tests/cloud has the real Nova."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import filling
from benchmarks.backups import Served, run_phases
from related_images.client.backups import run as backup_run
from related_images.osc.monitoring import UNKNOWN
from related_images.osc.server_backup_run import RunServerBackup
from tests.client.scripted import Reply, shown
from tests.osc.aging import age
from tests.osc.compute import Compute
from tests.osc.running import Cloud, Instance, Outcome
from tests.osc.test_server_backup import backups, status

pytestmark = pytest.mark.slow

DAILY = ("--label", "daily", "--older-than", "20h", "--keep-last", "1")


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_run, "PAUSE", 0.01)


@pytest.fixture
def compute_url(nova: Compute) -> str:
    return nova.url


def run(cloud: Cloud, *arguments: str) -> tuple[Outcome, dict[str, dict[str, Any]]]:
    """Run the command; return its result, and its lines of JSON by server ID."""
    outcome = cloud.run(RunServerBackup, *arguments)
    rows = map(json.loads, outcome.said.splitlines())
    return outcome, {row["server_id"]: row for row in rows}


def make_images(nova: Compute, *instances: Instance, kind: str = "backup") -> None:
    """Let Nova make and upload the images that are requested."""
    known = {instance.id: instance for instance in instances}

    def make(server_id: str, metadata: dict[str, str]) -> str:
        assert metadata["relation_kind"] == "backup"
        labels = {"label": metadata["relation_label"]} if kind == "backup" else {}
        instance = known[server_id]
        return instance.fill(instance.image("new", kind=kind, **labels))

    nova.make_image = make


def test_a_server_is_backed_up_and_then_pruned(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    new, fresh = instance.another(), instance.another()
    one, two = backups(instance, "1", "2")
    (recent,) = backups(fresh, "3")
    age(instance, {one: 1, two: 2, recent: 0.5})
    for each in (instance, new, fresh):
        nova.add(each.id, each.project)
    make_images(nova, instance, new)
    outcome, rows = run(recorder, *DAILY)
    assert (outcome.code, outcome.errors) == (0, "")
    states = {id: row["state"] for id, row in rows.items()}
    assert states == {instance.id: "backed up", new.id: "backed up", fresh.id: "not due"}
    assert set(rows[instance.id]["deleted"]) == {one, two}
    assert [status(instance, id) for id in (one, two)] == [404, 404]
    assert status(instance, rows[instance.id]["image_id"]) == status(instance, recent) == 200


def test_a_dry_run_changes_nothing(instance: Instance, recorder: Cloud, nova: Compute) -> None:
    other = instance.another()
    one, two = backups(instance, "1", "2")
    (recent,) = backups(other, "3")
    age(instance, {one: 1, two: 2, recent: 0.5})
    nova.add(instance.id, instance.project)
    nova.add(other.id, other.project)
    outcome, rows = run(recorder, *DAILY, "--dry-run")
    assert outcome.code == 0
    assert (rows[instance.id]["state"], rows[instance.id]["to_delete"]) == ("due", [two])
    due = rows[other.id]
    assert (due["state"], due["to_delete"]) == ("not due", [])
    assert due["newest_backup"] < due["next_due"]
    assert status(instance, two) == 200


def test_nothing_is_deleted_of_a_server_without_a_new_backup(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    refused, shelved, unfinished = (instance.another() for _ in range(3))
    known = {}
    for each in (instance, refused, shelved, unfinished):
        known.update(dict.fromkeys(backups(each, "1", "2"), 1.5))
        nova.add(each.id, each.project, status="SHELVED" if each is shelved else "ACTIVE")
    age(instance, known)
    queued = unfinished.image("queued", kind="backup", label="daily")

    def make(server_id: str, metadata: dict[str, str]) -> str | Reply:
        if server_id == refused.id:
            return shown({"conflictingRequest": {"code": 409, "message": "it is resized"}}, 409)
        image_id = instance.image("lost", kind="backup", label="daily")
        path = f"/v2/images/{image_id}"
        assert instance.glance.request("DELETE", path, instance.member).status == 204
        return image_id

    nova.make_image = make
    outcome, rows = run(recorder, *DAILY)
    assert outcome.code == 1
    assert {id: (row["state"], row["deleted"]) for id, row in rows.items()} == {
        instance.id: ("failed", []),
        refused.id: ("skipped", []),
        shelved.id: ("skipped", []),
        unfinished.id: ("skipped", []),
    }
    assert "Nova could not finish it" in rows[instance.id]["reason"]
    assert "it is resized" in rows[refused.id]["reason"]
    assert "status SHELVED" in rows[shelved.id]["reason"]
    assert f"its backup {queued} is not finished" == rows[unfinished.id]["reason"]
    assert {status(instance, id) for id in known} == {200}


def test_without_the_filter_in_nova_api_only_one_image_is_made(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    known = [instance, *(instance.another() for _ in range(3))]
    for each in known:
        nova.add(each.id, each.project)
    make_images(nova, *known, kind="snapshot")
    outcome, rows = run(recorder, *DAILY)
    assert outcome.code == 2
    reasons = Counter(row["reason"][:30] for row in rows.values())
    assert sorted(reasons.values()) == [1, 3]
    assert outcome.errors.count("is not recorded as a backup") == 1


def test_each_server_has_its_own_policy(instance: Instance, recorder: Cloud, nova: Compute) -> None:
    often, wrong, bare = (instance.another() for _ in range(3))
    known = {id: 0.2 for each in (instance, often) for id in backups(each, "1", "2")}
    age(instance, known)
    nova.add(instance.id, instance.project, {"older_than": "20h", "keep_last": 1})
    nova.add(often.id, instance.project, {"older_than": "1h", "keep_last": 2})
    nova.add(wrong.id, instance.project, {"older": "1h"})
    nova.add(bare.id, instance.project)
    make_images(nova, often)
    outcome, rows = run(recorder, "--label", "daily", "--policy", "stored")
    assert outcome.code == UNKNOWN
    assert "the policy of server" in outcome.errors
    assert {id: (row["state"], len(row["deleted"])) for id, row in rows.items()} == {
        instance.id: ("not due", 1),
        often.id: ("backed up", 1),
        wrong.id: ("not due", 0),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-last", "1"), "give --older-than, or --policy stored"),
        (("--older-than", "1h"), "the policy has no rule"),
        (("--policy", "stored", "--older-than", "1h"), "omit --older-than and --critical"),
        (("--older-than", "1h", "--keep-last", "1"), "no server is in the scope of the run"),
    ],
)
def test_wrong_arguments_exit_with_3(
    recorder: Cloud, nova: Compute, arguments: tuple[str, ...], message: str
) -> None:
    outcome, _ = run(recorder, "--label", "daily", *arguments)
    assert outcome.code == UNKNOWN
    assert message in outcome.errors


def test_requests_grow_with_pages_and_with_due_servers(tmp_path: Path) -> None:
    """A run over 1,000 servers, of which 20 are due, and of which each has 14 backups."""
    due, cloud = 20, filling.Cloud(14_000, 14)
    with Served(tmp_path / "glance", cloud) as glance:
        phases = run_phases(glance, cloud, due)
    sent = {name: phase.sent for name, phase in phases.items()}
    made = sent["back up"]
    asked = [number for name, number in made.items() if name.endswith("/action")]
    assert asked == [1] * due
    assert made.total() == due + made["GET /v2/relations"] + made["GET /v2/images"]
    assert sent["find"].total() <= 10
    assert sent["decide"].total() <= 50
    assert sent["delete"].total() <= 9 * due
