"""How OpenStack clients show the errors of the filter in a real Glance.

Nova and Heat run in separate processes: see ``tests/nova`` and ``tests/heat/engine``.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import glanceclient
import openstack.exceptions
import pytest
from glanceclient.exc import HTTPException
from openstack.connection import Connection
from openstack.image.v2.image import Image

from tests.client.clients import session
from tests.osc.running import Cloud, Outcome
from tests.servers import PATIENCE, ServedGlance

pytestmark = pytest.mark.slow

GLANCE = Path(sys.executable).parent / "glance"
MEMBER = "alice:demo:member"
SERVICE = "nova:demo:member,service"
INSTALLATION = "0b5d2a47-6f38-4c9e-8f61-2d7c4e9a1b30"
INVALID_TOKEN = "no token of the form"
TUPLE = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": "web-1"}
TOO_LONG = "n" * (1024 * 1024)

IN_USE = "1 live server (web-1 of "
DOWN = "the database cannot be used now"
SENTENCES = {
    400: "X-Instance-ID",
    401: "X-Auth-Token is malformed",
    403: "one of these roles is needed",
    404: "exists, or the caller cannot see it; check the ID",
    409: IN_USE,
    413: "the body has more than 1048576 bytes",
    503: DOWN,
}
"""A part of the message for each status."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    with ServedGlance(tmp_path_factory.mktemp("guarded"), {"guard": "in-use"}) as served:
        yield served


@pytest.fixture(scope="module")
def down(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A Glance whose filter has no tables."""
    with ServedGlance(tmp_path_factory.mktemp("down")) as served:
        served.lose_tables()
        yield served


@pytest.fixture(scope="module")
def used(guarded: ServedGlance) -> str:
    """The ID of an image of the project demo, which a server was booted from."""
    body = {"name": "base", "disk_format": "raw", "container_format": "bare"}
    made = guarded.request("POST", "/v2/images", SERVICE, body=body)
    image_id = str(made.json["id"])
    boot = {
        "installation_uuid": INSTALLATION,
        "instance_id": "web-1",
        "kind": "boot",
        "instance_project_id": "demo",
    }
    attached = guarded.request(
        "POST", "/v2/relations", SERVICE, body={**boot, "image_id": image_id}
    )
    assert attached.status == 201
    return image_id


def glance(served: ServedGlance, *arguments: str, token: str = MEMBER) -> Outcome:
    """Run the program of python-glanceclient."""
    identity = ("--os-image-url", served.url, "--os-auth-token", token)
    done = subprocess.run(
        [GLANCE, *identity, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def of_instance(installation: str) -> tuple[str, ...]:
    return (
        *("image-list", "--property-filter", f"installation_uuid={installation}"),
        *("--property-filter", "instance_id=web-1"),
    )


def test_the_glance_command_shows_the_message_of_a_400(guarded: ServedGlance) -> None:
    shown = glance(guarded, *of_instance("nonsense"))
    assert shown.code == 1
    assert shown.errors.startswith("HTTP the installation UUID 'nonsense' is not a UUID")


def test_clients_show_why_a_restricted_list_is_refused(guarded: ServedGlance) -> None:
    shown = glance(guarded, "image-list", "--property-filter", "relation_colour=red")
    assert shown.code == 1
    assert "the query parameter 'relation_colour' is unknown" in shown.errors
    client = glanceclient.Client("2", session=session(guarded.url, MEMBER))
    with pytest.raises(HTTPException, match="relation_in_use='maybe' is malformed"):
        list(client.images.list(filters={"relation_in_use": "maybe"}))
    cloud = Connection(session=session(f"{guarded.url}/v2", MEMBER))
    with pytest.raises(openstack.exceptions.HttpException, match="kind 'copy' is not allowed"):
        list(Image.list(cloud.image, base_path="/images?relation_kind=copy"))


def test_clients_read_all_pages_of_a_restricted_list(guarded: ServedGlance) -> None:
    made = set()
    for number in range(5):
        of_server = {**TUPLE, "X-Relation-Label": "paged"}
        body = {"name": f"n-{number}"}
        made.add(guarded.request("POST", "/v2/images", SERVICE, of_server, body=body).json["id"])
    wanted = {"relation_label": "paged", "relation_in_use": "false"}
    client = glanceclient.Client("2", session=session(guarded.url, MEMBER))
    by_glanceclient = [image.id for image in client.images.list(page_size=2, filters=dict(wanted))]
    cloud = Connection(session=session(f"{guarded.url}/v2", MEMBER))
    path = f"/images?{urlencode(wanted)}"  # images() compares unknown names with the images itself
    by_sdk = [image.id for image in Image.list(cloud.image, base_path=path, limit=2)]
    assert len(by_glanceclient) == len(by_sdk) == 5
    assert set(by_glanceclient) == set(by_sdk) == made


def test_the_glance_command_shows_the_message_of_a_503(down: ServedGlance) -> None:
    shown = glance(down, *of_instance(INSTALLATION))
    assert shown.code == 1
    assert shown.errors.startswith(f"HTTP {DOWN}")


def test_the_glance_command_has_its_own_messages_for_401_and_409(
    guarded: ServedGlance, used: str
) -> None:
    unknown = glance(guarded, "image-list", token=INVALID_TOKEN)
    assert (unknown.code, unknown.errors.strip()) == (1, "Invalid OpenStack Identity credentials.")
    refused = glance(guarded, "image-delete", used)
    message = f"Unable to delete image '{used}' because it is in use."
    assert (refused.code, refused.errors.strip()) == (1, message)


def openstack_of(served: ServedGlance, token: str = MEMBER) -> Cloud:
    # admin_token returns the endpoint unchanged, and openstacksdk does not discover its versions
    return Cloud(f"{served.url}/v2", token)


def of(server: str) -> str:
    return f"--installation {INSTALLATION} --kind boot {server}"


def test_openstack_shows_why_an_image_is_not_deleted(guarded: ServedGlance, used: str) -> None:
    shown = openstack_of(guarded).openstack("image", "delete", used)
    assert shown.code == 1
    assert f"ConflictException: 409: Client Error for url: {guarded.url}" in shown.errors
    assert f"the image {used} cannot be deleted: it is used by {IN_USE}" in shown.errors
    assert "are 1 live server (1 direct, 0 indirect), of this project" in shown.errors


def test_openstack_shows_the_message_of_a_401(guarded: ServedGlance) -> None:
    shown = openstack_of(guarded, INVALID_TOKEN).openstack("image", "list")
    assert shown.code == 1
    assert SENTENCES[401] in shown.errors


@pytest.mark.parametrize(
    ("status", "token", "command", "message"),
    [
        (401, INVALID_TOKEN, "list", SENTENCES[401]),
        (403, MEMBER, f"create {of('web-2')}", SENTENCES[403]),
        (404, SERVICE, f"delete {of('web-2')}", "web-2"),
        (409, SERVICE, f"create --label other {of('web-1')}", "is recorded with the label"),
        (503, MEMBER, "list", DOWN),
    ],
)
def test_the_commands_of_the_plugin_show_every_message(
    request: pytest.FixtureRequest, used: str, status: int, token: str, command: str, message: str
) -> None:
    served = request.getfixturevalue("down" if status == 503 else "guarded")
    shown = openstack_of(served, token).openstack("image", "relation", *command.split(), used)
    assert shown.code == 1
    assert f"answered {status}: " in shown.errors
    assert message in shown.errors


Failing = Callable[[Any], object]


def sdk(url: str, token: str, headers: dict[str, str]) -> Any:
    connection = Connection(session=session(f"{url}/v2", token))
    connection.image.additional_headers.update(headers)
    return connection.image


def sdk_create(image: Any, **more: str) -> object:
    return image.create_image("n", allow_duplicates=True, **more)


def sdk_relations(image: Any) -> object:
    response = image.get(f"/images/{uuid4()}/relations")
    openstack.exceptions.raise_from_response(response)
    return response


def gc(url: str, token: str, headers: dict[str, str]) -> Any:
    return glanceclient.Client("2", session=session(url, token), additional_headers=headers)


def gc_create(client: Any, **more: str) -> object:
    return client.images.create(name="n", **more)


def gc_relations(client: Any) -> object:
    return client.http_client.get(f"/v2/images/{uuid4()}/relations")


HALF = {"X-Installation-UUID": INSTALLATION}

CAUSES: list[tuple[int, str, dict[str, str], Failing, Failing]] = [
    (400, SERVICE, HALF, sdk_create, gc_create),
    (401, INVALID_TOKEN, {}, sdk_create, gc_create),
    (403, MEMBER, TUPLE, sdk_create, gc_create),
    (404, MEMBER, {}, sdk_relations, gc_relations),
    (
        413,
        SERVICE,
        TUPLE,
        lambda image: sdk_create(image, about=TOO_LONG),
        lambda client: gc_create(client, about=TOO_LONG),
    ),
    (503, SERVICE, TUPLE, sdk_create, gc_create),
]
"""A status, and the token, the headers and the calls of both clients that cause it."""


@pytest.mark.parametrize(
    ("status", "token", "headers", "ask"), [(s, t, h, ask) for s, t, h, ask, _ in CAUSES]
)
def test_openstacksdk_raises_every_message(
    request: pytest.FixtureRequest, status: int, token: str, headers: dict[str, str], ask: Failing
) -> None:
    served = request.getfixturevalue("down" if status == 503 else "guarded")
    with pytest.raises(openstack.exceptions.HttpException) as caught:
        ask(sdk(served.url, token, headers))
    assert caught.value.status_code == status
    assert SENTENCES[status] in str(caught.value)


@pytest.mark.parametrize(
    ("status", "token", "headers", "ask"), [(s, t, h, ask) for s, t, h, _, ask in CAUSES]
)
def test_glanceclient_raises_every_message(
    request: pytest.FixtureRequest, status: int, token: str, headers: dict[str, str], ask: Failing
) -> None:
    served = request.getfixturevalue("down" if status == 503 else "guarded")
    with pytest.raises(HTTPException) as caught:
        ask(gc(served.url, token, headers))
    assert caught.value.code == status
    assert SENTENCES[status] in str(caught.value)


def test_both_clients_raise_the_message_of_a_refused_deletion(
    guarded: ServedGlance, used: str
) -> None:
    with pytest.raises(openstack.exceptions.ConflictException, match="1 live server"):
        sdk(guarded.url, MEMBER, {}).delete_image(used)
    with pytest.raises(HTTPException, match="1 live server") as caught:
        gc(guarded.url, MEMBER, {}).images.delete(used)
    assert caught.value.code == 409


def test_openstacksdk_ignores_errors_of_deactivate_image(guarded: ServedGlance) -> None:
    """docs/errors.md documents it."""
    missing = str(uuid4())
    image = sdk(guarded.url, MEMBER, {})
    assert image.post(f"/images/{missing}/actions/deactivate").status_code >= 400
    image.deactivate_image(missing)
