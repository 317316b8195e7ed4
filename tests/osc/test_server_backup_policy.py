"""``--policy stored`` of ``server backup overdue`` and ``server backup prune``."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from osc_lib.exceptions import CommandError

from related_images.client import InstallationAmbiguous
from related_images.osc.server_backup_overdue import OverdueServerBackup
from related_images.osc.server_backup_prune import PruneServerBackup
from tests.client.scripted import Scripted
from tests.osc.aging import age
from tests.osc.compute import Compute
from tests.osc.identity import Identity
from tests.osc.running import Cloud, Instance, openstack
from tests.osc.test_server_backup import actions, backups, states, status
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

STORED = ("--policy", "stored")


@pytest.fixture
def compute_url(nova: Compute) -> str:
    return nova.url


def prune(cloud: Cloud, *arguments: str) -> Any:
    return cloud.listed(PruneServerBackup, *STORED, *arguments)


def overdue(cloud: Cloud, *arguments: str) -> Any:
    return cloud.listed(OverdueServerBackup, *STORED, *arguments)


def test_each_server_has_its_own_rules(instance: Instance, recorder: Cloud, nova: Compute) -> None:
    other, bare = instance.another(), instance.another()
    one, two = backups(instance, "1", "2")
    kept = backups(other, "1", "2") + backups(bare, "1", "2")
    nova.add(instance.id, instance.project, {"keep_last": 1})
    nova.add(other.id, other.project, {"keep_daily": "unlimited", "keep_last": 2})
    nova.add(bare.id, bare.project)
    outcome = prune(recorder, "--project", instance.project)
    assert outcome.code == 0
    found = actions(outcome)
    assert found[one] == ("keep", "last")
    assert found[two] == ("removed", "no rule keeps it")
    assert [found[id][0] for id in kept] == ["keep"] * 4
    assert [found[id][1] for id in kept[2:]] == ["its server has no policy"] * 2
    assert [status(instance, id) for id in (one, two, *kept)] == [200, 404, *[200] * 4]


def test_one_server_with_its_policy(instance: Instance, member: Cloud, nova: Compute) -> None:
    one, two = backups(instance, "1", "2")
    gone = prune(member, instance.id)
    assert {reason for _, reason in actions(gone).values()} == {"its server has no policy"}
    nova.add(instance.id, instance.project, {"keep_last": 1})
    assert actions(prune(member, "--dry-run", instance.id))[two][0] == "remove"
    assert actions(prune(member, instance.id))[two][0] == "removed"
    assert status(instance, one) == 200


@pytest.mark.parametrize(
    ("policy", "reason", "complaint"),
    [
        ({"older_than": "26h"}, "has no retention rule", ""),
        ({"keep_last": 0, "older_than": "26h"}, "has no retention rule", ""),
        ({}, "an invalid policy", "the policy is empty"),
        ({"keep_last": 0}, "an invalid policy", "the policy is empty"),
        ({"keep_last": 1, "keep_all": 9}, "an invalid policy", "'keep_all' is not a key"),
        ({"keep_last": "one"}, "an invalid policy", "keep_last: 'one' is neither"),
        ({"keep_last": True}, "an invalid policy", "keep_last: True is neither"),
        ("keep_last=1", "an invalid policy", "is not JSON"),
        ("[1]", "an invalid policy", "is not a JSON object"),
    ],
)
def test_without_a_rule_no_backup_is_deleted(
    instance: Instance, member: Cloud, nova: Compute, policy: Any, reason: str, complaint: str
) -> None:
    made = backups(instance, "1", "2")
    nova.add(instance.id, instance.project, policy)
    outcome = prune(member, instance.id)
    assert outcome.code == bool(complaint)
    assert complaint in outcome.errors
    assert {action for action, _ in actions(outcome).values()} == {"keep"}
    assert all(text.endswith(reason) for _, text in actions(outcome).values())
    assert [status(instance, id) for id in made] == [200, 200]


def test_a_policy_applies_to_images_of_the_project_of_the_server(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    """Images that another project owns, such as an administrator's, are kept."""
    made = backups(instance, "1", "2")
    nova.add(instance.id, "another-project", {"keep_last": 1})
    found = actions(prune(recorder, instance.id))
    assert found == dict.fromkeys(made, ("keep", "it belongs to another project"))


def test_an_unknown_label_in_a_policy_deletes_nothing_of_these_servers(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    other = instance.another()
    made, (one, two) = backups(instance, "1", "2"), backups(other, "1", "2")
    nova.add(instance.id, instance.project, {"keep_last": 1, "keep_labels": ["dialy"]})
    nova.add(other.id, other.project, {"keep_last": 1})
    outcome = prune(recorder, "--project", instance.project)
    assert outcome.code == 1
    assert f"of this rule: {instance.id}; labels of their backups: daily" in outcome.errors
    assert "a rule keeps the label dialy, which no backup has" in outcome.errors
    assert [status(instance, id) for id in (*made, one, two)] == [200, 200, 200, 404]
    weekly = backups(instance, "3", label="dialy")
    assert prune(recorder, "--project", instance.project).code == 0
    assert [status(instance, id) for id in (*made, *weekly)] == [200, 404, 200]


def test_stored_rules_cannot_be_combined_with_options(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    nova.add(instance.id, instance.project, {"keep_last": 1})
    for more in (("--keep-last", "3"), ("--orphans",), ("--timezone", "Europe/Berlin")):
        with pytest.raises(CommandError, match="takes all rules from the policies of the servers"):
            prune(member, *more, instance.id)
    assert overdue(member, "--critical", "3d").code == 3


def test_a_compute_service_that_fails_stops_the_command(instance: Instance) -> None:
    server = replace(instance, id=str(uuid4()))
    backups(server, "1", "2")
    lost = Cloud(instance.glance.url, instance.member, "http://127.0.0.1:9/v2.1")
    with pytest.raises(
        CommandError, match="the policies of servers cannot be read from the compute service"
    ):
        prune(lost, server.id)
    assert overdue(lost).code == 3


def test_with_several_installations_one_must_be_given(
    instance: Instance, recorder: Cloud, nova: Compute
) -> None:
    two = backups(instance, "1", "2")[1]
    there = instance.elsewhere()
    kept = backups(there, "1", "2")
    nova.add(instance.id, instance.project, {"keep_last": 1, "older_than": "0h"})
    with pytest.raises(InstallationAmbiguous, match="--installation"):
        prune(recorder, "--project", instance.project)
    assert overdue(recorder, "--project", instance.project).code == 3
    scope = ("--project", instance.project, "--installation", instance.installation)
    assert actions(prune(recorder, *scope))[two][0] == "removed"
    assert overdue(recorder, *scope).column("Installation UUID") == [instance.installation]
    assert [status(instance, id) for id in kept] == [200, 200]


def test_each_server_has_its_own_ages(instance: Instance, recorder: Cloud, nova: Compute) -> None:
    late, worse, bare = instance.another(), instance.another(), instance.another()
    newest = {it.id: backups(it, "1")[0] for it in (instance, late, worse, bare)}
    age(instance, {newest[it.id]: 2.0 for it in (instance, late, worse, bare)})
    nova.add(instance.id, instance.project, {"older_than": "3d"})
    nova.add(late.id, instance.project, {"older_than": "1d", "critical": "3d", "keep_last": 3})
    nova.add(bare.id, instance.project, {"keep_last": 3})
    scope = ("--project", instance.project)
    outcome = overdue(recorder, *scope)
    assert (outcome.code, states(outcome)) == (1, {late.id: ("warning", newest[late.id])})
    nova.add(worse.id, instance.project, {"older_than": "1d", "critical": "36h"})
    outcome = overdue(recorder, *scope)
    assert outcome.code == 2
    assert states(outcome)[worse.id] == ("critical", newest[worse.id])
    assert overdue(recorder, *scope, "--label", "weekly").code == 2


def test_a_server_without_a_backup_is_overdue_at_the_age_of_its_policy(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    nova.add(instance.id, instance.project, {"older_than": "26h"}, days=1)
    assert overdue(member).rows == []
    nova.add(instance.id, instance.project, {"older_than": "26h"}, days=2)
    outcome = overdue(member)
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("critical", None)})


def test_a_check_of_no_server_exits_with_3(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    backups(instance, "1")
    outcome = overdue(member)
    assert (outcome.code, outcome.rows) == (3, [])
    assert "has a policy with older_than" in outcome.errors
    nova.add(instance.id, instance.project, {"keep_last": 1})
    assert overdue(member).code == 3
    nova.add(instance.id, instance.project, {"older_than": "26h"})
    assert overdue(member).code == 0
    young = instance.another()
    nova.add(young.id, instance.project, {"older_than": "26h"}, days=0.1)
    outcome = overdue(member, "--installation", instance.elsewhere().installation)
    assert "no server is recorded for" in outcome.errors
    assert outcome.code == 2  # the older server has no backup in this installation
    del nova.servers[instance.id]
    assert overdue(member, "--installation", instance.elsewhere().installation).code == 3


def test_a_server_in_nova_is_checked_even_if_recorded_as_deleted(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    (only,) = backups(instance, "1")
    age(instance, {only: 3})
    nova.add(instance.id, instance.project, {"older_than": "26h"})
    path = f"/v2/instances/{instance.installation}/{instance.id}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    outcome = overdue(member)
    assert (outcome.code, states(outcome)) == (1, {instance.id: ("warning", only)})


def test_a_backup_dated_in_the_future_is_critical(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    (only,) = backups(instance, "1")
    age(instance, {only: -3})
    nova.add(instance.id, instance.project, {"older_than": "26h"}, days=0.1)
    outcome = overdue(member)
    assert (outcome.code, states(outcome)) == (2, {instance.id: ("future", only)})


def test_a_malformed_policy_exits_with_3(instance: Instance, member: Cloud, nova: Compute) -> None:
    nova.add(instance.id, instance.project, {"older_than": "soon"})
    outcome = overdue(member)
    assert (outcome.code, outcome.rows) == (3, [])
    assert "'soon' is not a span" in outcome.errors
    nova.add(instance.another().id, instance.project, {"older_than": "1h"})
    assert overdue(member).code == 2


def test_the_program_finds_the_compute_service(
    instance: Instance, member: Cloud, nova: Compute
) -> None:
    two = backups(instance, "1", "2")[1]
    nova.add(instance.id, instance.project, {"keep_last": 1})
    outcome = member.openstack("server", "backup", "prune", *STORED, instance.id)
    assert (outcome.code, outcome.errors) == (0, "")
    assert status(instance, two) == 404


def in_a_catalogue(glance: ServedGlance, token: str, scripted: Scripted) -> dict[str, str]:
    return Identity(scripted, f"{glance.url}/v2", token).options()


def at_one_endpoint(glance: ServedGlance, token: str, _: Scripted) -> dict[str, str]:
    return {"OS_AUTH_TYPE": "admin_token", "OS_ENDPOINT": f"{glance.url}/v2", "OS_TOKEN": token}


def by_serve(glance: ServedGlance, _: str, __: Scripted) -> dict[str, str]:
    return {"OS_CLIENT_CONFIG_FILE": str(glance.directory / "clouds.yaml"), "OS_CLOUD": "alice"}


@pytest.mark.parametrize("where", [in_a_catalogue, at_one_endpoint, by_serve])
def test_a_cloud_without_a_compute_service(
    instance: Instance, scripted: Scripted, where: Callable[..., dict[str, str]]
) -> None:
    cloud = where(instance.glance, instance.member, scripted)
    for command, code in (("prune", 1), ("overdue", 3)):
        outcome = openstack("server", "backup", command, *STORED, "--project", "own", **cloud)
        assert (outcome.code, outcome.said) == (code, "")
        assert outcome.errors.startswith("this cloud has no compute service (Nova)")
        assert "give rules on the command line instead of --policy stored" in outcome.errors
