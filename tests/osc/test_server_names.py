"""A server by name or ID. The tests run the program ``openstack``."""

from dataclasses import replace
from uuid import uuid4

import pytest

from tests.client.scripted import Scripted, serving
from tests.osc.compute import Compute
from tests.osc.identity import Identity
from tests.osc.running import Cloud, Instance, openstack
from tests.servers import ServedGlance, free_port

pytestmark = pytest.mark.slow

IMAGES = ("server", "image", "list", "-f", "json")
NAMES = ["web", "web (1)", "a|b", "a.b*", "Größe & co", "^x$", "in:a,b", "../x", "-"]


@pytest.fixture
def server(instance: Instance) -> Instance:
    """A server with a UUID as its ID, as in Nova."""
    return replace(instance, id=str(uuid4()))


@pytest.fixture
def compute_url(nova: Compute) -> str:
    return nova.url


@pytest.mark.parametrize("name", NAMES)
def test_a_server_by_name(name: str, server: Instance, member: Cloud, nova: Compute) -> None:
    image_id = server.image("monday")
    nova.add(server.id, server.project, name=name)
    for other in (f"{name}-2", f"x{name}", name.upper() + "?"):
        nova.add(str(uuid4()), server.project, name=other)
    listed = member.openstack(*IMAGES, "--", name)
    assert (listed.code, listed.errors) == (0, "")
    assert listed.column("ID") == [image_id]


def test_a_server_by_id_is_not_looked_up(
    server: Instance, member: Cloud, nova: Compute, scripted: Scripted
) -> None:
    image_id = server.image("monday")
    nova.refusal = nova.failure = 500
    assert member.openstack(*IMAGES, server.id).column("ID") == [image_id]
    assert scripted.asked == []


def test_a_name_that_several_servers_have(server: Instance, member: Cloud, nova: Compute) -> None:
    server.image("monday")
    twins = [server.id, str(uuid4())]
    for server_id in twins:
        nova.add(server_id, server.project, name="twin")
    told = member.openstack(*IMAGES, "twin")
    assert (told.code, told.said) == (1, "")
    (line,) = told.errors.splitlines()
    assert line.startswith("there is more than one server named 'twin': ")
    assert all(server_id in line for server_id in twins)
    assert line.endswith("; give the ID")


def test_a_text_unknown_to_nova_is_an_id(instance: Instance, member: Cloud, nova: Compute) -> None:
    image_id = instance.image("monday")
    nova.add(str(uuid4()), instance.project, name="another")
    listed = member.openstack(*IMAGES, instance.id)
    assert (listed.code, listed.column("ID")) == (0, [image_id])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_if_nova_refuses_the_text_is_an_id(
    instance: Instance, member: Cloud, nova: Compute, status: int
) -> None:
    image_id = instance.image("monday")
    nova.refusal = status
    listed = member.openstack(*IMAGES, instance.id)
    assert (listed.code, listed.column("ID")) == (0, [image_id])


def test_a_cloud_without_a_compute_service(instance: Instance, scripted: Scripted) -> None:
    image_id = instance.image("monday")
    identity = Identity(scripted, f"{instance.glance.url}/v2", instance.member)
    listed = openstack(*IMAGES, instance.id, **identity.options())
    assert (listed.code, listed.column("ID")) == (0, [image_id])


def test_the_compute_service_of_the_catalog_is_used(server: Instance, scripted: Scripted) -> None:
    image_id = server.image("monday")
    with serving() as served:
        nova = Compute(served)
        served.script = nova.answer
        nova.add(server.id, server.project, name="web")
        identity = Identity(scripted, f"{server.glance.url}/v2", server.member, nova.url)
        listed = openstack(*IMAGES, "web", **identity.options())
    assert (listed.code, listed.column("ID")) == (0, [image_id])


@pytest.mark.parametrize("status", [400, 500, 503])
def test_if_nova_fails_a_name_is_refused(
    server: Instance, member: Cloud, nova: Compute, status: int
) -> None:
    server.image("monday")
    nova.refusal = status
    told = member.openstack(*IMAGES, "web")
    assert (told.code, told.said) == (1, "")
    assert told.errors.startswith(
        f"the server named 'web' cannot be looked up: the compute service answered {status}; "
    )
    assert "give the server's ID" in told.errors


def test_if_nova_is_unreachable_a_name_is_refused(server: Instance) -> None:
    server.image("monday")
    nowhere = f"http://127.0.0.1:{free_port()}/v2.1"
    told = Cloud(server.glance.url, server.member, nowhere).openstack(*IMAGES, "web")
    assert (told.code, told.said) == (1, "")
    assert "the server named 'web' cannot be looked up" in told.errors


def test_an_unknown_name(server: Instance, member: Cloud) -> None:
    server.image("monday")
    told = member.openstack(*IMAGES, "nothing")
    assert (told.code, told.said) == (1, "")
    assert "this account sees no installation with a server nothing" in told.errors
    told = member.openstack(*IMAGES, "a/b")
    assert (told.code, told.said) == (1, "")
    assert "shows this account no server named 'a/b'" in told.errors
    assert "an ID has 1 to 255 of the characters" in told.errors


def test_a_name_does_not_determine_the_installation(
    server: Instance, member: Cloud, nova: Compute
) -> None:
    """Nova does not return the UUID of its installation."""
    server.image("here")
    there = server.elsewhere()
    image_id = there.image("there")
    nova.add(server.id, server.project, name="web")
    told = member.openstack(*IMAGES, "web")
    assert told.code == 1
    assert "more than one installation with a server" in told.errors
    assert all(it.installation in told.errors for it in (server, there))
    chosen = member.openstack(*IMAGES, "--installation", there.installation, "web")
    assert chosen.column("ID") == [image_id]


def test_every_command_takes_a_name(server: Instance, recorder: Cloud, nova: Compute) -> None:
    nova.add(server.id, server.project, name="web")
    made = [server.fill(server.image(name, kind="backup")) for name in ("one", "two")]
    backups = recorder.openstack("server", "backup", "list", "-f", "json", "web")
    assert sorted(backups.column("ID")) == sorted(made)
    relation = ("image", "relation")
    snapshot = ("--kind", "snapshot", "web", "one")
    created = recorder.openstack(*relation, "create", "-f", "json", *snapshot)
    assert created.column("Resource ID") == [server.id]
    listed = recorder.openstack(*relation, "list", "-f", "json", "--server", "web")
    assert len(listed.rows) == 3
    assert set(listed.column("Resource ID")) == {server.id}
    assert recorder.openstack(*relation, "delete", *snapshot).code == 0
    prune = ("server", "backup", "prune", "-f", "json", "--keep-last", "1")
    assert recorder.openstack(*prune, "web").column("Action") == ["keep", "removed"]


def test_without_the_filter_no_request_is_sent_to_nova(
    plain_glance: ServedGlance, nova: Compute, scripted: Scripted
) -> None:
    plain = Cloud(plain_glance.url, "nova:demo:member,service", nova.url)
    relation = ("image", "relation")
    for arguments in (
        (*IMAGES, "web"),
        ("server", "backup", "list", "web"),
        ("server", "backup", "prune", "--keep-last", "1", "web"),
        (*relation, "list", "--server", "web"),
        (*relation, "create", "--kind", "boot", "web", "image"),
        (*relation, "delete", "--kind", "boot", "web", "image"),
    ):
        told = plain.openstack(*arguments)
        assert (told.code, told.said) == (1, "")
        assert "install related-images there" in told.errors
    assert scripted.asked == []
