"""``image ancestry list`` and ``image descendant list``."""

from dataclasses import replace
from uuid import uuid4

import pytest

from related_images.client import NotFound, NotInstanceAware
from related_images.osc.image_ancestry import ListAncestry, ListDescendant
from related_images.osc.image_relation import CreateRelation
from tests.osc.running import Cloud, Instance
from tests.servers import ServedGlance


def started_from(recorder: Cloud, image_id: str, child: Instance) -> Instance:
    """Record that ``child`` was started from the image."""
    boot = ("--kind", "boot", "--installation", child.installation, child.id, image_id)
    assert recorder.run(CreateRelation, "--resource-project", child.project, *boot).code == 0
    return child


@pytest.fixture
def generations(instance: Instance, recorder: Cloud) -> list[str]:
    """Images, each made from a server that was started from the previous image."""
    images = [instance.image("base")]
    for name in ("middle", "leaf"):
        child = started_from(recorder, images[-1], instance.elsewhere())
        images.append(child.image(name, kind="backup"))
    return images


def test_ancestors_are_listed_from_the_nearest(
    instance: Instance, member: Cloud, generations: list[str]
) -> None:
    listed = member.listed(ListAncestry, "leaf")
    assert listed.column("Image ID") == generations[::-1]
    assert listed.column("Depth") == [0, 1, 2]
    assert set(listed.column("Resource ID")) == {instance.id}
    assert member.listed(ListAncestry, "--limit", "1", "leaf").rows == listed.rows[:1]


def test_each_ancestor_has_the_server_that_it_was_made_from(
    instance: Instance, member: Cloud, generations: list[str]
) -> None:
    rows = member.listed(ListAncestry, generations[2]).rows
    assert [row["Kind"] for row in rows] == ["backup", "backup", "snapshot"]
    # the last one was made from the server of the fixture, each other one from its own server
    assert rows[2]["Installation UUID"] == instance.installation
    assert len({row["Installation UUID"] for row in rows}) == 3
    (root,) = member.listed(ListAncestry, generations[0]).rows
    assert root == rows[2] | {"Depth": 0}


def test_an_image_without_a_server_has_no_kind(
    instance: Instance, recorder: Cloud, member: Cloud
) -> None:
    body = {"name": "uploaded", "disk_format": "raw", "container_format": "bare"}
    made = instance.glance.request("POST", "/v2/images", instance.member, body=body)
    uploaded = str(made.json["id"])
    child = started_from(recorder, uploaded, instance.elsewhere()).image("child", kind="backup")
    first, last = member.listed(ListAncestry, "--long", child).rows
    assert (first["Image ID"], first["Kind"]) == (child, "backup")
    assert last.pop("Image ID") == uploaded
    assert last.pop("Image Name") == "uploaded"
    assert last.pop("Depth") == 1
    assert set(last.values()) == {None}


def test_descendants_are_listed_with_their_depth(member: Cloud, generations: list[str]) -> None:
    base, middle, leaf = generations
    first, second = member.listed(ListDescendant, "base").rows
    assert (first["Depth"], first["Image ID"], first["Parent Image ID"]) == (1, middle, base)
    assert (second["Depth"], second["Image ID"], second["Parent Image ID"]) == (2, leaf, middle)
    assert first["Installation UUID"] != second["Installation UUID"]
    assert member.listed(ListDescendant, "--depth", "1", base).rows == [first]
    assert member.listed(ListDescendant, leaf).rows == []


def test_deleted_images_are_marked(
    instance: Instance, member: Cloud, generations: list[str]
) -> None:
    middle = generations[1]
    instance.glance.request("DELETE", f"/v2/images/{middle}", instance.member)
    leaf, nearest, root = member.listed(ListAncestry, "--long", generations[2]).rows
    assert nearest["Deleted At"].endswith("Z")
    assert leaf["Deleted At"] is root["Deleted At"] is None
    assert nearest["Created At"].endswith("Z")
    assert member.listed(ListAncestry, middle).rows[0]["Deleted At"] == nearest["Deleted At"]
    below = member.listed(ListDescendant, generations[0])
    assert below.column("Deleted At") == [nearest["Deleted At"], None]
    table = member.run(ListDescendant, generations[0]).said
    assert nearest["Deleted At"] in table
    assert "None" not in table


def a_public_image(instance: Instance) -> str:
    base = instance.image("base")
    public = instance.glance.request(
        "PATCH",
        f"/v2/images/{base}",
        "root:admin:admin,member",
        {"Content-Type": "application/openstack-images-v2.1-json-patch"},
        b'[{"op": "replace", "path": "/visibility", "value": "public"}]',
    )
    assert public.status == 200, public.body
    return base


def test_images_of_another_project_are_not_listed(
    instance: Instance, recorder: Cloud, member: Cloud
) -> None:
    base = a_public_image(instance)
    other = Instance(instance.glance, str(uuid4()), "theirs", f"other-{instance.project}")
    hidden = started_from(recorder, base, other).image("secret")
    assert member.listed(ListDescendant, base).rows == []
    shown = member.openstack("image", "lineage", "show", base)
    own_server, requested = shown.said.splitlines()
    assert own_server == f"boot: server {instance.id}"
    assert base in requested
    for secret in (hidden, other.id, other.project):
        assert secret not in shown.said


def test_the_ancestry_ends_at_an_image_of_another_project(
    instance: Instance, recorder: Cloud
) -> None:
    secret = instance.image("secret")
    share = {"member": f"other-{instance.project}"}
    path = f"/v2/images/{secret}/members"
    assert instance.glance.request("POST", path, instance.member, body=share).status == 200
    other = Instance(instance.glance, str(uuid4()), "theirs", share["member"])
    started_from(recorder, secret, replace(other, project=instance.project))
    made = other.image("theirs")
    cloud = Cloud(instance.glance.url, other.member)
    (row,) = cloud.listed(ListAncestry, made).rows
    assert (row["Image ID"], row["Kind"], row["Resource ID"]) == (made, "snapshot", "theirs")
    shown = cloud.openstack("image", "ancestry", "list", made)
    assert shown.code == 0
    assert secret not in shown.said
    assert "None" not in shown.said


@pytest.mark.parametrize("command", [ListAncestry, ListDescendant])
def test_an_unknown_image(command: type[ListAncestry], member: Cloud) -> None:
    with pytest.raises(NotFound, match="no image"):
        member.listed(command, str(uuid4()))


@pytest.mark.parametrize("command", [ListAncestry, ListDescendant])
def test_without_the_filter(command: type[ListAncestry], plain_glance: ServedGlance) -> None:
    with pytest.raises(NotInstanceAware, match="install related-images there"):
        Cloud(plain_glance.url, "alice:demo:member").listed(command, str(uuid4()))
