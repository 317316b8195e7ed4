"""Backup policies of stacks, set in and removed from the metadata of servers."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from heat.common.exception import StackValidationFailed

from related_images.client.backups import stored_policy
from related_images.client.backups.stored_policy import METADATA_KEY, METADATA_WRITER, Ages
from related_images.client.retention import Policy
from tests.heat.engine.compute import MISSING, Servers
from tests.heat.engine.converging import ConvergingStack
from tests.heat.engine.stacks import TEMPLATES, Stack, User

pytestmark = pytest.mark.usefixtures("nova")


KEPT: dict[str, Any] = {"keep_daily": 7, "older_than": "26h"}


@pytest.fixture(params=[Stack, ConvergingStack])
def kind(request: pytest.FixtureRequest) -> type[Stack]:
    """Stacks without and with convergence."""
    stack_class: type[Stack] = request.param
    return stack_class


@pytest.fixture
def image(user: User) -> str:
    """The ID of an image to boot servers from."""
    body = {"name": "base", "disk_format": "raw", "container_format": "bare"}
    image_id = user.ask("POST", "/images", json=body).json()["id"]
    octets = {"Content-Type": "application/octet-stream"}
    user.ask("PUT", f"/images/{image_id}/file", data=b"disk", headers=octets)
    return str(image_id)


def template(image: str = "", made: int = 0, role: str = "web", **policy: Any) -> dict[str, Any]:
    """Return a template with a policy and ``made`` servers."""
    properties = {
        "image": image,
        "flavor": "1",
        "networks": [{"allocate_network": "none"}],
        "user_data_format": "RAW",
        "metadata": {"role": role},
    }
    servers = {
        f"server-{number}": {"type": "OS::Nova::Server", "properties": properties}
        for number in range(made)
    }
    resource = {"type": "OS::RelatedImages::BackupPolicy", "properties": policy}
    return {"heat_template_version": "2021-04-16", "resources": {"policy": resource, **servers}}


def policy_of(server: str) -> Any:
    return json.loads(Servers.metadata.get(server, {}).get(METADATA_KEY, "null"))


def test_listed_servers_have_the_policy_while_they_are_listed(
    user: User, kind: type[Stack]
) -> None:
    one, two, three = (str(uuid4()) for _ in range(3))
    Servers.metadata[two] = {"mine": "stays"}
    stack = kind(user, template(servers=[one, two], **KEPT)).create()
    assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
    assert policy_of(one) == policy_of(two) == {"keep_daily": "7", "older_than": "26h"}
    assert stack["policy"].FnGetAtt("servers") == [one, two]
    made = stack["policy"].resource_id

    stack.update(template(servers=[one, three], keep_last="unlimited", keep_labels=["monthly"]))
    assert (stack.state, stack.reason[:5]) == ("UPDATE_COMPLETE", "Stack")
    assert (
        policy_of(one) == policy_of(three) == {"keep_labels": ["monthly"], "keep_last": "unlimited"}
    )
    assert Servers.metadata[two] == {"mine": "stays"}
    assert stack["policy"].resource_id == made

    assert stack.delete().state == "DELETE_COMPLETE"
    assert Servers.metadata[one] == Servers.metadata[three] == {}


def test_every_server_of_the_stack_has_the_policy_new_ones_included(
    user: User, image: str, kind: type[Stack]
) -> None:
    stack = kind(user, template(image, 2, **KEPT)).create()
    assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
    first = [stack[f"server-{number}"].resource_id for number in range(2)]
    assert stack["policy"].FnGetAtt("servers") == first
    # Heat removes metadata of a server that the template does not have
    stack.update(template(image, 3, role="database", **KEPT))
    assert (stack.state, stack.reason[:5]) == ("UPDATE_COMPLETE", "Stack")
    servers = [*first, stack["server-2"].resource_id]
    for server in servers:
        assert policy_of(server) == {"keep_daily": "7", "older_than": "26h"}
        assert Servers.metadata[server]["role"] == "database"
    stack.update(template(image, 1, **KEPT))
    assert stack.state == "UPDATE_COMPLETE"
    assert Servers.deleted >= set(servers[1:])
    assert stack.delete().state == "DELETE_COMPLETE"
    assert servers[0] in Servers.deleted


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "the policy is empty; set at least one of keep_last"),
        ({"keep_last": 0, "timezone": "UTC"}, "the policy is empty"),
        ({"keep_last": -7}, "keep_last: '-7' is neither a whole number nor unlimited"),
        ({"keep_within": "a week"}, "keep_within: 'a week' is not a span"),
        ({"keep_labels": ["every day"]}, "keep_labels: the relation label 'every day'"),
        ({"keep_last": 1, "timezone": "Mars"}, "timezone: 'Mars' is not a time zone"),
        ({"older_than": "3d", "critical": "2d"}, "critical needs an older_than"),
        ({"keep_labels": [f"label-{number}" for number in range(40)]}, "Nova stores at most 255"),
        ({"keep_lasts": 1}, "Unknown Property keep_lasts"),
        ({"servers": [MISSING], "keep_last": 1}, MISSING),
        ({"servers": [], "keep_last": 1}, "servers"),
    ],
)
def test_an_invalid_policy_is_refused(user: User, policy: dict[str, Any], message: str) -> None:
    with pytest.raises(StackValidationFailed) as refused:
        Stack(user, template(**{"servers": [str(uuid4())], **policy})).validate()
    assert message in str(refused.value)


def test_a_stack_without_servers_is_refused(user: User) -> None:
    with pytest.raises(
        StackValidationFailed, match="the stack has no server for the backup policy"
    ):
        Stack(user, template(keep_last=1)).validate()


def two(first: dict[str, Any], other: dict[str, Any], made: int = 1) -> dict[str, Any]:
    """Return a template with two policies and ``made`` servers."""
    source = template("image", made, keep_last=1, **first)
    properties = {"keep_last": 2, **other}
    source["resources"]["other"] = {
        "type": "OS::RelatedImages::BackupPolicy",
        "properties": properties,
    }
    return source


SAME = str(uuid4())


@pytest.mark.parametrize(
    ("first", "other", "server"),
    [
        ({}, {}, "server-0"),
        ({}, {"servers": [{"get_resource": "server-0"}]}, "server-0"),
        *[({"servers": [{"get_resource": "server-0"}]},) * 2 + ("server-0",)],
        ({"servers": [SAME]}, {"servers": [SAME, str(uuid4())]}, SAME),
        ({"servers": [SAME]}, {"servers": {"get_param": "servers"}}, SAME),
    ],
)
def test_two_policies_for_one_server_are_refused(
    user: User, image: str, first: dict[str, Any], other: dict[str, Any], server: str
) -> None:
    source = two(first, other)
    source["parameters"] = {"servers": {"type": "comma_delimited_list", "default": SAME}}
    source["resources"]["server-0"]["properties"]["image"] = image
    with pytest.raises(StackValidationFailed) as refused:
        Stack(user, source).validate()
    assert f"policies other and policy are both for the server {server}" in str(refused.value)


def test_two_policies_for_two_servers(user: User, image: str, kind: type[Stack]) -> None:
    references = [{"servers": [{"get_resource": f"server-{n}"}]} for n in range(2)]
    source = two(references[0], references[1], 2)
    for number in range(2):
        source["resources"][f"server-{number}"]["properties"]["image"] = image
    stack = kind(user, source).create()
    assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
    assert policy_of(stack["server-0"].resource_id) == {"keep_last": "1"}
    assert policy_of(stack["server-1"].resource_id) == {"keep_last": "2"}
    assert stack.update(source).state == "UPDATE_COMPLETE"
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_invalid_value_of_another_resource_fails_the_creation(user: User) -> None:
    server = str(uuid4())
    late = template(servers=[server], keep_within={"get_attr": ["value", "value"]})
    late["resources"]["value"] = {"type": "OS::Heat::Value", "properties": {"value": "a week"}}
    stack = Stack(user, late).create()
    assert stack.state == "CREATE_FAILED"
    assert "keep_within: 'a week' is not a span" in stack.reason
    assert policy_of(server) is None


def test_the_policy_of_another_writer_stays(user: User, kind: type[Stack]) -> None:
    free, taken = str(uuid4()), str(uuid4())
    theirs = {METADATA_KEY: '{"keep_last":9}'}
    Servers.metadata[taken] = dict(theirs)
    stack = kind(user, template(servers=[free, taken], **KEPT)).create()
    assert stack.state == "CREATE_FAILED"
    assert f"the server {taken} already has a backup policy" in stack.reason
    assert Servers.metadata[taken] == theirs
    made = stack["policy"].resource_id

    Servers.metadata[taken].clear()
    stack.update(template(servers=[free, taken], **KEPT))
    assert (stack.state, stack["policy"].resource_id) == ("UPDATE_COMPLETE", made)
    assert policy_of(free) == policy_of(taken) == {"keep_daily": "7", "older_than": "26h"}
    Servers.metadata[taken].update({METADATA_KEY: "{}", METADATA_WRITER: "somebody"})
    assert stack.delete().state == "DELETE_COMPLETE"
    assert Servers.metadata[free] == {}
    assert Servers.metadata[taken] == {METADATA_KEY: "{}", METADATA_WRITER: "somebody"}


def test_a_check_finds_a_missing_policy_and_an_update_sets_it_again(
    user: User, kind: type[Stack]
) -> None:
    server, gone = str(uuid4()), str(uuid4())
    source = template(servers=[server, gone], **KEPT)
    stack = kind(user, source).create()
    made = stack["policy"].resource_id
    assert stack.check().state == "CHECK_COMPLETE"
    Servers.metadata[server].clear()
    assert stack.check().state == "CHECK_FAILED"
    assert f"the backup policy is missing on the servers {server};" in stack.reason
    stack.update(source)
    assert (stack.state, stack["policy"].resource_id) == ("UPDATE_COMPLETE", made)
    assert policy_of(server) == {"keep_daily": "7", "older_than": "26h"}
    Servers.deleted.add(gone)
    assert stack.check().state == "CHECK_COMPLETE"
    assert stack.delete().state == "DELETE_COMPLETE"


@pytest.mark.parametrize("lost", [[METADATA_KEY], [METADATA_KEY, METADATA_WRITER]])
def test_an_update_writes_only_the_policies_that_differ(
    user: User, kind: type[Stack], lost: list[str]
) -> None:
    servers = [str(uuid4()) for _ in range(3)]
    stack = kind(user, template(servers=servers, **KEPT)).create()
    Servers.written.clear()
    assert stack.update(template(servers=servers, **KEPT)).state == "UPDATE_COMPLETE"
    assert Servers.written == []
    before = dict(Servers.metadata[servers[1]])
    for name in lost:
        del Servers.metadata[servers[1]][name]
    stack.update(template(servers=servers, **KEPT))
    assert (stack.state, Servers.written) == ("UPDATE_COMPLETE", [servers[1]])
    assert Servers.metadata[servers[1]] == before
    stack.update(template(servers=servers, keep_last="1"))
    assert Servers.written[1:] == servers


def test_the_template_of_the_docs(user: User, image: str) -> None:
    text = (TEMPLATES / "backup-policy.yaml").read_text()
    given = {"image": image, "flavor": "1"}
    stack = Stack(user, text, **given).create()
    assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
    servers = stack.output("servers")
    assert servers == [stack["database"].resource_id, stack["web"].resource_id]
    stack.update(text, **given, days="14")
    assert (stack.state, stack.reason[:5]) == ("UPDATE_COMPLETE", "Stack")
    assert stack.output("servers") == servers
    for server in servers:
        stored = stored_policy.read(Servers.metadata[server][METADATA_KEY])
        assert stored.retention == Policy(daily=14, weekly=4, monthly=12)
        assert stored.ages == Ages(timedelta(hours=26), timedelta(hours=50))
    assert stack.delete().state == "DELETE_COMPLETE"
    assert Servers.deleted >= set(servers)
