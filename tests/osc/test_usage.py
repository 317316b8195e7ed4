"""``image usage list`` and ``image relation list --in-use`` against the real Glance."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from related_images.client import RelationsClient
from related_images.osc.relation import ListRelation
from related_images.osc.usage import ListImageUsage
from tests.osc.running import Cloud, Instance


def start(instance: Instance, image_id: str, name: str, project: str | None = None) -> str:
    body = {
        "installation_uuid": instance.installation,
        "instance_id": name,
        "image_id": image_id,
        "kind": "boot",
        "instance_project_id": project or instance.project,
    }
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
    assert answer.status == 201, answer.body
    return name


def end(instance: Instance, name: str) -> None:
    path = f"/v2/instances/{instance.installation}/{name}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204


def listed(cloud: Cloud, instance: Instance, *arguments: str) -> dict[str, dict[str, Any]]:
    outcome = cloud.listed(ListImageUsage, "--project", instance.project, *arguments)
    assert outcome.code == 0
    return {row["Image ID"]: row for row in outcome.rows}


@pytest.fixture
def images(instance: Instance) -> tuple[str, str, str]:
    """One in use, one that was, and one that never was and is hidden."""
    used, idle, never = (instance.image(name) for name in ("used", "idle", "never"))
    for image_id, data in ((used, b"12"), (idle, b"1234"), (never, b"1")):
        path = f"/v2/images/{image_id}/file"
        assert instance.glance.request("PUT", path, instance.member, body=data).status == 204
    start(instance, used, f"{instance.id}-1")
    end(instance, start(instance, used, f"{instance.id}-2"))
    end(instance, start(instance, idle, f"{instance.id}-3"))
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    hide = b'[{"op": "replace", "path": "/os_hidden", "value": true}]'
    path = f"/v2/images/{never}"
    assert instance.glance.request("PATCH", path, instance.member, patch, hide).status == 200
    return used, idle, never


def test_use_is_counted_by_image_the_largest_first(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    used, idle, never = images
    rows = listed(recorder, instance, "--long")
    assert list(rows) == [idle, used, never]
    shown = ("Name", "Live Instances", "Instances Ever", "Size", "Hidden")
    assert [[row[name] for name in shown] for row in rows.values()] == [
        ["idle", 0, 1, 4, False],
        ["used", 1, 2, 2, False],
        ["never", 0, 0, 1, True],
    ]
    assert rows[used]["Unused Since"] is None
    assert rows[idle]["Unused Since"].endswith("Z")
    assert rows[never]["Unused Since"] == "never used"


def test_what_nobody_uses_is_found(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    _, idle, never = images
    assert list(listed(recorder, instance, "--unused")) == [idle, never]
    assert list(listed(recorder, instance, "--unused-for", "0h")) == [idle, never]
    assert list(listed(recorder, instance, "--unused-for", "1h")) == []
    assert list(listed(recorder, instance, "--unused", "--limit", "1")) == [idle]
    assert list(listed(recorder, instance, "--unused", "--visibility", "public")) == []


def test_an_image_that_others_use_is_not_unused(
    instance: Instance, member: Cloud, images: tuple[str, str, str]
) -> None:
    used, idle, never = images
    start(instance, idle, f"{instance.id}-4", project="another")
    rows = listed(member, instance, "--long")
    assert {id: row["Used By Others"] for id, row in rows.items()} == {
        used: False,
        idle: True,
        never: False,
    }
    assert (rows[idle]["Unused Since"], rows[idle]["Live Instances"]) == (None, 0)
    assert list(listed(member, instance, "--unused")) == [never]
    assert list(listed(member, instance, "--unused-for", "0h")) == [never]


def test_an_image_of_which_it_is_not_known_is_not_unused(
    instance: Instance,
    member: Cloud,
    images: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where Glance does not say who owns the images."""
    real = RelationsClient.usages
    monkeypatch.setattr(
        RelationsClient,
        "usages",
        lambda *given: (replace(usage, used_by_others=None) for usage in real(*given)),
    )
    assert set(listed(member, instance)) == set(images)
    assert listed(member, instance, "--unused") == {}
    assert any("3 images count as used" in said for said in caplog.messages)


@pytest.mark.usefixtures("images")
def test_who_does_not_see_all_is_told_so(
    instance: Instance, member: Cloud, recorder: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    listed(recorder, instance)
    assert caplog.messages == []
    listed(member, instance)
    (said,) = caplog.messages
    assert "others may use these images" in said


def test_where_no_start_is_recorded_nothing_is_concluded(
    instance: Instance, recorder: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    instance.image("one")
    assert len(listed(recorder, instance, "--unused")) == 1
    (said,) = caplog.messages
    assert "no start from any of these images is recorded" in said
    assert listed(recorder, Instance(instance.glance, "", "", str(uuid4()))) == {}


def test_an_image_of_which_no_start_can_be_recorded_is_left_out(
    instance: Instance,
    recorder: Cloud,
    images: tuple[str, str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = {"name": "odd", "id": str(uuid4()).upper()}
    assert instance.glance.request("POST", "/v2/images", instance.member, body=body).status == 201
    assert set(listed(recorder, instance)) == set(images)
    (said,) = caplog.messages
    assert said.startswith("1 images are left out")


def test_relations_in_use_are_listed(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    scope = ("--in-use", "--installation", instance.installation)
    (row,) = recorder.listed(ListRelation, *scope).rows
    assert (row["Image ID"], row["Instance ID"]) == (images[0], f"{instance.id}-1")
