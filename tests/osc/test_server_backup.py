"""``server backup overdue`` and ``server backup prune`` with a real Glance."""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from keystoneauth1.exceptions import ConnectFailure
from osc_lib.exceptions import CommandError

from related_images.client import RelationsClient
from related_images.client.backups import Inventory
from related_images.client.backups.stored_policy import count
from related_images.client.errors import PolicyEmpty, ServiceUnavailable
from related_images.errors import ParameterMalformed
from related_images.osc import resolve
from related_images.osc.server_backup_overdue import OverdueServerBackup
from related_images.osc.server_backup_prune import PruneServerBackup
from related_images.validation import parse_span
from tests.osc.aging import age
from tests.osc.running import Cloud, Instance
from tests.servers import Answer, ServedGlance

pytestmark = pytest.mark.slow

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def backups(instance: Instance, *names: str, label: str = "daily") -> list[str]:
    """Create active backups, and return them newest first; in one second, sorted by ID."""
    made = [instance.fill(instance.image(name, kind="backup", label=label)) for name in names]
    return sorted(made, key=lambda id: (seen(instance, id).json["created_at"], id), reverse=True)


def seen(instance: Instance, image_id: str) -> Answer:
    return instance.glance.request("GET", f"/v2/images/{image_id}", instance.member)


def change(instance: Instance, image_id: str, name: str, value: Any) -> None:
    change = f'[{{"op": "replace", "path": "/{name}", "value": {json.dumps(value)}}}]'
    path = f"/v2/images/{image_id}"
    answer = instance.glance.request("PATCH", path, instance.member, PATCH, change.encode())
    assert answer.status == 200, answer.body


def relate(instance: Instance, image_id: str, kind: str, **more: str) -> None:
    body = {
        "installation_uuid": instance.installation,
        "instance_id": instance.id,
        "image_id": image_id,
        "kind": kind,
        **more,
    }
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
    assert answer.status == 201, answer.body


def status(instance: Instance, image_id: str) -> int:
    return seen(instance, image_id).status


def actions(outcome: Any) -> dict[str, tuple[str, str]]:
    return {row["Image ID"]: (row["Action"], row["Reasons"]) for row in outcome.rows}


def prune(cloud: Cloud, *arguments: str) -> Any:
    return cloud.listed(PruneServerBackup, *arguments)


def test_backups_that_no_rule_keeps_are_deleted(instance: Instance, member: Cloud) -> None:
    one, two, three = backups(instance, "1", "2", "3")
    other = backups(instance, "w", label="weekly")[0]
    outcome = prune(member, "--keep-last", "2", instance.id)
    assert outcome.code == 0
    assert actions(outcome) == {
        one: ("keep", "last"),
        two: ("keep", "last"),
        three: ("removed", "no rule keeps it"),
        other: ("keep", "last"),
    }
    assert [status(instance, id) for id in (one, two, three)] == [200, 200, 404]


def test_a_dry_run_shows_the_same_and_deletes_nothing(instance: Instance, member: Cloud) -> None:
    one, two = backups(instance, "1", "2")
    outcome = prune(member, "--keep-last", "1", "--dry-run", instance.id)
    assert actions(outcome) == {one: ("keep", "last"), two: ("remove", "no rule keeps it")}
    assert status(instance, two) == 200


def test_images_that_the_rules_do_not_apply_to_are_kept(
    instance: Instance, recorder: Cloud
) -> None:
    one, two, three, hidden, protected, used = backups(instance, *"123456")
    change(instance, hidden, "os_hidden", True)
    change(instance, protected, "protected", True)
    unfinished = instance.image("queued", kind="backup", label="daily")
    snapshot = instance.fill(instance.image("snapshot"))
    relate(instance.another(), used, "boot")
    outcome = prune(recorder, "--keep-daily", "1", instance.id)
    assert actions(outcome) == {
        one: ("keep", "daily"),
        two: ("removed", "no rule keeps it"),
        three: ("removed", "no rule keeps it"),
        hidden: ("keep", "hidden"),
        protected: ("keep", "protected"),
        used: ("keep", "in use"),
        unfinished: ("keep", "not finished: queued"),
    }
    assert status(instance, snapshot) == 200
    again = prune(recorder, "--keep-daily", "1", instance.id)
    assert {action for action, _ in actions(again).values()} == {"keep"}


def test_the_image_of_a_shelved_server_is_not_deleted(instance: Instance, member: Cloud) -> None:
    """Not even if it is recorded as a backup too, or has the label."""
    *_, both = backups(instance, "1", "2", "3")
    image_id = instance.fill(instance.image("shelved", kind="shelved", label="daily"))
    relate(instance, both, "shelved")
    outcome = prune(member, "--keep-last", "1", instance.id)
    found = actions(outcome)
    assert image_id not in found
    assert found[both] == ("keep", "in use")
    assert [action for action, _ in found.values()].count("removed") == 1
    assert (status(instance, image_id), status(instance, both)) == (200, 200)
    end = f"/v2/instances/{instance.installation}/{instance.id}"
    assert instance.glance.request("DELETE", end, instance.recorder).status == 204
    prune(member, "--keep-last", "1", "--orphans", instance.id)
    assert status(instance, image_id) == 200


@pytest.mark.parametrize("kind", ["backup", "snapshot"])
def test_a_backup_of_two_servers_is_kept_and_not_counted(
    instance: Instance, member: Cloud, kind: str
) -> None:
    one, two, three = backups(instance, "1", "2", "3")
    relate(instance.another(), one, kind)
    expected = {
        one: ("keep", "also made from another server"),
        two: ("keep", "last"),
        three: ("remove", "no rule keeps it"),
    }
    assert actions(prune(member, "--keep-last", "1", "--dry-run", instance.id)) == expected
    expected[three] = ("removed", "no rule keeps it")
    assert actions(prune(member, "--keep-last", "1", instance.id)) == expected
    assert [status(instance, id) for id in (one, two, three)] == [200, 200, 404]


def test_a_backup_that_one_server_keeps_is_not_deleted_for_another(
    instance: Instance, recorder: Cloud
) -> None:
    other = instance.another()
    (only,), (own,) = backups(instance, "1"), backups(other, "2", label="weekly")
    relate(other, only, "backup", label="weekly")
    scope = ("--keep-last", "1", "--project", instance.project)
    outcome = prune(recorder, *scope)
    assert outcome.code == 0
    assert sorted(outcome.column("Image ID")) == sorted([only, only, own])
    assert outcome.column("Action") == ["keep"] * 3
    assert [status(instance, id) for id in (only, own)] == [200, 200]


def start_elsewhere(instance: Instance, image_id: str) -> None:
    """Record that a server of another project was started from the image."""
    relate(instance.another(), image_id, "boot", instance_project_id=f"not-{instance.project}")


def test_a_backup_that_another_project_uses_is_kept(instance: Instance, member: Cloud) -> None:
    one, two, three = backups(instance, "1", "2", "3")
    start_elsewhere(instance, two)
    for dry_run, action in ((["--dry-run"], "remove"), ([], "removed")):
        assert actions(prune(member, "--keep-last", "1", *dry_run, instance.id)) == {
            one: ("keep", "last"),
            two: ("keep", "in use by another project"),
            three: (action, "no rule keeps it"),
        }
    assert [status(instance, id) for id in (one, two, three)] == [200, 200, 404]


def test_a_backup_whose_use_is_unknown_is_kept(
    instance: Instance, member: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Act as a Glance that does not return the owner of the image."""
    made, real = backups(instance, "1", "2"), RelationsClient.usages
    monkeypatch.setattr(
        RelationsClient,
        "usages",
        lambda *given: (replace(usage, used_by_others=None) for usage in real(*given)),
    )
    outcome = prune(member, "--keep-last", "1", instance.id)
    assert actions(outcome) == dict.fromkeys(made, ("keep", "use unknown"))
    assert [status(instance, id) for id in made] == [200, 200]


@pytest.mark.parametrize("is_own", [True, False])
def test_a_server_started_during_the_run_stops_the_deletion(
    instance: Instance, member: Cloud, monkeypatch: pytest.MonkeyPatch, is_own: bool
) -> None:
    one, two = backups(instance, "1", "2")
    looked, real = list[int](), Inventory.backups

    def looking(*given: Any) -> Any:
        """Start a server after the second check of the group."""
        found = real(*given)
        looked.append(1)
        if len(looked) == 2:
            whose = instance.project if is_own else "another"
            relate(instance.another(), two, "boot", instance_project_id=whose)
        return found

    monkeypatch.setattr(Inventory, "backups", looking)
    outcome = prune(member, "--keep-last", "1", instance.id)
    assert (outcome.code, len(looked)) == (1, 2)
    assert [actions(outcome)[id][0] for id in (one, two)] == ["keep", "stopped"]
    assert status(instance, two) == 200


def test_a_deletion_that_delete_protection_refuses_is_a_failure(
    instance: Instance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ServedGlance(tmp_path, {"guard": "in-use"}) as glance:
        guarded = replace(instance, glance=glance)
        one, two, three = backups(guarded, "1", "2", "3")
        real = Inventory.is_unchanged

        def starting(inventory: Inventory, backup: Any) -> bool:
            """Another project starts a server from it between the check and the deletion."""
            found = real(inventory, backup)
            if backup.image_id == three:
                start_elsewhere(guarded, three)
            return found

        monkeypatch.setattr(Inventory, "is_unchanged", starting)
        outcome = prune(Cloud(glance.url, guarded.member), "--keep-last", "1", instance.id)
        assert outcome.code == 1
        found = [actions(outcome)[id][0] for id in (one, two, three)]
        assert found == ["keep", "removed", "failed"]
        assert "answered 409" in caplog.text
        assert "live resources of other projects" in caplog.text
        assert "not removed: 1" in outcome.errors
        assert status(guarded, three) == 200


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("more", [[], ["--keep-last", "1"], ["--keep-label", "daily"]])
def test_with_an_unknown_label_no_backup_is_deleted(
    instance: Instance, recorder: Cloud, more: list[str], dry_run: bool
) -> None:
    made = backups(instance, "1", "2") + backups(instance.another(), "1", "2", label="weekly")
    asked = ["--keep-label", "dialy", *more, "--project", instance.project]
    outcome = prune(recorder, *asked, *["--dry-run"] * dry_run)
    assert outcome.code == 1
    assert {action for action, _ in actions(outcome).values()} == {"keep"}
    assert "a rule keeps the label dialy, which no backup has" in outcome.errors
    assert "labels of their backups: daily, weekly" in outcome.errors
    assert [status(instance, id) for id in made] == [200] * 4


def test_the_backups_of_one_server_with_the_label_are_sufficient(
    instance: Instance, recorder: Cloud
) -> None:
    made = backups(instance, "1", "2")
    kept = backups(instance.another(), "1", "2", label="weekly")
    rules = ("--keep-last", "1", "--keep-label", "weekly")
    outcome = prune(recorder, *rules, "--project", instance.project)
    assert (outcome.code, outcome.errors) == (0, "")
    assert [status(instance, id) for id in (*made, *kept)] == [200, 404, 200, 200]


@pytest.mark.parametrize("name", ["--label", "--installation"])
def test_filters_that_match_no_backup_are_a_failure(
    instance: Instance, recorder: Cloud, name: str
) -> None:
    backups(instance, "1", "2")
    value = "dialy" if name == "--label" else str(uuid4())
    scopes: list[tuple[str, ...]] = [("--project", instance.project)]
    scopes += [(instance.id,)] if name == "--label" else []
    for scope in scopes:
        outcome = prune(recorder, "--keep-last", "1", name, value, *scope)
        assert (outcome.code, outcome.rows) == (1, [])
        labels = "daily" if name == "--label" else "none"
        assert outcome.errors == (
            f"no backup matches {name} {value}; labels of the newest backups without --label: "
            f"{labels}"
        )
    nobody = f"{instance.project}-empty"
    assert prune(recorder, "--keep-last", "1", "--project", nobody).code == 0
    outcome = prune(recorder, "--keep-label", "dialy", "--project", nobody)
    assert outcome.code == 1
    assert "a rule keeps the label dialy, which no backup has" in outcome.errors


@pytest.fixture
def owners(instance: Instance) -> tuple[Instance, Instance]:
    """The server with images of its project, and with images of an administrator's project."""
    return instance, replace(instance, project=f"ops-{instance.project}")


def test_with_a_project_only_its_own_backups_are_counted_and_deleted(
    owners: tuple[Instance, Instance],
) -> None:
    instance, ops = owners
    made, (newer, older) = backups(instance, "1", "2", "3"), backups(ops, "4", "5")
    administrator = Cloud(instance.glance.url, f"root:{ops.project}:admin")
    outcome = prune(administrator, "--keep-last", "1", "--project", ops.project)
    assert actions(outcome) == {
        **dict.fromkeys(made, ("keep", "it belongs to another project")),
        newer: ("keep", "last"),
        older: ("removed", "no rule keeps it"),
    }
    assert [status(instance, id) for id in made] == [200] * 3
    shown = dict(zip(outcome.column("Image ID"), outcome.column("Project ID"), strict=True))
    assert shown == dict.fromkeys(made, instance.project) | {newer: ops.project, older: ops.project}


def test_backups_of_deleted_servers_are_deleted_with_orphans_only(
    instance: Instance, recorder: Cloud
) -> None:
    one, two = backups(instance, "1", "2")
    path = f"/v2/instances/{instance.installation}/{instance.id}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    scope = ("--keep-last", "1", "--project", instance.project)
    kept = ("keep", "the server was deleted")
    assert actions(prune(recorder, *scope)) == {one: kept, two: kept}
    outcome = prune(recorder, *scope, "--orphans")
    assert actions(outcome) == {one: ("keep", "last"), two: ("removed", "no rule keeps it")}


def test_a_group_that_changed_during_the_run_is_kept(
    instance: Instance,
    member: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two, three = backups(instance, "1", "2", "3")
    looked, real = list[int](), Inventory.backups

    def looking(*given: Any) -> Any:
        if looked:
            change(instance, one, "protected", True)
        looked.append(1)
        return real(*given)

    monkeypatch.setattr(Inventory, "backups", looking)
    outcome = prune(member, "--keep-last", "1", instance.id)
    assert outcome.code == 1
    assert [actions(outcome)[id][0] for id in (one, two, three)] == ["keep", "stopped", "stopped"]
    assert "run the command again" in caplog.text
    assert status(instance, three) == 200


def test_after_a_failure_for_one_server_the_others_are_pruned(
    instance: Instance,
    recorder: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = instance.another()
    made = {it.id: backups(it, "1", "2") for it in (instance, other)}
    real = Inventory.backups

    def failing(inventory: Inventory, asked: Any, label: Any) -> Any:
        if asked.instance.instance_id == other.id:
            raise ServiceUnavailable("GET /v2/relations", "too busy", status=503)
        return real(inventory, asked, label)

    monkeypatch.setattr(Inventory, "backups", failing)
    outcome = prune(recorder, "--keep-last", "1", "--project", instance.project)
    assert outcome.code == 1
    assert f"{other.id}: GET /v2/relations answered 503" in caplog.text
    assert [status(instance, id) for id in made[instance.id]] == [200, 404]
    assert [status(instance, id) for id in made[other.id]] == [200, 200]


def test_after_a_failed_deletion_the_others_are_deleted(
    instance: Instance,
    member: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two, three = backups(instance, "1", "2", "3")
    real = Inventory.is_unchanged

    def protecting(inventory: Inventory, backup: Any) -> bool:
        """If the image is protected before the deletion, Glance refuses to delete it."""
        found = real(inventory, backup)
        if backup.image_id == three:
            change(instance, three, "protected", True)
        return found

    monkeypatch.setattr(Inventory, "is_unchanged", protecting)
    outcome = prune(member, "--keep-last", "1", instance.id)
    assert outcome.code == 1
    assert [actions(outcome)[id][0] for id in (one, two, three)] == ["keep", "removed", "failed"]
    assert f"{three} is protected" in caplog.text
    assert "not removed: 1" in outcome.errors


def test_a_policy_and_a_scope_are_needed(instance: Instance, member: Cloud) -> None:
    backups(instance, "1")
    with pytest.raises(PolicyEmpty):
        prune(member, instance.id)
    with pytest.raises(CommandError, match="--all-projects"):
        prune(member, "--keep-last", "1")
    with pytest.raises(CommandError, match="--all-projects"):
        prune(member, "--keep-last", "1", "--all-projects", instance.id)


def test_a_progress_bar_is_shown_on_a_terminal(instance: Instance, member: Cloud) -> None:
    arguments = ("server", "backup", "prune", "--keep-last", "1", instance.id)
    backups(instance, "1", "2", "3")
    code, seen = member.at_a_terminal(*arguments)
    assert code == 0
    assert "0/2" in seen
    assert "100%" in seen
    assert "2/2" in seen
    code, seen = member.at_a_terminal(*arguments)  # there is nothing to delete
    assert code == 0
    assert "backup/s" not in seen
    backups(instance, "4")
    outcome = member.openstack(*arguments)
    assert (outcome.code, outcome.errors) == (0, "")


def overdue(cloud: Cloud, *arguments: str) -> Any:
    return cloud.listed(OverdueServerBackup, *arguments)


def states(outcome: Any) -> dict[str, tuple[str, Any]]:
    return {row["Server ID"]: (row["State"], row["Newest Backup"]) for row in outcome.rows}


def test_an_instance_with_a_recent_backup_is_not_overdue(instance: Instance, member: Cloud) -> None:
    backups(instance, "1")
    outcome = overdue(member, "--older-than", "1h", "--label", "daily")
    assert (outcome.code, outcome.rows) == (0, [])
    outcome = overdue(member, "--older-than", "1h", "--label", "weekly")
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("critical", None)})


def test_an_old_backup_is_a_warning_and_an_older_one_is_critical(
    instance: Instance, member: Cloud
) -> None:
    newest = backups(instance, "1")[0]
    outcome = overdue(member, "--older-than", "0h")
    assert (outcome.code, states(outcome)) == (1, {instance.id: ("warning", newest)})
    assert outcome.rows[0]["Age"] == "0d"
    outcome = overdue(member, "--older-than", "0h", "--critical", "0h")
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("critical", newest)})


def test_an_unfinished_backup_does_not_count(instance: Instance, member: Cloud) -> None:
    instance.image("queued", kind="backup", label="daily")
    outcome = overdue(member, "--older-than", "1h")
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("critical", None)})


def test_a_server_with_only_a_boot_relation_is_overdue(instance: Instance, recorder: Cloud) -> None:
    other = instance.another()
    image_id = backups(instance, "1")[0]
    relate(other, image_id, "boot", instance_project_id=instance.project)
    outcome = overdue(recorder, "--older-than", "1h", "--project", instance.project)
    assert states(outcome) == {other.id: ("critical", None)}
    path = f"/v2/instances/{instance.installation}/{other.id}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    assert overdue(recorder, "--older-than", "1h", "--project", instance.project).code == 0


def test_hidden_and_community_backups_count(instance: Instance, member: Cloud) -> None:
    public, hidden = instance, instance.another()
    (community,), (unseen,) = backups(public, "1"), backups(hidden, "2")
    change(public, community, "visibility", "community")
    change(hidden, unseen, "os_hidden", True)
    expected = {public.id: ("warning", community), hidden.id: ("warning", unseen)}
    foreign = Cloud(instance.glance.url, "root:administration:admin")
    for cloud, scope in ((member, ()), (foreign, ("--project", instance.project))):
        assert overdue(cloud, "--older-than", "1h", *scope).rows == []
        assert states(overdue(cloud, "--older-than", "0h", *scope)) == expected


def test_backups_of_other_projects_do_not_count(instance: Instance) -> None:
    other = instance.another()
    instance.image("queued", kind="backup", label="daily")
    relate(other, backups(instance.another(), "1")[0], "snapshot")
    for one in (instance, other):
        backups(replace(one, project="administration"), "2")
    scope = ("--older-than", "1h", "--project", instance.project)
    foreign = Cloud(instance.glance.url, "root:administration:admin")
    outcome = overdue(foreign, *scope)
    assert states(outcome) == dict.fromkeys((instance.id, other.id), ("critical", None))


def test_a_backup_dated_in_the_future_is_critical(instance: Instance, member: Cloud) -> None:
    newest, older, oldest = backups(instance, "1", "2", "3")
    age(instance, {newest: -400, older: 3, oldest: 4})
    administrator = Cloud(instance.glance.url, "root:administration:admin")
    scopes = [(member, ()), (member, ("--label", "daily"))]
    scopes += [(administrator, ("--installation", instance.installation))]
    for cloud, scope in scopes:
        for older_than in ("26h", "4000d"):
            outcome = overdue(cloud, "--older-than", older_than, *scope)
            if older_than == "4000d":  # an older backup is recent enough
                assert (outcome.code, outcome.rows) == (0, [])
            else:
                assert (outcome.code, states(outcome)) == (2, {instance.id: ("future", newest)})
                assert outcome.rows[0]["Age"] is None
    backups(instance, "4")
    for cloud, scope in scopes:
        assert overdue(cloud, "--older-than", "26h", *scope).code == 0


def test_another_image_with_the_id_of_a_backup_does_not_count(
    instance: Instance, member: Cloud
) -> None:
    (only,) = backups(instance, "1")
    assert overdue(member, "--older-than", "1h").code == 0
    instance.glance.purge(only)
    (instance.glance.directory / "images" / only).unlink()
    time.sleep(1.1)  # Glance returns times of images in whole seconds
    other = replace(instance, project=f"{instance.project}-other")
    body = {"id": only, "name": "n", "visibility": "community"}
    body |= {"disk_format": "raw", "container_format": "bare"}
    assert instance.glance.request("POST", "/v2/images", other.member, {}, body).status == 201
    other.fill(only)
    outcome = overdue(member, "--older-than", "1h")
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("critical", None)})


def test_a_small_difference_of_clocks_is_accepted(instance: Instance, member: Cloud) -> None:
    (only,) = backups(instance, "1")
    minute = 1 / 24 / 60
    age(instance, {only: -4 * minute})
    outcome = overdue(member, "--older-than", "1h")
    assert (outcome.code, outcome.rows) == (0, [])
    age(instance, {only: -7 * minute})
    outcome = overdue(member, "--older-than", "1h")
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("future", only)})


def test_an_image_dated_in_the_future_does_not_hide_the_server_in_the_api(
    instance: Instance,
) -> None:
    (only,) = backups(instance, "1")
    age(instance, {only: -400})
    path = f"/v2/instances?installation_uuid={instance.installation}&kind=backup"
    for token in (instance.member, instance.recorder):
        for more in ("", "&label=daily"):
            asked = f"{path}{more}&latest_before=2020-01-01"
            rows = instance.glance.request("GET", asked, token).json["instances"]
            assert [row["instance_id"] for row in rows] == [instance.id]


@pytest.mark.parametrize("name", ["--installation", "--project"])
def test_a_check_of_no_server_exits_with_3(instance: Instance, recorder: Cloud, name: str) -> None:
    backups(instance, "1")
    unknown = str(uuid4())
    outcome = overdue(recorder, "--older-than", "1h", name, unknown)
    assert (outcome.code, outcome.rows) == (3, [])
    assert "nothing was examined: no live server is recorded" in outcome.errors
    assert unknown in outcome.errors
    assert overdue(recorder, "--older-than", "1h", "--project", instance.project).code == 0
    path = f"/v2/instances/{instance.installation}/{instance.id}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    assert overdue(recorder, "--older-than", "1h", "--project", instance.project).code == 3


def test_an_empty_cloud_exits_with_3(tmp_path: Path) -> None:
    with ServedGlance(tmp_path) as glance:
        empty = Cloud(glance.url, "root:administration:admin")
        outcome = overdue(empty, "--older-than", "1h", "--all-projects")
        assert (outcome.code, outcome.rows) == (3, [])
        assert "no live server is recorded for all projects" in outcome.errors


def test_a_failure_exits_with_3() -> None:
    assert (
        Cloud("http://127.0.0.1:9", "a:b:c").run(OverdueServerBackup, "--older-than=1h").code == 3
    )


@pytest.mark.parametrize(
    "error", [ConnectFailure("nobody answers"), OSError("no such bundle"), ValueError("not JSON")]
)
def test_a_project_that_cannot_be_looked_up_exits_with_3(
    member: Cloud, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*given: Any) -> str:
        raise error

    monkeypatch.setattr(resolve, "project_in_scope", failing)
    outcome = overdue(member, "--older-than", "1h")
    assert (outcome.code, outcome.said, outcome.errors) == (3, "", str(error))


@pytest.mark.parametrize(
    ("text", "hours"), [("26h", 26), ("7d", 168), ("2w", 336), ("1d12h", 36), ("0h", 0)]
)
def test_spans(text: str, hours: int) -> None:
    assert parse_span(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7m", "-1d", "1d 2h", "1dh", "7306d", "999999w", "1h" * 11]
)
def test_malformed_spans(text: str) -> None:
    with pytest.raises(ParameterMalformed):
        parse_span(text)


def test_counts() -> None:
    assert [count(text) for text in ("0", "7", "unlimited", "-1")] == [0, 7, -1, -1]
    with pytest.raises(ParameterMalformed):
        count("-2")
