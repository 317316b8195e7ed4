"""``image dependent list``, with a real Glance; names, gaps, projects."""

import json
from typing import Any

import pytest
from osc_lib.exceptions import CommandError

from related_images.osc.image_dependents import ListDependent
from tests.client.scripted import Scripted
from tests.osc.compute import Compute
from tests.osc.running import Cloud, Instance
from tests.osc.test_image_lineage import start


@pytest.fixture
def base(instance: Instance) -> str:
    """An image with a server of it, a server of an image made from that, and a server on a volume.

    The last one was made from a volume that was made from the image.
    """
    image = instance.image("base")
    child = start(instance, f"{instance.id}-child", image)
    start(instance, f"{instance.id}-leaf", child.image("made"))
    volume = {
        "installation_uuid": instance.installation,
        "instance_id": f"{instance.id}-disk",
        "resource_type": "volume",
    }
    body: dict[str, Any] = {**volume, "image_id": image, "kind": "boot"}
    body |= {"instance_project_id": instance.project}
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
    assert answer.status == 201, answer.body
    one = {
        "installation_uuid": instance.installation,
        "resource_type": "server",
        "instance_id": f"{instance.id}-on-disk",
        "source": volume,
        "since": "2026-01-31T02:00:00Z",
        "project_id": instance.project,
    }
    answer = instance.glance.request(
        "POST", "/v2/origins", instance.recorder, body={"origins": [one]}
    )
    assert answer.json["origins"][0]["status"] == 201, answer.body
    return image


def test_the_list_has_servers_and_volumes_at_any_depth(
    instance: Instance, base: str, member: Cloud
) -> None:
    listed = member.listed(ListDependent, base)
    assert (listed.code, listed.errors) == (0, "")
    names = [row["Resource ID"].removeprefix(f"{instance.id}-") for row in listed.rows]
    assert names == ["child", "disk", "on-disk", "leaf"]
    assert listed.column("Depth") == [1, 1, 1, 2]
    assert listed.column("Resource Type") == ["server", "volume", "server", "server"]
    assert listed.column("Via") == ["", "", f"volume {instance.id}-disk", ""]
    assert listed.column("Image Name") == ["base", "base", "base", "made"]
    assert member.listed(ListDependent, base, "--direct").column("Depth") == [1, 1, 1]
    only = member.listed(ListDependent, base, "--resource-type", "volume", "--long")
    assert only.column("Kind") == ["boot"]
    assert len(member.listed(ListDependent, base, "--project", instance.project).rows) == 4


def test_ended_resources_are_listed_apart(instance: Instance, base: str, member: Cloud) -> None:
    path = f"/v2/instances/{instance.installation}/{instance.id}-leaf"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    assert len(member.listed(ListDependent, base).rows) == 3
    (gone,) = member.listed(ListDependent, base, "--ended", "--long").rows
    assert gone["Resource ID"] == f"{instance.id}-leaf"
    assert gone["Ended At"].endswith("Z")


def test_projects_have_numbers(instance: Instance, base: str, member: Cloud) -> None:
    (row,) = member.listed(ListDependent, base, "--by-project", "--long").rows
    assert row == {
        "Project ID": instance.project,
        "Servers": 3,
        "Volumes": 1,
        "Others": 0,
        "Direct": 3,
        "Indirect": 1,
        "Ended": 0,
        "Images": 1,
        "Image Size": 0,
    }
    for filter in (("--direct",), ("--ended",), ("--project", "x"), ("--resource-type", "volume")):
        with pytest.raises(CommandError, match="--by-project counts all resources"):
            member.run(ListDependent, base, "--by-project", *filter)


@pytest.mark.parametrize("option", [(), ("--by-project",)])
def test_a_gap_is_an_error_on_stderr_and_the_exit_code_3(
    instance: Instance, base: str, member: Cloud, option: tuple[str, ...]
) -> None:
    body = {"uuid": instance.installation, "name": f"east-{instance.id}", "witnesses": ["nova-bus"]}
    admin = "admin:admin:admin"
    answer = instance.glance.request("POST", "/v2/installations", admin, body=body)
    assert answer.status == 201, answer.body
    try:
        done = member.openstack("image", "dependent", "list", "-f", "json", base, *option)
    finally:
        path = f"/v2/installations/{instance.installation}"
        assert instance.glance.request("DELETE", path, admin).status == 204
    assert done.code == 3
    assert f"nothing is known from nova-bus of installation {instance.installation}" in done.errors
    assert json.loads(done.said)


@pytest.mark.slow
def test_names_of_servers_and_volumes_are_shown(
    instance: Instance, base: str, nova: Compute, scripted: Scripted
) -> None:
    nova.add(f"{instance.id}-child", instance.project, name="web")
    nova.volumes[f"{instance.id}-disk"] = "data"
    cloud = Cloud(instance.glance.url, instance.member, nova.url)
    done = cloud.openstack("image", "dependent", "list", "-f", "json", base)
    assert (done.code, done.errors) == (0, "")
    assert done.column("Resource Name") == ["web", "data", None, None]
