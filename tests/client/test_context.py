"""Every image request of a context has the instance headers, and no other request has them."""

import contextvars
import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import glanceclient
import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from openstack.connection import Connection

from related_images.client import (
    InstanceAwareImageService,
    InstanceRef,
    TupleHeaders,
    carry_tuple,
    for_instance,
    image_adapter,
    in_this_context,
)
from related_images.errors import KindUnknown, LabelMalformed
from tests.client.clients import INSTALLATION, SERVICE, session
from tests.client.scripted import Asked, Reply, Scripted, shown

IMAGE = "8a6ff7cb-1a1f-4bd6-9a3a-4e0b0f2c2f3d"
ONE = InstanceRef(INSTALLATION, "inst:1")
TWO = InstanceRef(INSTALLATION, "inst:2")
OF_ONE = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": "inst:1"}

Delete = Callable[[Any, str], object]
DELETES: dict[str, tuple[Callable[[Session], Any], Delete]] = {
    "glanceclient": (
        lambda session: glanceclient.Client("2", session=session),
        lambda client, image_id: client.images.delete(image_id),
    ),
    "openstacksdk": (
        lambda session: Connection(session=session),
        lambda client, image_id: client.image.delete_image(image_id, ignore_missing=False),
    ),
    "adapter": (
        lambda session: Adapter(session, service_type="image"),
        lambda client, image_id: client.delete(f"/v2/images/{image_id}"),
    ),
    "image_adapter": (
        image_adapter,
        lambda client, image_id: client.delete(f"/v2/images/{image_id}"),
    ),
}


def test_headers_have_the_tuple_of_the_context() -> None:
    headers = TupleHeaders({"X-Own": "1"})
    assert dict(headers) == {"X-Own": "1"}
    with for_instance(ONE, kind="backup", label="daily"):
        assert dict(headers.items()) == {
            "X-Own": "1",
            **OF_ONE,
            "X-Relation-Kind": "backup",
            "X-Relation-Label": "daily",
        }
        assert len(headers) == 5
    assert dict(headers) == {"X-Own": "1"}


def test_contexts_nest_and_end_with_an_exception() -> None:
    headers = TupleHeaders()
    with for_instance(ONE, label="outer"):
        with for_instance(TWO):
            assert headers["X-Instance-ID"] == "inst:2"
            assert "X-Relation-Label" not in headers
        with pytest.raises(KeyError, match="inner"), for_instance(TWO):
            raise KeyError("inner")
        assert headers["X-Instance-ID"] == "inst:1"
        assert headers["X-Relation-Label"] == "outer"
    assert not dict(headers)


def test_headers_are_true_and_can_be_changed_as_clients_do() -> None:
    headers = TupleHeaders()
    assert headers
    headers["X-Auth-Token"] = "t"
    assert headers.pop("X-Auth-Token", None) == "t"
    assert headers.pop("X-Auth-Token", None) is None


def test_malformed_values_are_refused_before_the_block() -> None:
    with pytest.raises(KindUnknown), for_instance(ONE, kind="copy"):
        pytest.fail("entered")
    with pytest.raises(LabelMalformed), for_instance(ONE, label="a b"):
        pytest.fail("entered")


def test_an_unsupported_client_is_refused_with_its_type() -> None:
    with pytest.raises(TypeError, match=r"Session is not a client .* image_adapter\(session\)"):
        carry_tuple(session("http://127.0.0.1:1", SERVICE))


def test_carry_tuple_keeps_headers_and_is_idempotent() -> None:
    adapter = Adapter(session("http://127.0.0.1:1", SERVICE), additional_headers={"X-Own": "1"})
    assert carry_tuple(adapter) is adapter
    headers = adapter.additional_headers
    assert dict(headers) == {"X-Own": "1"}
    assert carry_tuple(adapter).additional_headers is headers


@pytest.mark.parametrize(("make", "delete"), DELETES.values(), ids=DELETES.keys())
def test_only_the_image_service_gets_the_headers(
    scripted: Scripted, make: Callable[[Session], Any], delete: Delete
) -> None:
    scripted.script = lambda asked: _cloud(scripted.url, asked)
    login = Session(auth=_password(scripted.url))
    client = make(login)
    with for_instance(ONE):
        carry_tuple(client)
        delete(client, IMAGE)
        login.get("/servers", endpoint_filter={"service_type": "compute"})
    delete(client, IMAGE)

    first, second = scripted.of("DELETE", f"/image/v2/images/{IMAGE}")
    assert first.tuple_headers() == {"x-installation-uuid": INSTALLATION, "x-instance-id": "inst:1"}
    assert second.tuple_headers() == {}
    others = [asked for asked in scripted.asked if not asked.path.startswith("/image")]
    assert {asked.path for asked in others} >= {"/identity/v3/auth/tokens", "/compute/servers"}
    assert not any(asked.tuple_headers() for asked in others)


def test_glanceclient_with_an_endpoint_sends_the_headers(scripted: Scripted) -> None:
    scripted.script = lambda asked: Reply(204)
    client = carry_tuple(glanceclient.Client("2", endpoint=scripted.url, token="t"))
    with for_instance(ONE, kind="backup", label="daily"):
        client.images.delete(IMAGE)
    (asked,) = scripted.of("DELETE", f"/v2/images/{IMAGE}")
    assert asked.headers["x-auth-token"] == "t"
    assert asked.tuple_headers() == {
        "x-installation-uuid": INSTALLATION,
        "x-instance-id": "inst:1",
        "x-relation-kind": "backup",
        "x-relation-label": "daily",
    }


def test_headers_of_the_client_itself_stay(scripted: Scripted) -> None:
    scripted.script = lambda asked: Reply(204)
    client = glanceclient.Client(
        "2", endpoint=scripted.url, token="t", identity_headers={"X-Service-Token": "s"}
    )
    InstanceAwareImageService(carry_tuple(client), INSTALLATION).delete(IMAGE)
    (asked,) = scripted.of("DELETE", f"/v2/images/{IMAGE}")
    assert (asked.headers["x-auth-token"], asked.headers["x-service-token"]) == ("t", "s")


def test_one_client_serves_threads(scripted: Scripted) -> None:
    scripted.script = lambda asked: Reply(204)
    client = image_adapter(session(scripted.url, SERVICE))
    start = threading.Barrier(8)

    def delete_some(number: int) -> None:
        start.wait(10)
        for _ in range(10):
            with for_instance(InstanceRef(INSTALLATION, f"inst-{number}")):
                client.delete(f"/v2/images/{number}")

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(delete_some, range(8)))
    deletes = [asked for asked in scripted.asked if asked.method == "DELETE"]
    assert len(deletes) == 80
    for asked in deletes:
        number = asked.path.rpartition("/")[2]
        assert asked.headers["x-instance-id"] == f"inst-{number}"


def test_greenlets_are_isolated() -> None:
    greenlet = importlib.import_module("greenlet")
    main = greenlet.getcurrent()
    headers = TupleHeaders()
    seen = []

    def speak(instance: InstanceRef) -> None:
        with for_instance(instance):
            main.switch()
            seen.append(headers["X-Instance-ID"])

    speakers = [greenlet.greenlet(speak) for _ in range(2)]
    for speaker, instance in zip(speakers, (ONE, TWO), strict=True):
        speaker.switch(instance)
    assert not dict(headers)
    for speaker in speakers:
        speaker.switch()
    assert seen == ["inst:1", "inst:2"]


def test_an_executor_needs_in_this_context() -> None:
    headers = TupleHeaders()

    def read(_number: int) -> dict[str, str]:
        return dict(headers)

    with ThreadPoolExecutor(4) as executor, for_instance(ONE):
        assert executor.submit(read, 0).result() == {}
        assert list(executor.map(in_this_context(read), range(8))) == [OF_ONE] * 8


def test_a_wrapped_function_does_not_change_the_context() -> None:
    variable = contextvars.ContextVar("variable", default="before")
    with for_instance(ONE):
        in_this_context(variable.set)("changed")
    assert variable.get() == "before"


def _password(url: str) -> Password:
    return Password(
        auth_url=f"{url}/identity/v3",
        username="nova",
        password="secret",
        project_name="service",
        user_domain_id="default",
        project_domain_id="default",
    )


def _cloud(url: str, asked: Asked) -> Reply:
    if asked.path != "/identity/v3/auth/tokens":
        return Reply(204 if asked.method == "DELETE" else 200)
    catalog = [
        {
            "type": service,
            "id": service,
            "name": service,
            "endpoints": [
                {"interface": "public", "region_id": "r", "id": service, "url": f"{url}/{service}"}
            ],
        }
        for service in ("image", "compute")
    ]
    token = {
        "methods": ["password"],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "user": {"id": "u", "name": "nova", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "p", "name": "service", "domain": {"id": "default", "name": "Default"}},
        "roles": [],
        "catalog": catalog,
    }
    return shown({"token": token}, 201, X_Subject_Token="t")
