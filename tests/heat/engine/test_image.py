"""``OS::RelatedImages::Image`` in stacks of a real heat-engine, with a real Glance."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import requests
from heat.common.exception import StackValidationFailed
from oslo_config import cfg

from tests.heat.engine import stacks
from tests.heat.engine.converging import ConvergingStack
from tests.heat.engine.stacks import INSTALLATION, Stack, User


def source() -> dict[str, Any]:
    location = os.environ[stacks.FILES] + "/disk.raw"
    return {"location": location, "disk_format": "raw", "container_format": "bare"}


def template(**properties: Any) -> dict[str, Any]:
    image = {"type": "OS::RelatedImages::Image", "properties": properties}
    return {"heat_template_version": "2021-04-16", "resources": {"image": image}}


def imported(**properties: Any) -> dict[str, Any]:
    return template(**source(), **properties)


def of_instance(id: str) -> dict[str, str]:
    return {"installation": INSTALLATION, "id": id}


def created(user: User, content: stacks.Source, **parameters: str) -> tuple[Stack, str]:
    stack = Stack(user, content, **parameters).create()
    assert (stack.state, stack.reason) == (
        "CREATE_COMPLETE",
        "Stack CREATE completed successfully",
    )
    return stack, str(stack["image"].resource_id)


def updated(stack: Stack, content: stacks.Source) -> None:
    stack.user.recorder.sent.clear()
    assert (stack.update(content).state, stack.reason) == (
        "UPDATE_COMPLETE",
        "Stack UPDATE completed successfully",
    )


def relations(user: User, image_id: str) -> list[tuple[str, str, str | None]]:
    shown = user.ask("GET", f"/images/{image_id}/relations").json()["relations"]
    return sorted((it["instance_id"], it["kind"], it["label"]) for it in shown)


def test_metadata_is_updated_in_place(user: User) -> None:
    first = imported(properties={"kept": "1", "changed": "a", "removed": "x"}, tags=["one", "two"])
    stack, image_id = created(user, first)
    foreign = [{"op": "add", "path": "/from_elsewhere", "value": "stays"}]
    patch_type = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    url = f"{os.environ[stacks.GLANCE]}/v2/images/{image_id}"
    headers = patch_type | {"X-Auth-Token": user.token}
    assert requests.patch(url, json=foreign, headers=headers).status_code == 200
    assert user.recorder.bodies("PATCH") == []
    assert len(user.recorder.bodies("POST", "/import")) == 1

    updated(
        stack,
        imported(
            properties={"kept": "1", "changed": "b", "a/b~c": "new"},
            tags=["two", "three"],
            visibility="private",
        ),
    )
    assert user.recorder.bodies("PATCH") == [
        [
            {"op": "remove", "path": "/removed"},
            {"op": "add", "path": "/a~1b~0c", "value": "new"},
            {"op": "replace", "path": "/changed", "value": "b"},
            {"op": "replace", "path": "/tags", "value": ["three", "two"]},
            {"op": "replace", "path": "/visibility", "value": "private"},
        ]
    ]
    assert user.recorder.bodies("POST") == []
    assert stack["image"].resource_id == image_id
    image = user.image(image_id)
    assert (image["from_elsewhere"], image["kept"], image["a/b~c"]) == ("stays", "1", "new")
    assert sorted(image["tags"]) == ["three", "two"]
    assert "removed" not in image

    assert stack.delete().state == "DELETE_COMPLETE"
    assert user.ask("GET", f"/images/{image_id}").status_code == 404


def test_an_update_without_differences_sends_no_patch(user: User) -> None:
    stack, image_id = created(user, imported(properties={"a": "1"}))
    updated(stack, imported(properties={"a": "1"}, min_disk=0, visibility="shared"))
    assert user.recorder.bodies("PATCH") == []
    assert stack["image"].resource_id == image_id


def test_attributes_removed_from_the_template_get_their_defaults(user: User) -> None:
    named = {"name": "mine", "min_ram": 64, "os_hidden": True, "architecture": "x86_64"}
    stack, image_id = created(user, imported(**named))
    assert user.image(image_id).items() >= named.items()
    updated(stack, imported())
    image = user.image(image_id)
    assert (image["min_ram"], image["os_hidden"]) == (0, False)
    assert image["name"].startswith("stack-")
    assert "architecture" not in image


def test_another_source_replaces_the_image(user: User) -> None:
    stack, image_id = created(user, imported())
    elsewhere = source() | {"location": os.environ[stacks.FILES] + "/other.raw"}
    updated(stack, template(**elsewhere))
    assert stack["image"].resource_id != image_id
    assert user.ask("GET", f"/images/{image_id}").status_code == 404


def test_members_are_added_and_removed(user: User) -> None:
    stack, image_id = created(user, imported(members=["one", "two"]))
    assert members(user, image_id) == ["one", "two"]
    updated(stack, imported(members=["two", "three"]))
    assert members(user, image_id) == ["three", "two"]
    updated(stack, imported(visibility="private"))
    assert user.image(image_id)["visibility"] == "private"


def members(user: User, image_id: str) -> list[str]:
    shown = user.ask("GET", f"/images/{image_id}/members").json()["members"]
    return sorted(it["member_id"] for it in shown)


def test_attributes(user: User) -> None:
    stack, image_id = created(user, imported(instance=of_instance("inst-1")))
    image, shown = stack["image"], user.image(image_id)
    for name in ("id", "status", "checksum", "size"):
        assert image.FnGetAtt(name) == shown[name]
    assert image.FnGetAtt("show")["os_hash_algo"] == "sha512"
    (relation,) = image.FnGetAtt("relations")
    assert (relation["image_id"], relation["instance_id"]) == (image_id, "inst-1")


def test_a_failed_import_fails_the_stack_with_the_reason_of_glance(user: User) -> None:
    nowhere = source() | {"location": os.environ[stacks.FILES] + "/nowhere.raw"}
    stack = Stack(user, template(**nowhere, properties={"a": "1"})).create()
    assert stack.state == "CREATE_FAILED"
    assert "the import into image" in stack.reason
    assert nowhere["location"] in stack.reason
    assert "Task failed" in stack.reason
    assert stack.delete().state == "DELETE_COMPLETE"


def test_a_bad_gateway_during_an_import_is_retried(user: User) -> None:
    user.recorder.lost = 2
    _stack, image_id = created(user, imported())
    assert (user.image(image_id)["status"], user.recorder.lost) == ("active", 0)


def test_the_next_update_creates_the_image_of_a_failed_import_again(user: User) -> None:
    nowhere = source() | {"location": os.environ[stacks.FILES] + "/nowhere.raw"}
    stack = Stack(user, template(**nowhere)).create()
    assert stack.state == "CREATE_FAILED"
    updated(stack, imported())
    assert user.image(stack["image"].resource_id)["status"] == "active"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"properties": {"os_glance_importing": "x"}}, "'os_glance_importing' is reserved"),
        ({"properties": {"checksum": "x"}}, "checksum is an attribute of Glance's images"),
        ({"properties": {"owner": "x"}}, "only Glance sets it"),
        ({"properties": {"min_disk": "1"}}, "set it outside properties"),
        ({"properties": {"": "x"}}, "is not 1 to 255 characters long"),
        ({"properties": {4: "cpus"}}, "the property name 4 is not a string: quote it"),
        (
            {"properties": {"cpus": 4}},
            "the value of the property 'cpus' is 4, which is not a string",
        ),
        ({"properties": {"on": True}}, "which is not a string: quote it"),
        ({"properties": {"none": None}}, "which is not a string"),
        ({"properties": {"deep": {"a": "b"}}}, "which is not a string"),
        ({"properties": {f"p{n}": "x" for n in range(129)}}, "129 properties and 128 are allowed"),
        (
            {"members": ["p"], "visibility": "private"},
            "an image with members must have the visibility shared",
        ),
        ({"label": "daily"}, "a label needs a server or an instance"),
        ({"instance": {"id": "inst-1"}}, "no installation is known"),
        ({"instance": {"installation": "x", "id": "i"}}, "is not a UUID"),
        ({"instance": of_instance("i"), "label": "two words"}, "the relation label"),
        ({"kind": "other"}, "not an allowed value"),
    ],
)
def test_an_invalid_template_is_refused(
    user: User, properties: dict[str, Any], message: str
) -> None:
    with pytest.raises(StackValidationFailed) as refused:
        Stack(user, imported(**properties)).validate()
    assert message in str(refused.value)
    assert user.recorder.bodies("POST") == []


def test_two_sources_are_refused(user: User) -> None:
    image_id = user.ask("POST", "/images", json={"name": "there"}).json()["id"]
    with pytest.raises(StackValidationFailed, match="location and image exclude each other"):
        Stack(user, imported(image=image_id)).validate()


def test_a_template_without_a_source_is_refused(user: User) -> None:
    with pytest.raises(StackValidationFailed, match="the image has no source"):
        Stack(user, template(properties={"a": "b"})).validate()


def test_a_value_may_come_from_a_resource_that_is_not_created_yet(user: User) -> None:
    content = imported(properties={"secret": {"get_attr": ["random", "value"]}})
    content["resources"]["random"] = {"type": "OS::Heat::RandomString"}
    stack, image_id = created(user, content)
    assert user.image(image_id)["secret"] == stack["random"].FnGetAtt("value")


def later(**properties: Any) -> dict[str, Any]:
    """Return a template whose values all come from other resources."""
    resources: dict[str, Any] = {}

    def source_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: source_of(part) for name, part in value.items()}
        name = f"value-{len(resources)}"
        resources[name] = {"type": "OS::Heat::Value", "properties": {"value": value}}
        return {"get_attr": [name, "value"]}

    content = template(**{name: source_of(value) for name, value in properties.items()})
    content["resources"] |= resources
    return content


def test_a_property_may_have_any_name(user: User) -> None:
    named = {"kind": "a", "label": "b", "instance_id": "c", "properties": "d", "lable": "e"}
    backup = {"kind": "backup", "label": "daily", "instance": of_instance("inst-1")}
    _, image_id = created(user, imported(properties=named, **backup))
    image = user.image(image_id)
    assert {name: image[name] for name in named} == named
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]


@pytest.mark.parametrize("kind", [Stack, ConvergingStack])
def test_every_value_may_come_from_a_resource_that_is_not_created_yet(
    user: User, kind: type[Stack]
) -> None:
    more = {"label": "daily", "visibility": "shared", "members": ["one"], "properties": {"a": "1"}}
    instance = of_instance("inst-1")
    stack = kind(user, later(**source(), **more, kind="backup", instance=instance)).create()
    assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
    image_id = stack["image"].resource_id
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]
    assert members(user, image_id) == ["one"]
    assert user.image(image_id)["a"] == "1"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"location": ""}, "the image has no source"),
        ({"container_format": ""}, "needs disk_format and container_format"),
        (
            {"container_format": "ami", "disk_format": "ari"},
            "container_format ami needs disk_format ami",
        ),
        ({"instance": {"installation": "", "id": "i"}}, "no installation is known"),
        ({"instance": of_instance("i"), "label": "two words"}, "the relation label"),
        (
            {"members": ["p"], "visibility": "private"},
            "an image with members must have the visibility shared",
        ),
    ],
)
def test_values_of_other_resources_are_checked_at_creation(
    user: User, properties: dict[str, Any], message: str
) -> None:
    stack = Stack(user, later(**(source() | properties))).create()
    assert stack.state == "CREATE_FAILED"
    assert message in stack.reason
    assert user.recorder.bodies("POST") == []


def test_parameters_are_checked_before_creation(user: User) -> None:
    content = template(**source() | {"location": {"get_param": "from"}})
    content["parameters"] = {"from": {"type": "string"}}
    with pytest.raises(StackValidationFailed, match="the image has no source"):
        Stack(user, content, **{"from": ""}).validate()


def test_a_protected_image_is_not_deleted(user: User) -> None:
    stack, image_id = created(user, imported(protected=True))
    stack.delete()
    assert stack.state == "DELETE_FAILED"
    assert (
        f"the image {image_id} is protected, so neither the image nor the stack was deleted"
        in stack.reason
    )
    assert "account" not in stack.reason
    assert user.image(image_id)["status"] == "active"
    updated(stack, imported(protected=False))
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_image_in_use_is_not_deleted(user: User) -> None:
    stack, image_id = created(user, imported())
    server = str(uuid4())
    content = {"installation_uuid": INSTALLATION, "instance_id": server, "image_id": image_id}
    assert user.ask("POST", "/relations", json=content | {"kind": "boot"}).status_code == 201
    stack.delete()
    assert stack.state == "DELETE_FAILED"
    assert "answered 409" in stack.reason
    assert server in stack.reason
    assert user.ask("DELETE", f"/instances/{INSTALLATION}/{server}").status_code == 204
    assert stack.delete().state == "DELETE_COMPLETE"


def test_a_refused_change_fails_the_update_and_keeps_the_image(user: User) -> None:
    stack, image_id = created(user, imported(properties={"a": "1"}))
    stack.update(template(**(source() | {"disk_format": "qcow2"}), properties={"a": "1"}))
    assert stack.state == "UPDATE_FAILED"
    assert "disk_format" in stack.reason
    updated(stack, imported(properties={"a": "2"}))
    assert stack["image"].resource_id == image_id
    assert user.image(image_id)["a"] == "2"


def test_the_relation_is_updated(user: User) -> None:
    stack, image_id = created(user, imported(instance=of_instance("inst-1")))
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    daily = {"kind": "backup", "label": "daily"}
    updated(stack, imported(instance=of_instance("inst-1"), **daily))
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]
    updated(stack, imported(instance=of_instance("inst-1"), **daily | {"label": "weekly"}))
    assert relations(user, image_id) == [("inst-1", "backup", "weekly")]
    updated(stack, imported(instance=of_instance("inst-2"), **daily))
    assert relations(user, image_id) == [("inst-2", "backup", "daily")]
    updated(stack, imported())
    assert relations(user, image_id) == []
    assert user.recorder.bodies("PATCH") == []


def test_a_boot_relation_is_attached(user: User) -> None:
    _, image_id = created(user, imported(instance=of_instance("inst-3"), kind="boot"))
    assert relations(user, image_id) == [("inst-3", "boot", None)]


def test_a_user_without_a_recording_role_is_refused(member: User) -> None:
    stack = Stack(member, imported(name="refused", instance=of_instance("inst-1"))).create()
    assert stack.state == "CREATE_FAILED"
    assert "the stack's user has no recording role" in stack.reason
    assert "[related_images] of heat.conf" in stack.reason
    assert member.ask("GET", "/images?name=refused").json()["images"] == []
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_existing_image_is_updated_and_not_deleted(user: User) -> None:
    body = {"name": "there", "disk_format": "raw", "container_format": "bare", "a": "1"}
    image_id = user.ask("POST", "/images", json=body).json()["id"]
    content = {"image": image_id, "instance": of_instance("inst-1")}
    stack, described = created(user, template(**content, properties={"b": "2"}))
    assert described == image_id
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    updated(stack, template(**content, properties={"b": "3"}))
    assert user.recorder.bodies("PATCH") == [[{"op": "replace", "path": "/b", "value": "3"}]]
    assert stack.delete().state == "DELETE_COMPLETE"
    image = user.image(image_id)
    assert (image["name"], image["a"], image["b"]) == ("there", "1", "3")
    assert relations(user, image_id) == []


def changed_elsewhere(user: User, image_id: str) -> None:
    """Change the image without Heat."""
    changes: list[dict[str, Any]] = [
        {"op": "replace", "path": "/name", "value": "theirs"},
        {"op": "replace", "path": "/a", "value": "2"},
        {"op": "remove", "path": "/b"},
        {"op": "add", "path": "/c", "value": "3"},
        {"op": "replace", "path": "/tags", "value": ["added"]},
    ]
    assert patched(user, image_id, changes) == 200


OWN: dict[str, Any] = {"name": "mine", "properties": {"a": "1", "b": "2"}, "tags": ["kept"]}


def assert_corrected(user: User, image_id: str) -> None:
    image = user.image(image_id)
    assert (image["name"], image["a"], image["b"], image["c"]) == ("mine", "1", "2", "3")
    assert sorted(image["tags"]) == ["added", "kept"]


def test_a_check_finds_changes_and_an_update_reverts_them(user: User) -> None:
    stack, image_id = created(user, imported(**OWN))
    assert stack.check().state == "CHECK_COMPLETE"
    changed_elsewhere(user, image_id)
    assert stack.check().state == "CHECK_FAILED"
    assert "differs from the template: /a, /b, /name, /tags" in stack.reason
    updated(stack, imported(**OWN))
    assert stack["image"].resource_id == image_id
    assert_corrected(user, image_id)
    assert stack.check().state == "CHECK_COMPLETE"
    assert user.ask("DELETE", f"/images/{image_id}").status_code == 204
    assert stack.check().state == "CHECK_FAILED"


def test_an_update_reverts_changes_with_observe_on_update(user: User) -> None:
    stack, image_id = created(user, imported(**OWN))
    changed_elsewhere(user, image_id)
    updated(stack, imported(**OWN))
    assert user.image(image_id)["name"] == "theirs"
    with observing():
        updated(stack, imported(**OWN))
        assert stack["image"].resource_id == image_id
        assert_corrected(user, image_id)
        user.recorder.sent.clear()
        updated(stack, imported(**OWN))
        assert user.recorder.bodies("PATCH") == []
        assert user.ask("DELETE", f"/images/{image_id}").status_code == 204
        updated(stack, imported(**OWN))
    assert stack["image"].resource_id != image_id
    assert user.image(stack["image"].resource_id)["status"] == "active"


@contextmanager
def observing() -> Iterator[None]:
    cfg.CONF.set_override("observe_on_update", True)
    try:
        yield
    finally:
        cfg.CONF.clear_override("observe_on_update")


def number_of_cpus(value: Any) -> dict[str, Any]:
    content = imported(properties={"cpus": value})
    content["parameters"] = {"cpus": {"type": "number"}}
    return content


def test_a_number_of_a_parameter_is_converted_with_str_replace(user: User) -> None:
    parameter = {"get_param": "cpus"}
    with pytest.raises(StackValidationFailed, match="a parameter or an attribute with str_replace"):
        Stack(user, number_of_cpus(parameter), cpus="4").validate()
    text = {"str_replace": {"template": "n", "params": {"n": parameter}}}
    _stack, image_id = created(user, number_of_cpus(text), cpus="4")
    assert user.image(image_id)["cpus"] == "4"


def test_no_request_is_sent_for_an_image_that_was_never_created(user: User) -> None:
    stack = Stack(user, later(**(source() | {"location": ""}))).create()
    assert (stack.state, stack["image"].resource_id) == ("CREATE_FAILED", None)
    assert stack.check().state == "CHECK_FAILED"
    assert "there is no image: it was never created" in stack.reason
    assert stack["image"].FnGetAtt("show") is None
    with observing():
        updated(stack, imported())
    assert not any("None" in path for path in user.recorder.paths)


INVALID_PROJECT = ""
"""A project ID that Glance refuses as a member."""


def update_and_roll_back(stack: Stack, content: dict[str, Any]) -> None:
    """Update the stack with a template that fails, so that Heat rolls back."""
    stack.update_with_rollback(content)
    assert (stack.state, stack.reason[:27]) == (
        "ROLLBACK_COMPLETE",
        "Stack ROLLBACK completed su",
    )


KINDS = pytest.mark.parametrize("kind", [Stack, ConvergingStack])


@KINDS
def test_a_rollback_reverts_a_failed_update(user: User, kind: type[Stack]) -> None:
    first = imported(
        instance=of_instance("inst-1"), members=["one", "two"], properties={"a": "1"}, tags=["t"]
    )
    stack = kind(user, first).create()
    image_id = stack["image"].resource_id
    theirs = [{"op": "add", "path": "/theirs", "value": "1"}]
    assert patched(user, image_id, theirs) == 200
    body = {"member": "their-member"}
    assert user.ask("POST", f"/images/{image_id}/members", json=body).status_code == 200
    before, shared_with = user.image(image_id), members(user, image_id)

    failing = imported(
        instance=of_instance("inst-2"),
        kind="backup",
        label="daily",
        members=["two", "three", "their-member", INVALID_PROJECT],
        properties={"b": "2", "theirs": "mine"},
        tags=["u"],
        min_ram=64,
        name="other",
        architecture="x86_64",
    )
    update_and_roll_back(stack, failing)
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    assert members(user, image_id) == shared_with
    assert {**user.image(image_id), "updated_at": ""} == {**before, "updated_at": ""}
    assert stack.check().state == "CHECK_COMPLETE"
    assert any(body == {"member": "three"} for body in user.recorder.bodies("POST", "/members"))


@KINDS
def test_a_rollback_reverts_the_relation_if_glance_refused_the_patch(
    user: User, kind: type[Stack]
) -> None:
    content = {"instance": of_instance("inst-1"), "kind": "backup", "label": "daily"}
    stack = kind(user, imported(**content)).create()
    image_id = stack["image"].resource_id
    refused = source() | {"disk_format": "qcow2"}
    update_and_roll_back(stack, template(**refused, instance=of_instance("inst-2")))
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]


def test_an_update_reverts_a_failed_update_before_it(
    user: User,
) -> None:
    stack, image_id = created(user, imported(members=["one"]))
    stack.update(imported(members=["one", "two", INVALID_PROJECT], properties={"b": "2"}))
    assert stack.state == "UPDATE_FAILED"
    assert user.image(image_id)["b"] == "2"
    updated(stack, imported(members=["one", "three"]))
    assert members(user, image_id) == ["one", "three"]
    assert "b" not in user.image(image_id)


@KINDS
@pytest.mark.parametrize("label", ["daily", None])
def test_a_check_finds_a_missing_relation_and_member_and_an_update_adds_them(
    user: User, kind: type[Stack], label: str | None
) -> None:
    more = {} if label is None else {"label": label}
    content = imported(instance=of_instance("inst-1"), kind="backup", members=["one"], **more)
    stack = kind(user, content).create()
    image_id = stack["image"].resource_id
    assert stack.check().state == "CHECK_COMPLETE"
    removed(user, f"/images/{image_id}/members/one")
    removed(user, f"/images/{image_id}/relations/{INSTALLATION}/inst-1/backup")
    assert stack.check().state == "CHECK_FAILED"
    assert "it is not shared with one" in stack.reason
    assert "the backup relation with the server inst-1 is missing" in stack.reason
    updated(stack, content)
    assert relations(user, image_id) == [("inst-1", "backup", label)]
    assert members(user, image_id) == ["one"]
    assert stack.check().state == "CHECK_COMPLETE"


def test_a_check_finds_another_label(user: User) -> None:
    more = {"kind": "backup", "instance": of_instance("inst-1")}
    stack, image_id = created(user, imported(**more, label="daily"))
    removed(user, f"/images/{image_id}/relations/{INSTALLATION}/inst-1/backup")
    ids = {"installation_uuid": INSTALLATION, "instance_id": "inst-1", "image_id": image_id}
    body = {**ids, "kind": "backup", "label": "theirs"}
    assert user.ask("POST", "/relations", json=body).status_code == 201
    assert stack.check().state == "CHECK_FAILED"
    assert "has the label theirs instead of daily" in stack.reason


def test_any_update_adds_a_missing_relation_and_member(user: User) -> None:
    more = {"instance": of_instance("inst-1"), "members": ["one"]}
    stack, image_id = created(user, imported(**more))
    removed(user, f"/images/{image_id}/members/one")
    removed(user, f"/images/{image_id}/relations/{INSTALLATION}/inst-1/snapshot")
    updated(stack, imported(**more, properties={"a": "1"}))
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    assert members(user, image_id) == ["one"]


def test_an_update_adds_a_missing_relation_and_member_with_observe_on_update(user: User) -> None:
    more = {"instance": of_instance("inst-1"), "members": ["one"], "kind": "backup", "label": "a"}
    stack, image_id = created(user, imported(**more))
    with observing():
        for path in ("members/one", f"relations/{INSTALLATION}/inst-1/backup"):
            removed(user, f"/images/{image_id}/{path}")
            updated(stack, imported(**more))
            assert relations(user, image_id) == [("inst-1", "backup", "a")]
            assert members(user, image_id) == ["one"]
        updated(stack, imported(**more))
        assert user.recorder.bodies("POST") == []


def removed(user: User, path: str) -> None:
    assert user.ask("DELETE", path).status_code == 204


def patched(user: User, image_id: str, operations: list[dict[str, Any]]) -> int:
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    response = user.ask("PATCH", f"/images/{image_id}", json=operations, headers=headers)
    return int(response.status_code)


PASSWORD = "s3cret"


def secret(name: str) -> str:
    """Return a location of the file ``name`` with credentials."""
    base = os.environ[stacks.FILES].replace("http://", f"http://user:{PASSWORD}@")
    return f"{base}/{name}?signature={PASSWORD}"


@pytest.mark.parametrize(
    "location",
    [
        secret("nowhere.raw"),
        f"http://user:{PASSWORD}@example.org/disk.raw",
        f"http://user:it's {PASSWORD}@example.org/disk.raw",
        f"http://user:a/{PASSWORD}@example.org/disk.raw",
        f"https://example.org/disk.raw?signature={PASSWORD}",
        f"nonsense://user:{PASSWORD}@example.org",
    ],
)
def test_credentials_in_a_location_are_not_shown(
    user: User, caplog: pytest.LogCaptureFixture, location: str
) -> None:
    with caplog.at_level("DEBUG"):
        stack = Stack(user, template(**(source() | {"location": location}))).create()
    assert stack.state == "CREATE_FAILED"
    assert PASSWORD not in stack.reason
    own = [it for it in caplog.records if it.name.startswith(("related_images", "keystoneauth"))]
    assert not any(PASSWORD in it.getMessage() for it in own)
    assert not any(PASSWORD in (it.exc_text or "") for it in caplog.records)
    assert stack.delete().state == "DELETE_COMPLETE"
