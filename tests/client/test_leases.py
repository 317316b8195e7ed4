"""Leases and registered types of resources, with each client."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import glanceclient
import pytest
from glanceclient import exc

from related_images.client import (
    Conflict,
    GlanceError,
    InstanceRef,
    Leases,
    NotFound,
    RegisteredType,
    RelationsClient,
)
from related_images.errors import FieldInvalid, ParameterMalformed, ResourceTypeUnknown
from tests.client.clients import INSTALLATION, MEMBER, SERVICE, Maker, session
from tests.servers import ServedGlance

ADMIN = "root:admin:admin"
PROJECT = "service-project"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    options = {"guard": "in-use", "guard_actions": "delete, deactivate"}
    with ServedGlance(tmp_path_factory.mktemp("guarded"), options) as served:
        yield served


@pytest.fixture
def recorder(make_client: Maker, guarded: ServedGlance) -> RelationsClient:
    return RelationsClient(make_client(guarded.url, SERVICE))


@pytest.fixture
def admin(make_client: Maker, guarded: ServedGlance) -> RelationsClient:
    return RelationsClient(make_client(guarded.url, ADMIN))


@pytest.fixture
def image_id(guarded: ServedGlance) -> str:
    body = {"name": "base", "disk_format": "raw", "container_format": "bare"}
    made = guarded.request("POST", "/v2/images", MEMBER, body=body)
    assert made.status == 201
    image_id = str(made.json["id"])
    sent = guarded.request("PUT", f"/v2/images/{image_id}/file", MEMBER, body=b"data")
    assert sent.status == 204
    return image_id


def stack() -> InstanceRef:
    return InstanceRef(INSTALLATION, f"stack-{uuid4()}", "stack")


def test_types_are_registered_listed_and_removed(admin: RelationsClient) -> None:
    name = f"type-{uuid4()}"
    made = admin.register_resource_type(name, 14)
    assert isinstance(made, RegisteredType)
    assert (made.name, made.longest_lease_days) == (name, 14)
    assert admin.register_resource_type(name, longest_lease_days=14) == made
    assert made in admin.resource_types()
    with pytest.raises(Conflict, match="longest lease of 14 days"):
        admin.register_resource_type(name)
    admin.remove_resource_type(name)
    assert made not in admin.resource_types()
    with pytest.raises(NotFound):
        admin.remove_resource_type(name)
    with pytest.raises(ParameterMalformed):
        admin.register_resource_type(name, 0)
    with pytest.raises(ResourceTypeUnknown):
        admin.register_resource_type("a b")


def test_a_lease_is_recorded_renewed_and_ended(
    admin: RelationsClient, recorder: RelationsClient, image_id: str
) -> None:
    admin.register_resource_type("stack")
    ref, until = stack(), datetime.now(UTC) + timedelta(days=7)
    made = recorder.attach(ref, image_id, "use", None, PROJECT, expires_at=until)
    assert (made.kind, made.instance, made.expires_at) == ("use", ref, until)
    later = until + timedelta(days=1)
    written = later.isoformat()
    again = recorder.attach(ref, image_id, "use", None, PROJECT, expires_at=written)
    assert again.expires_at == later
    (listed,) = recorder.relations(kind="use", image_id=image_id, resource_type="stack")
    assert listed == again
    (usage,) = recorder.usages([image_id])
    assert (usage.leases, usage.is_unused) == (Leases(1, later), False)
    assert recorder.instance(ref).images["use"].count == 1
    recorder.detach(ref, image_id, "use")
    (usage,) = recorder.usages([image_id])
    assert (usage.leases, usage.is_unused) == (Leases(), True)


def test_a_malformed_lease_is_refused(recorder: RelationsClient, image_id: str) -> None:
    server = InstanceRef(INSTALLATION, "inst-1")
    until = datetime.now(UTC) + timedelta(days=7)
    with pytest.raises(ResourceTypeUnknown):
        recorder.attach(stack(), image_id, "boot")
    with pytest.raises(ParameterMalformed):
        recorder.attach(stack(), image_id, "use", None, PROJECT, expires_at="soon")
    for ref, kind, expires_at in (
        (server, "use", until),
        (server, "boot", until),
        (stack(), "use", None),
    ):
        with pytest.raises(GlanceError) as caught:
            recorder.attach(ref, image_id, kind, None, PROJECT, expires_at=expires_at)
        assert caught.value.code in (ResourceTypeUnknown.code, FieldInvalid.code)
    assert list(recorder.relations(image_id=image_id)) == []


def test_the_clients_of_openstack_show_why_an_image_is_kept(
    guarded: ServedGlance, image_id: str
) -> None:
    glance = glanceclient.Client("2", session=session(guarded.url, MEMBER))
    admin = glanceclient.Client("2", session=session(guarded.url, ADMIN))
    recorder = RelationsClient(glanceclient.Client("2", session=session(guarded.url, SERVICE)))
    RelationsClient(admin).register_resource_type("stack")
    ref, until = stack(), datetime.now(UTC) + timedelta(days=7)
    recorder.attach(ref, image_id, "use", instance_project_id=PROJECT, expires_at=until)
    for action in (glance.images.deactivate, glance.images.delete):
        with pytest.raises(exc.HTTPConflict, match=f"used by 1 live stack .{ref.instance_id} of"):
            action(image_id)
    assert glance.images.get(image_id).status == "active"
    admin.images.deactivate(image_id)
    assert glance.images.get(image_id).status == "deactivated"
