"""``image ancestry list`` and ``image descendant list``."""

from uuid import uuid4

import pytest

from related_images.cli.descent import ListAncestry, ListDescendant
from related_images.cli.relation import CreateRelation
from related_images.client import NotInstanceAware, NotThere
from tests.cli.running import Cloud, Instance
from tests.servers import ServedGlance


def started_from(recorder: Cloud, image_id: str, child: Instance) -> Instance:
    """Say that ``child`` was started from the image."""
    boot = ("--kind", "boot", "--installation", child.installation, child.id, image_id)
    assert recorder.run(CreateRelation, "--instance-project", child.project, *boot).code == 0
    return child


@pytest.fixture
def generations(instance: Instance, recorder: Cloud) -> list[str]:
    """Images, each made from an instance that was started from the one before."""
    images = [instance.image("base")]
    for name in ("middle", "leaf"):
        child = started_from(recorder, images[-1], instance.elsewhere())
        images.append(child.image(name, kind="backup"))
    return images


def test_ancestors_are_listed_from_the_nearest(
    instance: Instance, member: Cloud, generations: list[str]
) -> None:
    listed = member.listed(ListAncestry, "leaf")
    assert listed.column("Image ID") == generations[1::-1]
    assert set(listed.column("Kind")) == {"backup"}
    assert set(listed.column("Instance ID")) == {instance.id}
    assert member.listed(ListAncestry, "--limit", "1", "leaf").rows == listed.rows[:1]
    assert member.listed(ListAncestry, generations[0]).rows == []


def test_descendants_are_listed_with_their_depth(member: Cloud, generations: list[str]) -> None:
    base, middle, leaf = generations
    first, second = member.listed(ListDescendant, "base").rows
    assert (first["Depth"], first["Image ID"], first["Parent Image ID"]) == (1, middle, base)
    assert (second["Depth"], second["Image ID"], second["Parent Image ID"]) == (2, leaf, middle)
    assert first["Installation UUID"] != second["Installation UUID"]
    assert member.listed(ListDescendant, "--depth", "1", base).rows == [first]
    assert member.listed(ListDescendant, leaf).rows == []


def test_what_is_deleted_is_shown_as_such(
    instance: Instance, member: Cloud, generations: list[str]
) -> None:
    middle = generations[1]
    instance.glance.request("DELETE", f"/v2/images/{middle}", instance.member)
    nearest, root = member.listed(ListAncestry, "--long", generations[2]).rows
    assert nearest["Image Deleted At"].endswith("Z")
    assert root["Image Deleted At"] is None
    assert nearest["Created At"].endswith("Z")


def test_of_another_project_nothing_is_told(
    instance: Instance, recorder: Cloud, member: Cloud
) -> None:
    base = instance.image("base")
    public = instance.glance.request(
        "PATCH",
        f"/v2/images/{base}",
        "root:admin:admin,member",
        {"Content-Type": "application/openstack-images-v2.1-json-patch"},
        b'[{"op": "replace", "path": "/visibility", "value": "public"}]',
    )
    assert public.status == 200, public.body
    other = Instance(instance.glance, str(uuid4()), "theirs", f"other-{instance.project}")
    started_from(recorder, base, other).image("secret")
    assert member.listed(ListDescendant, base).rows == []


@pytest.mark.parametrize("command", [ListAncestry, ListDescendant])
def test_an_unknown_image(command: type[ListAncestry], member: Cloud) -> None:
    with pytest.raises(NotThere, match="no image"):
        member.listed(command, str(uuid4()))


@pytest.mark.parametrize("command", [ListAncestry, ListDescendant])
def test_without_the_filter(command: type[ListAncestry], plain_glance: ServedGlance) -> None:
    with pytest.raises(NotInstanceAware, match="install related-images there"):
        Cloud(plain_glance.url, "alice:demo:member").listed(command, str(uuid4()))
