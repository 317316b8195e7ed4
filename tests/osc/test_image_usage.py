"""``image usage list`` and ``image relation list --in-use`` with a real Glance."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import pytest

from related_images.client import Gap, RelationsClient
from related_images.model import UNKNOWN
from related_images.osc.image_relation import ListRelation
from related_images.osc.image_usage import ListImageUsage
from tests.client.scripted import Asked, Reply, Scripted, shown
from tests.osc.running import Cloud, Instance
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow


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
    """An image in use, one that was in use, and a hidden one that was never in use."""
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


def test_images_are_sorted_by_the_bytes_that_their_deletion_frees(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    used, idle, never = images
    rows = listed(recorder, instance, "--long")
    assert list(rows) == [idle, never, used]
    shown = ("Name", "Live Servers", "Servers Ever", "Size", "Gain", "Hidden")
    assert [[row[name] for name in shown] for row in rows.values()] == [
        ["idle", 0, 1, 4, 4, False],
        ["never", 0, 0, 1, 1, True],
        ["used", 1, 2, 2, 0, False],
    ]
    assert rows[used]["Unused Since"] is None
    assert rows[idle]["Unused Since"].endswith("Z")
    assert rows[never]["Unused Since"] == "never"


def test_unused_images_are_listed(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    _, idle, never = images
    assert list(listed(recorder, instance, "--unused")) == [idle, never]
    assert list(listed(recorder, instance, "--unused-for", "0h")) == [idle, never]
    assert list(listed(recorder, instance, "--unused-for", "1h")) == []
    assert list(listed(recorder, instance, "--unused", "--limit", "1")) == [idle]
    assert list(listed(recorder, instance, "--unused", "--visibility", "public")) == []


def test_an_image_that_another_project_uses_is_not_unused(
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
    assert (rows[idle]["Unused Since"], rows[idle]["Live Servers"]) == (None, 0)
    assert list(listed(member, instance, "--unused")) == [never]
    assert list(listed(member, instance, "--unused-for", "0h")) == [never]


def test_an_image_whose_use_is_unknown_is_not_unused(
    instance: Instance,
    member: Cloud,
    images: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Act as a Glance that does not return the owner of the images."""
    real = RelationsClient.usages
    monkeypatch.setattr(
        RelationsClient,
        "usages",
        lambda *given: (
            replace(usage, used_by_others=None, state=UNKNOWN) for usage in real(*given)
        ),
    )
    assert set(listed(member, instance)) == set(images)
    assert listed(member, instance, "--unused") == {}
    assert any("3 images count as used" in said for said in caplog.messages)
    long = ("--project", instance.project, "--long")
    assert member.listed(ListImageUsage, *long).column("Used By Others") == [None] * 3
    assert member.listed(ListImageUsage, *long).column("Gain") == [0] * 3
    assert member.run(ListImageUsage, *long).said.count(" unknown ") == 3


def test_a_gap_of_a_witness_makes_the_list_incomplete(
    instance: Instance,
    member: Cloud,
    images: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Act as a Glance with an installation whose witness was silent."""
    real, gap = RelationsClient.usages, Gap(instance.installation, "nova-bus", None, None)
    complete = member.run(ListImageUsage, "--project", instance.project)
    assert complete.code == 0
    monkeypatch.setattr(
        RelationsClient,
        "usages",
        lambda *given: (replace(usage, state=UNKNOWN, gaps=(gap,)) for usage in real(*given)),
    )
    outcome = member.run(ListImageUsage, "--project", instance.project)
    assert outcome.code == 3
    known = f"the use of {len(images)} images is unknown: nothing is known from {gap}"
    assert any(known in said for said in caplog.messages)
    assert outcome.said.count(" unknown ") == 3
    assert member.listed(ListImageUsage, "--project", instance.project, "--unused").rows == []


@pytest.mark.usefixtures("images")
def test_a_warning_says_that_servers_may_be_hidden(
    instance: Instance, member: Cloud, recorder: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    listed(recorder, instance)
    assert caplog.messages == []
    listed(member, instance)
    (said,) = caplog.messages
    assert "others may use these images" in said


def test_a_warning_says_that_no_server_start_is_recorded(
    instance: Instance, recorder: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    instance.image("one")
    assert len(listed(recorder, instance, "--unused")) == 1
    (said,) = caplog.messages
    assert "no server is recorded as started from any of these images" in said
    assert listed(recorder, Instance(instance.glance, "", "", str(uuid4()))) == {}


def test_an_image_whose_use_cannot_be_recorded_is_left_out(
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


def test_images_that_nova_left_behind_are_listed(instance: Instance, recorder: Cloud) -> None:
    other, third = instance.another(), instance.another()
    image_id, left = (one.image("shelved", kind="shelved") for one in (instance, other))
    deleted = third.image("shelved", kind="shelved")
    backup = other.image("backup", kind="backup")
    assert listed(recorder, instance, "--leftovers") == {}
    for one in (other, third):
        end(instance, one.id)
    assert instance.glance.request("DELETE", f"/v2/images/{deleted}", instance.member).status == 204
    assert list(listed(recorder, instance, "--leftovers")) == [left]
    assert listed(recorder, instance, "--leftovers", "--visibility", "public") == {}
    unused = listed(recorder, instance, "--unused")
    assert unused.keys() == {left, backup}
    rows = listed(recorder, instance, "--long")
    assert {id: row["Shelved Servers"] for id, row in rows.items()} == {
        image_id: 1,
        left: 0,
        backup: 0,
    }


def test_relations_in_use_are_listed(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    scope = ("--in-use", "--installation", instance.installation)
    (row,) = recorder.listed(ListRelation, *scope).rows
    assert (row["Image ID"], row["Resource ID"]) == (images[0], f"{instance.id}-1")


USAGE = ("image", "usage", "list", "-f", "json")


def test_images_are_listed_in_pages(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    used, idle, never = images
    more = [instance.image(f"more {number}") for number in range(2)]
    pages, marker = list[list[str]](), list[str]()
    for is_last in (False, False, True):
        scope = ("--project", instance.project, "--limit", "2")
        page = recorder.openstack(*USAGE, *scope, *marker)
        assert page.code == 0
        pages.append(page.column("Image ID"))
        marker = ["--marker", pages[-1][-1]]
        said = f"there are more images; for the next page give --marker {pages[-1][-1]}"
        assert page.errors.splitlines() == ([] if is_last else [said])
    assert pages == [[idle, never], [used, min(more)], [max(more)]]


def test_a_hundred_are_listed_unless_a_limit_is_given(
    instance: Instance, recorder: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(default: 100)" in recorder.openstack("image", "usage", "list", "--help").said
    monkeypatch.setattr(ListImageUsage, "limit", 2)
    for number in range(3):
        instance.image(f"{number}")
    assert len(listed(recorder, instance)) == 2
    assert len(listed(recorder, instance, "--limit", "3")) == 3


def test_only_one_page_is_kept_in_memory(scripted: Scripted) -> None:
    peaks = [peak_of_usage(scripted, pages) for pages in (2, 8)]
    assert peaks[1] < peaks[0] * 1.5


def peak_of_usage(scripted: Scripted, pages: int) -> int:
    """Return the bytes of memory for a list of ten images, with this number of pages of 1000."""

    def answer(asked: Asked) -> Reply:
        scripted.asked.clear()  # the memory of the test is not the command's
        query = dict(parse_qsl(asked.query))
        if asked.path.endswith("/usages"):
            usages = [
                {
                    "image_id": image_id,
                    "instances": 0,
                    "live_instances": 0,
                    "unused_since": None,
                    "used_by_others": False,
                    "state": "unused",
                }
                for image_id in json.loads(asked.body)["image_ids"]
            ]
            return shown({"usages": usages, "all_projects": True})
        number = int(query.get("marker", "0"))
        if query.get("os_hidden") == "true" or number == pages:
            return shown({"images": []})
        ids = [f"00000000-0000-4000-8000-{number:06d}{n:06d}" for n in range(1000)]
        page = {"images": [{"id": id, "name": "x", "size": int(id[-6:])} for id in ids]}
        return shown(page | {"next": f"/v2/images?marker={number + 1}"})

    scripted.script = answer
    tracemalloc.start()
    outcome = Cloud(scripted.url, "t").listed(ListImageUsage, "--limit", "10")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.column("Size")[0] == 999
    assert len(outcome.rows) == 10
    return peak


def test_images_on_the_command_line(
    instance: Instance, recorder: Cloud, images: tuple[str, str, str]
) -> None:
    used, idle, never = images
    asked = recorder.openstack(*USAGE, used, never, "idle", idle)
    assert (asked.code, asked.column("Image ID")) == (0, [idle, never, used])
    assert recorder.openstack(*USAGE, "--unused", used, idle).column("Image ID") == [idle]
    limited = recorder.openstack(*USAGE, "--limit", "1", "--marker", idle, used, never, idle)
    assert limited.column("Image ID") == [never]
    body = {"name": "theirs", "visibility": "private"}
    other = instance.glance.request("POST", "/v2/images", "eve:other:member", body=body).json["id"]
    missing, deleted = str(uuid4()), instance.image("deleted")
    instance.glance.request("DELETE", f"/v2/images/{deleted}", instance.member)
    member = Cloud(recorder.url, instance.member)
    asked = member.openstack(*USAGE, "--long", used, missing, other, deleted, "nothing")
    assert (asked.code, asked.column("Image ID")) == (1, [used])
    *unknown, unnamed, count, _ = asked.errors.splitlines()
    assert unknown == [
        f"{image_id}: this account sees no image with this ID; check the ID"
        for image_id in (missing, other, deleted)
    ]
    assert unnamed.startswith("nothing: this account sees no image with the name or ID 'nothing'")
    assert count == "4 of 5 failed"


def test_an_unknown_marker(instance: Instance, recorder: Cloud) -> None:
    gone = str(uuid4())
    told = recorder.openstack(*USAGE, "--marker", gone)
    assert (told.code, told.said) == (1, "")
    assert told.errors.startswith(f"this account sees no image {gone}")
    assert "begin again without --marker" in told.errors
    told = recorder.openstack(*USAGE, "--marker", "x")
    assert told.code == 2
    assert "--marker" in told.errors


def test_images_and_filters_exclude_each_other(instance: Instance, recorder: Cloud) -> None:
    image_id = instance.image("one")
    filters = (("--project", instance.project), ("--visibility", "private"), ("--leftovers",))
    for option in filters:
        told = recorder.openstack(*USAGE, *option, image_id)
        assert (told.code, told.said) == (1, "")
        assert told.errors.startswith(
            "give either <image>, or --leftovers, --visibility and --project"
        )


def test_without_the_filter_nothing_is_listed(plain_glance: ServedGlance) -> None:
    for arguments in ((), ("name",), (str(uuid4()),), ("--marker", str(uuid4()))):
        told = Cloud(plain_glance.url, "alice:demo:member").openstack(*USAGE, *arguments)
        assert (told.code, told.said) == (1, "")
        assert "install related-images there" in told.errors
