"""``image relation``: list, create, delete."""

import argparse
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from keystoneauth1.adapter import Adapter

from related_images.client import Forbidden, NotFound, NotInstanceAware, RelationsClient
from related_images.osc import arguments
from related_images.osc.image_relation import CreateRelation, DeleteRelation, ListRelation
from related_images.osc.image_usage import ListImageUsage
from related_images.validation import argument
from tests.client.clients import session
from tests.client.scripted import Scripted, shown
from tests.osc.running import Cloud, Instance
from tests.servers import ServedGlance


def test_relations_are_listed_newest_first(instance: Instance, member: Cloud) -> None:
    made = [instance.image("monday"), instance.image("tuesday", kind="backup", label="daily")]
    newest, oldest = member.listed(ListRelation).rows
    assert [newest["Image ID"], oldest["Image ID"]] == made[::-1]
    assert list(newest.items())[1:-2] == [
        ("Image Name", "tuesday"),
        ("Kind", "backup"),
        ("Label", "daily"),
        ("Resource Type", "server"),
        ("Resource ID", instance.id),
        ("Server Name", None),
        ("Installation UUID", instance.installation),
    ]
    assert newest["Created At"].endswith("Z")
    assert newest["Deleted At"] is None


def test_long_shows_additional_columns(instance: Instance, member: Cloud) -> None:
    image_id = instance.image("monday")
    instance.glance.request("DELETE", f"/v2/images/{image_id}", instance.member)
    (row,) = member.listed(ListRelation, "--long").rows
    assert (row["Source"], row["Project ID"]) == ("service", instance.project)


def test_a_deleted_image_is_marked(instance: Instance, member: Cloud) -> None:
    gone, there = instance.image("monday"), instance.image("tuesday")
    instance.glance.request("DELETE", f"/v2/images/{gone}", instance.member)
    rows = {row["Image ID"]: row for row in member.listed(ListRelation).rows}
    assert rows[gone]["Deleted At"].endswith("Z")
    assert rows[there]["Deleted At"] is None
    for format in ("table", "value"):
        sorted_by = ("--sort-column", "Deleted At", "-f", format)
        shown = member.openstack("image", "relation", "list", *sorted_by).said
        lines = [line for line in shown.splitlines() if gone in line or there in line]
        assert gone in lines[0]  # missing values are sorted last
        assert rows[gone]["Deleted At"] in lines[0]
        assert "None" not in shown


def test_filters(instance: Instance, member: Cloud) -> None:
    snapshot = instance.image("monday")
    backup = instance.image("tuesday", kind="backup", label="daily")
    there = instance.elsewhere().image("wednesday")

    def found(*arguments: str) -> set[str]:
        return set(member.listed(ListRelation, *arguments).column("Image ID"))

    assert found("--server", instance.id) == {snapshot, backup, there}
    assert found("--installation", instance.installation) == {snapshot, backup}
    assert found("--kind", "backup") == found("--label", "daily") == {backup}
    assert found("--source", "manual") == found("--project", "another") == set()
    assert found("--created-after", "2020-01-01") == {snapshot, backup, there}
    assert found("--created-before", "2020-01-01T00:00:00+02:00") == set()
    assert found("tuesday") == found(backup) == found(backup, "--kind", "backup") == {backup}
    assert found(backup, "--kind", "snapshot") == set()


def test_limit_and_sorting(instance: Instance, member: Cloud) -> None:
    made = [instance.image(f"image {number}") for number in range(3)]
    assert member.listed(ListRelation, "--limit", "2").column("Image ID") == made[:0:-1]
    ordered = member.listed(ListRelation, "--sort-column", "Image ID").column("Image ID")
    assert ordered == sorted(made)


def test_pages_are_read_to_the_end(scripted: Scripted) -> None:
    relation = {
        "installation_uuid": str(uuid4()),
        "instance_id": "web-1",
        "image_id": str(uuid4()),
        "kind": "snapshot",
        "label": None,
        "source": "service",
        "project_id": "demo",
        "created_at": "2026-01-31T12:00:00.000000Z",
        "image_created_at": None,
        "image_deleted_at": None,
    }
    page = {"relations": [relation] * 2}
    more = page | {"next": "/v2/relations?marker=abc"}
    scripted.script = lambda asked: shown(page if "marker" in asked.query else more)
    cloud = Cloud(scripted.url, "t")
    assert len(cloud.listed(ListRelation).rows) == 4
    assert len(cloud.listed(ListRelation, "--limit", "3").rows) == 3
    asked = [asked.query for asked in scripted.of("GET", "/v2/relations")]
    assert asked == ["limit=1000", "marker=abc", "limit=3", "marker=abc"]


def test_relations_of_an_unknown_image(member: Cloud) -> None:
    with pytest.raises(NotFound, match="no image"):
        member.listed(ListRelation, str(uuid4()))


def test_several_images_are_attached(instance: Instance, recorder: Cloud) -> None:
    other = instance.elsewhere()
    images = [other.image("one"), other.image("two")]
    arguments = ("--kind", "backup", "--label", "daily", "--installation", instance.installation)
    for _ in range(2):
        done = recorder.listed(CreateRelation, *arguments, instance.id, "one", images[1])
        assert done.code == 0
        assert done.column("Image ID") == images
        assert set(done.column("Label")) == {"daily"}
        assert set(done.column("Installation UUID")) == {instance.installation}
    found = recorder.listed(ListRelation, "--installation", instance.installation)
    assert sorted(found.column("Image ID")) == sorted(images)


def test_the_project_of_a_boot_relation(instance: Instance, recorder: Cloud) -> None:
    image_id = instance.image("base")
    booting = ("--kind", "boot", "--resource-project", "tenant", instance.id, image_id)
    assert recorder.listed(CreateRelation, *booting).column("Project ID") == ["tenant"]
    tenant = Cloud(recorder.url, "bob:tenant:member")
    shown = tenant.listed(ListRelation, "--server", instance.id)
    assert shown.column("Image ID") == [image_id]


def test_after_a_failure_the_other_images_are_processed(
    instance: Instance, recorder: Cloud
) -> None:
    first, last, missing = instance.image("one"), instance.image("two"), str(uuid4())
    asked = ("--kind", "boot", instance.id, first, missing, "nothing", last)
    done = recorder.listed(CreateRelation, *asked)
    assert done.code == 1
    assert done.column("Image ID") == [first, last]
    unknown, unnamed, count = done.errors.splitlines()
    assert unknown.startswith(f"{missing}: POST /v2/relations answered 404: ")
    assert unnamed.startswith("nothing: this account sees no image with the name or ID 'nothing'")
    assert count == "2 of 4 failed"
    taken = recorder.run(DeleteRelation, *asked)
    assert (taken.code, taken.said) == (1, "")
    assert taken.errors.splitlines()[-1] == "2 of 4 failed"
    left = recorder.listed(ListRelation, "--server", instance.id)
    assert set(left.column("Kind")) == {"snapshot"}
    assert sorted(left.column("Image ID")) == sorted([first, last])


def test_a_member_may_not_record(instance: Instance, member: Cloud) -> None:
    image_id = instance.image("one")
    for command in (CreateRelation, DeleteRelation):
        told = member.run(command, "--kind", "snapshot", instance.id, image_id)
        assert told.code == 1
        refused, count = told.errors.splitlines()
        assert "answered 403: one of these roles is needed" in refused
        assert count == "1 of 1 failed"
    assert len(member.listed(ListRelation).rows) == 1


def test_without_the_filter_no_further_request_is_sent(plain_glance: ServedGlance) -> None:
    plain = Cloud(plain_glance.url, "nova:demo:member,service")
    some = ("--installation", str(uuid4()), "--kind", "boot", "web-1", "name")
    for command, words in (
        (ListRelation, ()),
        (ListRelation, ("name",)),
        (CreateRelation, some),
        (DeleteRelation, some),
    ):
        with pytest.raises(NotInstanceAware, match="install related-images there"):
            plain.run(command, *words)


def test_a_user_without_a_role_is_refused(instance: Instance) -> None:
    instance.image("one")
    nobody = Cloud(instance.glance.url, f"eve:{instance.project}:nothing")
    with pytest.raises(Forbidden, match="check the roles of the account"):
        nobody.listed(ListRelation, "one")


def test_relations_of_a_volume_beside_a_server_with_the_same_id(
    instance: Instance, member: Cloud, recorder: Cloud
) -> None:
    image_id = instance.image("monday")
    of_volume = ("--resource-type", "volume", "--installation", instance.installation)
    arguments = ("--kind", "snapshot", *of_volume, instance.id, image_id)
    (row,) = recorder.listed(CreateRelation, *arguments).rows
    assert (row["Resource Type"], row["Resource ID"]) == ("volume", instance.id)

    def types(*arguments: str) -> list[str]:
        return sorted(member.listed(ListRelation, *arguments).column("Resource Type"))

    assert types() == ["server", "volume"]
    assert types("--server", instance.id) == ["server"]
    assert types("--resource-type", "volume") == ["volume"]
    assert types("--resource-type", "volume", "--server", instance.id) == ["volume"]
    assert types("--resource-type", "volume-backup") == []
    found_by_id = ("--kind", "snapshot", "--resource-type", "volume", instance.id, image_id)
    assert recorder.run(DeleteRelation, *found_by_id).code == 0
    assert types() == ["server"]


def test_a_malformed_type_is_a_usage_error(recorder: Cloud) -> None:
    done = recorder.openstack("image", "relation", "list", "--resource-type", "a b")
    assert done.code == 2
    assert "argument --resource-type: the resource type 'a b' is malformed" in done.errors


def test_a_list_by_an_unknown_type_is_empty(instance: Instance, recorder: Cloud) -> None:
    instance.image("monday")
    assert recorder.listed(ListRelation, "--resource-type", "unheard-of").rows == []


@pytest.fixture
def stacks(recorder: Cloud) -> None:
    """The type ``stack`` is registered."""
    admin = RelationsClient(
        Adapter(session(recorder.url, "root:admin:admin"), service_type="image")
    )
    admin.register_resource_type("stack")


def test_a_lease_is_created_extended_and_ended(
    instance: Instance, recorder: Cloud, stacks: None
) -> None:
    image_id = instance.image("base")
    of_stack = ("--resource-type", "stack", "--installation", instance.installation)
    common = ("--kind", "use", *of_stack, "--resource-project", instance.project)

    def create(expires: str) -> str:
        done = recorder.listed(CreateRelation, *common, "--expires", expires, "st-1", "base")
        (row,) = done.rows
        assert (row["Kind"], row["Resource Type"], row["Resource ID"]) == ("use", "stack", "st-1")
        return str(row["Expires At"])

    first = create("7d")
    assert first.startswith(f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}")
    until = f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%dT%H:%M:%SZ}"
    assert create(until) == until
    assert create("1d") == until
    (row,) = recorder.listed(ListRelation, "--kind", "use", image_id).rows
    assert row["Expires At"] == until
    assert list(row)[-1] == "Expires At"
    ends = recorder.listed(ListRelation, "--long", image_id).column("Expires At")
    assert sorted(ends, key=str) == [until, None]
    assert "Expires At" not in recorder.listed(ListRelation, image_id).rows[0]
    (used,) = recorder.listed(ListImageUsage, "--long", image_id).rows
    assert (used["Leases"], used["Leases Until"], used["Unused Since"]) == (1, until, None)
    assert recorder.listed(ListImageUsage, "--unused", image_id).rows == []
    ended = ("--kind", "use", "--resource-type", "stack", "st-1", image_id)
    assert recorder.run(DeleteRelation, *ended).code == 0
    assert recorder.listed(ListRelation, "--kind", "use", image_id).rows == []


@pytest.mark.parametrize("expires", ["soon", "14", "2026-13-01", "14d12"])
def test_a_malformed_end_is_a_usage_error(expires: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not"):
        argument(arguments._end)(expires)


def test_a_lease_without_an_end_fails(instance: Instance, recorder: Cloud, stacks: None) -> None:
    of_stack = ("--resource-type", "stack", "--installation", instance.installation)
    done = recorder.run(CreateRelation, "--kind", "use", *of_stack, "st-1", instance.image("base"))
    assert done.code == 1
    assert "the field expires_at is missing; a relation of the kind use needs it" in done.errors
