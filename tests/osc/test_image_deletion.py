"""``image force delete``, ``server deletion record``, and ``image relation delete``."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from related_images.client import NotInstanceAware
from related_images.osc.image_deletion import ForceDeleteImage, RecordServerDeletion
from tests.client.scripted import Scripted, serving
from tests.osc.compute import Compute
from tests.osc.identity import Identity
from tests.osc.running import Cloud, Instance, openstack
from tests.servers import ServedGlance, free_port

ADMIN = "root:administration:admin"


@pytest.fixture(scope="module")
def guarded_glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    with ServedGlance(tmp_path_factory.mktemp("guarded"), {"guard": "in-use"}) as served:
        yield served


@pytest.fixture
def guarded(instance: Instance, guarded_glance: ServedGlance) -> Instance:
    """A server in a Glance with delete protection."""
    return replace(instance, glance=guarded_glance)


def start(instance: Instance, image_id: str) -> Instance:
    """Return another server of the same project, started from the image."""
    child = instance.another()
    body = {
        "installation_uuid": child.installation,
        "instance_id": child.id,
        "image_id": image_id,
        "kind": "boot",
        "instance_project_id": child.project,
    }
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
    assert answer.status == 201, answer.body
    return child


def ended_at(instance: Instance) -> str | None:
    path = f"/v2/instances/{instance.installation}/{instance.id}"
    time: str | None = instance.glance.request("GET", path, ADMIN).json["ended_at"]
    return time


def exists(instance: Instance, image_id: str) -> bool:
    return instance.glance.request("GET", f"/v2/images/{image_id}", ADMIN).status == 200


def test_an_administrator_deletes_images_in_use(guarded: Instance) -> None:
    used, free = guarded.image("used"), guarded.image("free")
    for _ in range(2):
        start(guarded, used)
    admin = Cloud(guarded.glance.url, ADMIN)
    missing = str(uuid4())
    done = admin.openstack("image", "force", "delete", "-f", "json", used, missing, free)
    assert done.code == 1
    assert done.rows == [
        {"Image ID": used, "Live Servers": 2},
        {"Image ID": free, "Live Servers": 0},
    ]
    refused, count = done.errors.splitlines()
    assert refused.startswith(f"{missing}: DELETE /v2/images/{missing} answered 404")
    assert count == "1 of 3 failed"
    assert not exists(guarded, used)
    assert not exists(guarded, free)


def test_an_image_in_use_is_deleted_by_name(guarded: Instance) -> None:
    name = f"golden-{uuid4().hex}"
    used = guarded.image(name)
    start(guarded, used)
    done = Cloud(guarded.glance.url, ADMIN).openstack("image", "force", "delete", name)
    assert (done.code, done.errors) == (0, "")
    assert used in done.said
    assert not exists(guarded, used)


def test_only_an_administrator_forces_a_deletion(guarded: Instance) -> None:
    used = guarded.image("used")
    start(guarded, used)
    for token in (guarded.member, guarded.recorder):
        refused = Cloud(guarded.glance.url, token).openstack("image", "force", "delete", used)
        assert refused.code == 1
        said, count = refused.errors.splitlines()
        assert "has none of these admin roles: admin" in said
        assert count == "1 of 1 failed"
    assert exists(guarded, used)


def test_the_advice_of_a_refusal_can_be_followed(guarded: Instance) -> None:
    """An administrator runs the command in the error of ``openstack image delete``."""
    used = guarded.image("used")
    start(guarded, used)
    answer = guarded.glance.request("DELETE", f"/v2/images/{used}", guarded.member)
    assert answer.status == 409
    advice = answer.body.decode().split("`openstack ")
    commands = [text.split("`")[0].split() for text in advice[1:]]
    assert ["image", "force", "delete", used] in commands
    assert Cloud(guarded.glance.url, ADMIN).openstack(*commands[-1]).code == 0
    assert not exists(guarded, used)


def test_a_server_recorded_as_deleted_uses_no_image(guarded: Instance) -> None:
    used = guarded.image("used")
    child = start(guarded, used)
    admin = Cloud(guarded.glance.url, ADMIN)
    done = admin.openstack("server", "deletion", "record", child.id)
    assert (done.code, done.said, done.errors) == (0, "", "")
    assert ended_at(child)
    assert guarded.glance.request("DELETE", f"/v2/images/{used}", guarded.member).status == 204


def test_an_administrator_deletes_a_relation(instance: Instance, member: Cloud) -> None:
    image_id = instance.image("monday")
    admin = Cloud(instance.glance.url, ADMIN)
    arguments = ("image", "relation", "delete", "--kind", "snapshot", instance.id, image_id)
    refused = member.openstack(*arguments)
    assert refused.code == 1
    assert "answered 403: one of these roles is needed" in refused.errors
    assert "or one of these admin roles, in the caller's own token: admin" in refused.errors
    assert admin.openstack(*arguments).code == 0
    assert admin.openstack("image", "relation", "list", image_id).said.strip() == ""


@pytest.fixture
def admin(instance: Instance, nova: Compute) -> Cloud:
    return Cloud(instance.glance.url, ADMIN, nova.url)


def test_a_server_that_nova_still_has_is_not_recorded_as_deleted(
    instance: Instance, admin: Cloud, nova: Compute
) -> None:
    gone = instance.another()
    for each in (instance, gone):
        each.image("monday")
    nova.add(instance.id, instance.project)
    done = admin.run(RecordServerDeletion, instance.id, gone.id)
    assert done.code == 1
    refused, count = done.errors.splitlines()
    assert refused.startswith(f"{instance.id}: the compute service still has the server")
    assert f"`openstack server delete {instance.id}`, or give --force" in refused
    assert count == "1 of 2 failed"
    assert ended_at(instance) is None
    assert ended_at(gone)
    assert admin.run(RecordServerDeletion, "--force", instance.id).code == 0
    assert ended_at(instance)


def test_the_deletion_of_a_volume_is_recorded_with_force(
    instance: Instance, admin: Cloud, nova: Compute
) -> None:
    instance.image("monday")
    body = {"installation_uuid": instance.installation, "instance_id": instance.id}
    body |= {"image_id": instance.image("tuesday"), "kind": "snapshot", "resource_type": "volume"}
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
    assert answer.status == 201, answer.body
    of_volume = ("--resource-type", "volume", instance.id)
    refused = admin.openstack("server", "deletion", "record", *of_volume)
    assert refused.code == 1
    assert "cannot ask whether a volume was deleted; check that" in refused.errors
    path = f"/v2/instances/{instance.installation}/{instance.id}?resource_type=volume"
    assert instance.glance.request("GET", path, ADMIN).json["ended_at"] is None
    assert admin.run(RecordServerDeletion, "--force", *of_volume).code == 0
    assert instance.glance.request("GET", path, ADMIN).json["ended_at"]
    assert ended_at(instance) is None


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_nova_that_hides_servers_does_not_confirm_a_deletion(
    instance: Instance, admin: Cloud, nova: Compute, status: int
) -> None:
    instance.image("monday")
    nova.refusal = status
    told = admin.run(RecordServerDeletion, instance.id)
    assert told.code == 1
    assert f"answered {status} to a request for servers of all projects" in told.errors
    assert "give --force if you know that the server was deleted" in told.errors
    assert ended_at(instance) is None
    assert admin.run(RecordServerDeletion, "--force", instance.id).code == 0


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_nova_that_fails_does_not_confirm_a_deletion(
    instance: Instance, admin: Cloud, nova: Compute, status: int
) -> None:
    instance.image("monday")
    nova.failure = status
    told = admin.run(RecordServerDeletion, instance.id)
    assert told.code == 1
    assert f"it answered {status}" in told.errors
    assert ended_at(instance) is None


def test_an_unreachable_nova_does_not_confirm_a_deletion(instance: Instance) -> None:
    instance.image("monday")
    nowhere = Cloud(instance.glance.url, ADMIN, f"http://127.0.0.1:{free_port()}/v2.1")
    told = nowhere.run(RecordServerDeletion, instance.id)
    assert told.code == 1
    assert "the compute service does not say" in told.errors
    assert ended_at(instance) is None


def identity_options(instance: Instance, scripted: Scripted, compute: str | None) -> dict[str, Any]:
    return Identity(scripted, f"{instance.glance.url}/v2", ADMIN, compute).options()


RECORD = ("server", "deletion", "record")


def test_the_compute_service_of_the_catalog_is_used(instance: Instance, scripted: Scripted) -> None:
    instance.image("monday")
    with serving() as server:
        nova = Compute(server)
        server.script = nova.answer
        nova.add(instance.id, instance.project)
        known = identity_options(instance, scripted, nova.url)
        refused = openstack(*RECORD, instance.id, **known)
        assert refused.code == 1
        assert "the compute service still has the server" in refused.errors
        assert ended_at(instance) is None
        nova.servers.clear()
        assert openstack(*RECORD, instance.id, **known).code == 0
    assert ended_at(instance)


def test_a_cloud_without_a_compute_service(instance: Instance, scripted: Scripted) -> None:
    instance.image("monday")
    done = openstack(*RECORD, instance.id, **identity_options(instance, scripted, None))
    assert (done.code, done.errors) == (0, "")
    assert ended_at(instance)


def test_a_server_without_relations(instance: Instance, admin: Cloud) -> None:
    told = admin.run(RecordServerDeletion, instance.id)
    assert told.code == 1
    assert "no installation with a server" in told.errors
    there = ("--installation", instance.installation, instance.id)
    told = admin.run(RecordServerDeletion, *there)
    assert told.code == 1
    assert "answered 404: the server" in told.errors


def test_a_member_may_not_record_a_deletion(instance: Instance, member: Cloud) -> None:
    instance.image("monday")
    told = member.openstack(*RECORD, instance.id)
    assert told.code == 1
    assert "or one of these admin roles, in the caller's own token: admin" in told.errors
    assert ended_at(instance) is None


def test_without_the_filter_no_further_request_is_sent(plain_glance: ServedGlance) -> None:
    plain = Cloud(plain_glance.url, ADMIN)
    for command in (ForceDeleteImage, RecordServerDeletion):
        with pytest.raises(NotInstanceAware, match="install related-images there"):
            plain.run(command, "it")
