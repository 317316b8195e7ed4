"""``OS::RelatedImages::Image`` in stacks of the real heat-engine, before the real Glance."""

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


def created(user: User, said: stacks.Source, **parameters: str) -> tuple[Stack, str]:
    stack = Stack(user, said, **parameters).create()
    assert (stack.state, stack.reason) == (
        "CREATE_COMPLETE",
        "Stack CREATE completed successfully",
    )
    return stack, str(stack["image"].resource_id)


def updated(stack: Stack, said: stacks.Source) -> None:
    stack.user.recorder.sent.clear()
    assert (stack.update(said).state, stack.reason) == (
        "UPDATE_COMPLETE",
        "Stack UPDATE completed successfully",
    )


def relations(user: User, image_id: str) -> list[tuple[str, str, str | None]]:
    shown = user.ask("GET", f"/images/{image_id}/relations").json()["relations"]
    return sorted((it["instance_id"], it["kind"], it["label"]) for it in shown)


def test_an_image_keeps_its_id_and_its_data_while_all_its_metadata_changes(user: User) -> None:
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


def test_what_is_as_the_template_says_already_is_not_sent(user: User) -> None:
    stack, image_id = created(user, imported(properties={"a": "1"}))
    updated(stack, imported(properties={"a": "1"}, min_disk=0, visibility="shared"))
    assert user.recorder.bodies("PATCH") == []
    assert stack["image"].resource_id == image_id


def test_what_is_named_no_more_goes_back_to_what_it_is_of_itself(user: User) -> None:
    named = {"name": "mine", "min_ram": 64, "os_hidden": True, "architecture": "x86_64"}
    stack, image_id = created(user, imported(**named))
    assert user.image(image_id).items() >= named.items()
    updated(stack, imported())
    image = user.image(image_id)
    assert (image["min_ram"], image["os_hidden"]) == (0, False)
    assert image["name"].startswith("stack-")
    assert "architecture" not in image


def test_another_source_makes_another_image(user: User) -> None:
    stack, image_id = created(user, imported())
    elsewhere = source() | {"location": os.environ[stacks.FILES] + "/other.raw"}
    updated(stack, template(**elsewhere))
    assert stack["image"].resource_id != image_id
    assert user.ask("GET", f"/images/{image_id}").status_code == 404


def test_members_come_and_go(user: User) -> None:
    stack, image_id = created(user, imported(members=["one", "two"]))
    assert members(user, image_id) == ["one", "two"]
    updated(stack, imported(members=["two", "three"]))
    assert members(user, image_id) == ["three", "two"]
    updated(stack, imported(visibility="private"))
    assert user.image(image_id)["visibility"] == "private"


def members(user: User, image_id: str) -> list[str]:
    shown = user.ask("GET", f"/images/{image_id}/members").json()["members"]
    return sorted(it["member_id"] for it in shown)


def test_attributes_tell_of_the_image(user: User) -> None:
    stack, image_id = created(user, imported(instance=of_instance("inst-1")))
    image, shown = stack["image"], user.image(image_id)
    for name in ("id", "status", "checksum", "size"):
        assert image.FnGetAtt(name) == shown[name]
    assert image.FnGetAtt("show")["os_hash_algo"] == "sha512"
    (relation,) = image.FnGetAtt("relations")
    assert (relation["image_id"], relation["instance_id"]) == (image_id, "inst-1")


def test_a_download_that_fails_fails_the_stack_with_the_reason_of_glance(user: User) -> None:
    nowhere = source() | {"location": os.environ[stacks.FILES] + "/nowhere.raw"}
    stack = Stack(user, template(**nowhere, properties={"a": "1"})).create()
    assert stack.state == "CREATE_FAILED"
    assert "the import into image" in stack.reason
    assert nowhere["location"] in stack.reason
    assert "Task failed" in stack.reason
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_import_is_waited_for_though_a_proxy_fails(user: User) -> None:
    user.recorder.lost = 2
    _stack, image_id = created(user, imported())
    assert (user.image(image_id)["status"], user.recorder.lost) == ("active", 0)


def test_an_import_that_failed_is_made_anew_by_the_next_update(user: User) -> None:
    nowhere = source() | {"location": os.environ[stacks.FILES] + "/nowhere.raw"}
    stack = Stack(user, template(**nowhere)).create()
    assert stack.state == "CREATE_FAILED"
    updated(stack, imported())
    assert user.image(stack["image"].resource_id)["status"] == "active"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"properties": {"os_glance_importing": "x"}}, "'os_glance_importing' is reserved"),
        ({"properties": {"checksum": "x"}}, "checksum is a property that Glance's images have"),
        ({"properties": {"owner": "x"}}, "it is Glance's to set"),
        ({"properties": {"min_disk": "1"}}, "give it beside properties"),
        ({"properties": {"": "x"}}, "is not 1 to 255 characters long"),
        ({"properties": {4: "cpus"}}, "the property name 4 is no text: put it into quotes"),
        ({"properties": {"cpus": 4}}, "the value of the property 'cpus' is 4, which is no text"),
        ({"properties": {"on": True}}, "which is no text: put it into quotes"),
        ({"properties": {"none": None}}, "which is no text"),
        ({"properties": {"deep": {"a": "b"}}}, "which is no text"),
        ({"properties": {f"p{n}": "x" for n in range(129)}}, "129 properties and 128 are allowed"),
        ({"members": ["p"], "visibility": "private"}, "an image with members is shared"),
        ({"label": "daily"}, "a label needs a server or an instance"),
        ({"instance": {"id": "inst-1"}}, "no installation is known"),
        ({"instance": {"installation": "x", "id": "i"}}, "is not a UUID"),
        ({"instance": of_instance("i"), "label": "two words"}, "the relation label"),
        ({"kind": "other"}, "not an allowed value"),
    ],
)
def test_a_template_that_cannot_become_an_image_is_refused(
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


def test_a_value_may_come_from_a_resource_that_is_still_to_be_made(user: User) -> None:
    said = imported(properties={"secret": {"get_attr": ["random", "value"]}})
    said["resources"]["random"] = {"type": "OS::Heat::RandomString"}
    stack, image_id = created(user, said)
    assert user.image(image_id)["secret"] == stack["random"].FnGetAtt("value")


def later(**properties: Any) -> dict[str, Any]:
    """An image of which every single value comes from a resource that is made before it."""
    resources: dict[str, Any] = {}

    def source_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: source_of(part) for name, part in value.items()}
        name = f"value-{len(resources)}"
        resources[name] = {"type": "OS::Heat::Value", "properties": {"value": value}}
        return {"get_attr": [name, "value"]}

    said = template(**{name: source_of(value) for name, value in properties.items()})
    said["resources"] |= resources
    return said


def test_a_property_may_have_any_name(user: User) -> None:
    named = {"kind": "a", "label": "b", "instance_id": "c", "properties": "d", "lable": "e"}
    backup = {"kind": "backup", "label": "daily", "instance": of_instance("inst-1")}
    _, image_id = created(user, imported(properties=named, **backup))
    image = user.image(image_id)
    assert {name: image[name] for name in named} == named
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]


@pytest.mark.parametrize("kind", [Stack, ConvergingStack])
def test_every_value_may_come_from_a_resource_that_is_still_to_be_made(
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
        ({"container_format": "ami", "disk_format": "ari"}, "disk_format must be the same"),
        ({"instance": {"installation": "", "id": "i"}}, "no installation is known"),
        ({"instance": of_instance("i"), "label": "two words"}, "the relation label"),
        ({"members": ["p"], "visibility": "private"}, "an image with members is shared"),
    ],
)
def test_what_comes_later_is_looked_at_then(
    user: User, properties: dict[str, Any], message: str
) -> None:
    stack = Stack(user, later(**(source() | properties))).create()
    assert stack.state == "CREATE_FAILED"
    assert message in stack.reason
    assert user.recorder.bodies("POST") == []


def test_a_parameter_is_known_before_anything_is_made(user: User) -> None:
    said = template(**source() | {"location": {"get_param": "from"}})
    said["parameters"] = {"from": {"type": "string"}}
    with pytest.raises(StackValidationFailed, match="the image has no source"):
        Stack(user, said, **{"from": ""}).validate()


def test_a_protected_image_is_kept_and_the_stack_says_so(user: User) -> None:
    stack, image_id = created(user, imported(protected=True))
    stack.delete()
    assert stack.state == "DELETE_FAILED"
    assert f"the image {image_id} is protected, so it stays and so does the stack" in stack.reason
    assert "account" not in stack.reason
    assert user.image(image_id)["status"] == "active"
    updated(stack, imported(protected=False))
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_image_in_use_is_kept_and_the_stack_says_so(user: User) -> None:
    stack, image_id = created(user, imported())
    server = str(uuid4())
    said = {"installation_uuid": INSTALLATION, "instance_id": server, "image_id": image_id}
    assert user.ask("POST", "/relations", json=said | {"kind": "boot"}).status_code == 201
    stack.delete()
    assert stack.state == "DELETE_FAILED"
    assert "answered 409" in stack.reason
    assert server in stack.reason
    assert user.ask("DELETE", f"/instances/{INSTALLATION}/{server}").status_code == 204
    assert stack.delete().state == "DELETE_COMPLETE"


def test_a_change_that_glance_refuses_is_told_and_the_image_is_not_made_again(user: User) -> None:
    stack, image_id = created(user, imported(properties={"a": "1"}))
    stack.update(template(**(source() | {"disk_format": "qcow2"}), properties={"a": "1"}))
    assert stack.state == "UPDATE_FAILED"
    assert "disk_format" in stack.reason
    updated(stack, imported(properties={"a": "2"}))
    assert stack["image"].resource_id == image_id
    assert user.image(image_id)["a"] == "2"


def test_the_relation_is_kept_in_step(user: User) -> None:
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


def test_who_may_not_record_is_told_and_nothing_is_made(member: User) -> None:
    stack = Stack(member, imported(name="refused", instance=of_instance("inst-1"))).create()
    assert stack.state == "CREATE_FAILED"
    assert "the stack's user has no recording role" in stack.reason
    assert "[related_images] of heat.conf" in stack.reason
    assert member.ask("GET", "/images?name=refused").json()["images"] == []
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_image_that_was_there_is_described_and_stays(user: User) -> None:
    body = {"name": "there", "disk_format": "raw", "container_format": "bare", "a": "1"}
    image_id = user.ask("POST", "/images", json=body).json()["id"]
    said = {"image": image_id, "instance": of_instance("inst-1")}
    stack, described = created(user, template(**said, properties={"b": "2"}))
    assert described == image_id
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    updated(stack, template(**said, properties={"b": "3"}))
    assert user.recorder.bodies("PATCH") == [[{"op": "replace", "path": "/b", "value": "3"}]]
    assert stack.delete().state == "DELETE_COMPLETE"
    image = user.image(image_id)
    assert (image["name"], image["a"], image["b"]) == ("there", "1", "3")
    assert relations(user, image_id) == []


def changed_elsewhere(user: User, image_id: str) -> None:
    """What somebody does to the image past Heat."""
    changes: list[dict[str, Any]] = [
        {"op": "replace", "path": "/name", "value": "theirs"},
        {"op": "replace", "path": "/a", "value": "2"},
        {"op": "remove", "path": "/b"},
        {"op": "add", "path": "/c", "value": "3"},
        {"op": "replace", "path": "/tags", "value": ["added"]},
    ]
    assert patched(user, image_id, changes) == 200


MINE: dict[str, Any] = {"name": "mine", "properties": {"a": "1", "b": "2"}, "tags": ["kept"]}


def is_put_right(user: User, image_id: str) -> None:
    image = user.image(image_id)
    assert (image["name"], image["a"], image["b"], image["c"]) == ("mine", "1", "2", "3")
    assert sorted(image["tags"]) == ["added", "kept"]


def test_a_check_finds_what_was_changed_and_an_update_puts_it_right(user: User) -> None:
    stack, image_id = created(user, imported(**MINE))
    assert stack.check().state == "CHECK_COMPLETE"
    changed_elsewhere(user, image_id)
    assert stack.check().state == "CHECK_FAILED"
    assert "not as the template says any more: /a, /b, /name, /tags" in stack.reason
    updated(stack, imported(**MINE))
    assert stack["image"].resource_id == image_id
    is_put_right(user, image_id)
    assert stack.check().state == "CHECK_COMPLETE"
    assert user.ask("DELETE", f"/images/{image_id}").status_code == 204
    assert stack.check().state == "CHECK_FAILED"


def test_an_update_sees_what_was_changed_where_heat_observes(user: User) -> None:
    stack, image_id = created(user, imported(**MINE))
    changed_elsewhere(user, image_id)
    updated(stack, imported(**MINE))
    assert user.image(image_id)["name"] == "theirs"
    with observing():
        updated(stack, imported(**MINE))
        assert stack["image"].resource_id == image_id
        is_put_right(user, image_id)
        user.recorder.sent.clear()
        updated(stack, imported(**MINE))
        assert user.recorder.bodies("PATCH") == []
        assert user.ask("DELETE", f"/images/{image_id}").status_code == 204
        updated(stack, imported(**MINE))
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
    said = imported(properties={"cpus": value})
    said["parameters"] = {"cpus": {"type": "number"}}
    return said


def test_a_number_that_a_parameter_gives_becomes_text_as_the_refusal_says(user: User) -> None:
    parameter = {"get_param": "cpus"}
    with pytest.raises(StackValidationFailed, match="gives becomes text by str_replace"):
        Stack(user, number_of_cpus(parameter), cpus="4").validate()
    text = {"str_replace": {"template": "n", "params": {"n": parameter}}}
    _stack, image_id = created(user, number_of_cpus(text), cpus="4")
    assert user.image(image_id)["cpus"] == "4"


def test_glance_is_not_asked_for_an_image_that_was_never_made(user: User) -> None:
    stack = Stack(user, later(**(source() | {"location": ""}))).create()
    assert (stack.state, stack["image"].resource_id) == ("CREATE_FAILED", None)
    assert stack.check().state == "CHECK_FAILED"
    assert "there is no image: it was never made" in stack.reason
    assert stack["image"].FnGetAtt("show") is None
    with observing():
        updated(stack, imported())
    assert not any("None" in path for path in user.recorder.paths)


NOBODY = ""
"""A project that an image cannot be shared with."""


def failed_then_back(stack: Stack, said: dict[str, Any]) -> None:
    """An update that fails, after which the engine goes back to the template before."""
    stack.update_or_go_back(said)
    assert (stack.state, stack.reason[:27]) == (
        "ROLLBACK_COMPLETE",
        "Stack ROLLBACK completed su",
    )


KINDS = pytest.mark.parametrize("kind", [Stack, ConvergingStack])


@KINDS
def test_going_back_undoes_what_an_update_that_failed_did(user: User, kind: type[Stack]) -> None:
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
        members=["two", "three", "their-member", NOBODY],
        properties={"b": "2", "theirs": "mine"},
        tags=["u"],
        min_ram=64,
        name="other",
        architecture="x86_64",
    )
    failed_then_back(stack, failing)
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    assert members(user, image_id) == shared_with
    assert {**user.image(image_id), "updated_at": ""} == {**before, "updated_at": ""}
    assert stack.check().state == "CHECK_COMPLETE"
    assert any(body == {"member": "three"} for body in user.recorder.bodies("POST", "/members"))


@KINDS
def test_going_back_undoes_a_relation_though_glance_refused_the_rest(
    user: User, kind: type[Stack]
) -> None:
    said = {"instance": of_instance("inst-1"), "kind": "backup", "label": "daily"}
    stack = kind(user, imported(**said)).create()
    image_id = stack["image"].resource_id
    refused = source() | {"disk_format": "qcow2"}
    failed_then_back(stack, template(**refused, instance=of_instance("inst-2")))
    assert relations(user, image_id) == [("inst-1", "backup", "daily")]


def test_an_update_after_one_that_failed_takes_away_what_neither_template_names(
    user: User,
) -> None:
    stack, image_id = created(user, imported(members=["one"]))
    stack.update(imported(members=["one", "two", NOBODY], properties={"b": "2"}))
    assert stack.state == "UPDATE_FAILED"
    assert user.image(image_id)["b"] == "2"
    updated(stack, imported(members=["one", "three"]))
    assert members(user, image_id) == ["one", "three"]
    assert "b" not in user.image(image_id)


@KINDS
@pytest.mark.parametrize("label", ["daily", None])
def test_a_check_finds_a_lost_relation_or_member_and_an_update_puts_it_right(
    user: User, kind: type[Stack], label: str | None
) -> None:
    more = {} if label is None else {"label": label}
    said = imported(instance=of_instance("inst-1"), kind="backup", members=["one"], **more)
    stack = kind(user, said).create()
    image_id = stack["image"].resource_id
    assert stack.check().state == "CHECK_COMPLETE"
    removed(user, f"/images/{image_id}/members/one")
    removed(user, f"/images/{image_id}/relations/{INSTALLATION}/inst-1/backup")
    assert stack.check().state == "CHECK_FAILED"
    assert "it is not shared with one" in stack.reason
    assert "the backup relation with the instance inst-1 is gone" in stack.reason
    updated(stack, said)
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


def test_any_update_puts_a_lost_relation_and_member_right(user: User) -> None:
    more = {"instance": of_instance("inst-1"), "members": ["one"]}
    stack, image_id = created(user, imported(**more))
    removed(user, f"/images/{image_id}/members/one")
    removed(user, f"/images/{image_id}/relations/{INSTALLATION}/inst-1/snapshot")
    updated(stack, imported(**more, properties={"a": "1"}))
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]
    assert members(user, image_id) == ["one"]


def test_an_update_sees_a_lost_relation_or_member_where_heat_observes(user: User) -> None:
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
    asked = user.ask("PATCH", f"/images/{image_id}", json=operations, headers=headers)
    return int(asked.status_code)


PASSWORD = "s3cret"


def secret(name: str) -> str:
    """A location with credentials, where there is ``name``."""
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
def test_credentials_in_a_location_are_not_told(
    user: User, caplog: pytest.LogCaptureFixture, location: str
) -> None:
    with caplog.at_level("DEBUG"):
        stack = Stack(user, template(**(source() | {"location": location}))).create()
    assert stack.state == "CREATE_FAILED"
    assert PASSWORD not in stack.reason
    ours = [it for it in caplog.records if it.name.startswith(("related_images", "keystoneauth"))]
    assert not any(PASSWORD in it.getMessage() for it in ours)
    assert not any(PASSWORD in (it.exc_text or "") for it in caplog.records)
    assert stack.delete().state == "DELETE_COMPLETE"
