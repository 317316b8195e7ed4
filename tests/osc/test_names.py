"""The names of images and servers in lists. The tests run the program ``openstack``."""

import json
from dataclasses import replace
from threading import Event
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import pytest

from related_images.client import names as client_names
from related_images.client.glance import Glance
from related_images.osc.image_relation import CreateRelation, ListRelation
from related_images.protocol import paths
from tests.client.scripted import Asked, Reply, Scripted, serving, shown
from tests.osc.aging import set_true
from tests.osc.compute import Compute
from tests.osc.identity import Identity
from tests.osc.running import Cloud, Instance, openstack
from tests.osc.test_image_ancestry import started_from
from tests.servers import PATIENCE, free_port

pytestmark = pytest.mark.slow

RELATIONS = ("image", "relation", "list", "-f", "json")


@pytest.fixture
def compute_url(nova: Compute) -> str:
    return nova.url


def names_in(outcome: Any) -> dict[str, tuple[str | None, str | None]]:
    assert (outcome.code, outcome.errors) == (0, "")
    return {row["Image ID"]: (row["Image Name"], row["Server Name"]) for row in outcome.rows}


def test_relations_have_names(instance: Instance, member: Cloud, nova: Compute) -> None:
    """Hidden images have names. Deleted images, unnamed images and unknown servers have none."""
    nova.add(instance.id, instance.project, name="web")
    plain, hidden, gone = (instance.image(name) for name in ("plain", "hidden", "gone"))
    set_true(instance, hidden, "os_hidden")
    instance.glance.request("DELETE", f"/v2/images/{gone}", instance.member)
    strange = instance.another().image("strange")
    body = {"disk_format": "raw", "container_format": "bare"}
    unnamed = instance.glance.request("POST", "/v2/images", instance.member, body=body).json["id"]
    relate = ("image", "relation", "create", "-f", "json", "--kind", "snapshot", instance.id)
    created = Cloud(member.url, instance.recorder, nova.url).openstack(*relate, unnamed)
    assert names_in(created) == {unnamed: (None, "web")}
    assert names_in(member.openstack(*RELATIONS)) == {
        plain: ("plain", "web"),
        hidden: ("hidden", "web"),
        gone: (None, "web"),
        strange: ("strange", None),
        unnamed: (None, "web"),
    }


def test_lineage_has_names(
    instance: Instance, member: Cloud, recorder: Cloud, nova: Compute
) -> None:
    base = instance.image("base")
    child = started_from(recorder, base, instance.another())
    leaf = child.image("leaf")
    nova.add(instance.id, instance.project, name="web")
    nova.add(child.id, instance.project, name="mail")
    shown = {base: ("base", "web"), leaf: ("leaf", "mail")}
    assert names_in(member.openstack("image", "ancestry", "list", "-f", "json", leaf)) == shown
    del shown[base]
    assert names_in(member.openstack("image", "descendant", "list", "-f", "json", base)) == shown
    lineage = ("image", "lineage", "show", "-f")
    nodes = json.loads(member.openstack(*lineage, "json", base).said)
    assert [it["name"] for it in nodes] == ["web", "base", "mail", "leaf"]
    for format in ("tree", "dot", "mermaid"):
        drawn = member.openstack(*lineage, format, base).said
        assert "server mail" in drawn
        assert "image leaf" in drawn
        assert "snapshot" in drawn


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The queries of the requests for image lists."""
    queries = list[dict[str, str]]()
    real = Glance.request

    def asking(glance: Glance, method: str, path: str, **options: Any) -> Any:
        if path == paths.IMAGES:
            queries.append(dict(options["params"]))
        return real(glance, method, path, **options)

    monkeypatch.setattr(Glance, "request", asking)
    return queries


def test_one_request_to_glance_gets_many_names(
    instance: Instance,
    member: Cloud,
    recorder: Cloud,
    asked: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("related_images.client.glance.IDS", 3)
    images = [instance.image(f"image {number}") for number in range(7)]
    gone = instance.image("gone")
    instance.glance.request("DELETE", f"/v2/images/{gone}", instance.member)
    recorder.run(
        CreateRelation, "--kind", "backup", instance.id, *images
    )  # a second relation of each
    asked.clear()
    listed = member.listed(ListRelation)
    assert set(listed.column("Image Name")) == {*(f"image {number}" for number in range(7)), None}
    assert len(listed.rows) == 15
    assert [len(query["id"].split(",")) for query in asked] == [3, 3, 1]
    asked.clear()
    assert len(member.listed(ListRelation, "--limit", "2").rows) == 2
    assert [len(query["id"].split(",")) for query in asked] == [2]


def test_one_request_to_nova_is_sent_for_each_page(
    instance: Instance,
    member: Cloud,
    nova: Compute,
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_names, "PAGE", 2)
    servers = [replace(instance, id=f"{instance.id}-{number}") for number in range(5)]
    for number, server in enumerate(servers):
        server.image("monday")
        nova.add(server.id, server.project, name=f"web {4 - number}")
    listed = member.listed(ListRelation)  # newest first; this Nova sorts by ID
    assert listed.column("Server Name")[:2] == [None, None]  # on later pages
    assert listed.column("Server Name")[4] == "web 4"
    lists = [parse_qs(it.query) for it in scripted.asked if it.path.endswith("/servers")]
    # the name on the third page is known
    assert [query.get("marker") for query in lists] == [None, [servers[1].id]]
    assert {query["limit"][0] for query in lists} == {"2"}
    scripted.asked.clear()
    assert member.listed(ListRelation, "--limit", "1").column("Server Name") == [None]
    assert len([it for it in scripted.asked if it.path.endswith("/servers")]) == 1


def test_a_project_sees_the_names_of_its_own_servers_and_an_administrator_all(
    instance: Instance, scripted: Scripted
) -> None:
    mine = replace(instance, project="own-id")
    mine.image("mine")
    other = instance.another()
    other.image("other")
    with serving() as served:
        nova = Compute(served)
        served.script = nova.answer
        nova.add(mine.id, mine.project, name="web")
        nova.add(other.id, other.project, name="mail")
        for token, scopes in ((mine.member, [None]), ("root:admin:admin", [["True"]])):
            identity = Identity(scripted, f"{mine.glance.url}/v2", token, nova.url)
            served.asked.clear()
            chosen = ("--installation", instance.installation)
            listed = openstack(*RELATIONS, *chosen, **identity.options())
            assert ("mine", "web") in names_in(listed).values()
            asked = [parse_qs(it.query) for it in served.asked if it.path.endswith("/servers")]
            assert [query.get("all_tenants") for query in asked] == scopes


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_nova_that_refuses_gives_no_names(
    instance: Instance, member: Cloud, nova: Compute, status: int
) -> None:
    image_id = instance.image("monday")
    nova.refusal = status
    assert names_in(member.openstack(*RELATIONS)) == {image_id: ("monday", None)}


def test_a_cloud_without_a_compute_service(instance: Instance, scripted: Scripted) -> None:
    image_id = instance.image("monday")
    identity = Identity(scripted, f"{instance.glance.url}/v2", instance.member)
    listed = openstack(*RELATIONS, **identity.options())
    assert names_in(listed) == {image_id: ("monday", None)}


@pytest.mark.parametrize("status", [400, 500, 503])
def test_if_nova_fails_the_list_is_shown_with_a_warning(
    instance: Instance, member: Cloud, nova: Compute, status: int
) -> None:
    image_id = instance.image("monday")
    nova.refusal = status
    listed = member.openstack(*RELATIONS)
    assert (listed.code, listed.column("Image ID")) == (0, [image_id])
    said = f"the names of servers are not shown: the compute service answered {status}"
    assert listed.errors.splitlines() == [said]


def test_an_unreachable_nova(instance: Instance) -> None:
    image_id = instance.image("monday")
    nowhere = f"http://127.0.0.1:{free_port()}/v2.1"
    listed = Cloud(instance.glance.url, instance.member, nowhere).openstack(*RELATIONS)
    assert (listed.code, listed.column("Image ID")) == (0, [image_id])
    assert listed.errors.startswith("the names of servers are not shown: ")


def test_a_nova_that_hangs_does_not_delay_the_list(
    instance: Instance,
    member: Cloud,
    nova: Compute,
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image_id = instance.image("monday")
    monkeypatch.setitem(client_names.ONE_TRY, "timeout", 0.2)
    late, real = Event(), nova.answer

    def hanging(asked: Asked) -> Reply | None:
        return real(asked) if late.wait(PATIENCE) else None

    scripted.script = hanging
    try:
        listed = member.listed(ListRelation)
    finally:
        late.set()
    assert listed.column("Image ID") == [image_id]
    (said,) = caplog.messages
    assert said.startswith("the names of servers are not shown: ")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"servers": [{"id": 1}]}'])
def test_a_malformed_response_of_nova(
    body: bytes, instance: Instance, member: Cloud, nova: Compute, scripted: Scripted
) -> None:
    image_id = instance.image("monday")
    real = nova.answer
    scripted.script = lambda asked: (
        Reply(200, body) if asked.path.endswith("/servers") else real(asked)
    )
    listed = member.openstack(*RELATIONS)
    assert (listed.code, listed.column("Image ID")) == (0, [image_id])
    assert (
        "the names of servers are not shown: the compute service did not return a list"
        in listed.errors
    )


def test_a_glance_that_cannot_list_images(instance: Instance, scripted: Scripted) -> None:
    """The relations are shown without names."""
    scripted.info = shown({"version": "0", "kinds": ["snapshot", "backup", "boot"]})
    relation = {
        "installation_uuid": instance.installation,
        "instance_id": instance.id,
        "image_id": str(uuid4()),
        "kind": "snapshot",
        "label": None,
        "source": "service",
        "project_id": "demo",
        "created_at": "2026-01-31T12:00:00.000000Z",
        "image_created_at": None,
        "image_deleted_at": None,
    }
    scripted.script = lambda asked: (
        shown({"relations": [relation]}) if asked.path.endswith("/relations") else Reply(503)
    )
    listed = Cloud(scripted.url, "t").openstack(*RELATIONS)
    assert (listed.code, listed.column("Image Name")) == (0, [None])
    assert "some names of images are not shown: GET /v2/images answered 503" in listed.errors
