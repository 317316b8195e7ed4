"""Relations that Heat records with its own account, and how it rolls them back."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from keystoneauth1 import loading
from oslo_config import cfg

from tests.heat.engine import stacks
from tests.heat.engine.compute import MISSING, Servers
from tests.heat.engine.stacks import INSTALLATION, Stack, User, configured
from tests.heat.engine.test_image import created, imported, relations, template, updated

pytestmark = pytest.mark.usefixtures("nova", "known_installation")

SERVICE = "heat:service:service"
ADMIN = "root:administration:admin,service"
OTHER_INSTALLATION = "2b9a5f3e-6a0d-4f6b-9d0a-5d0e7c1f4b12"


@pytest.fixture
def known_installation() -> Iterator[None]:
    with configured(installation_uuid=INSTALLATION):
        yield


def heat_account(token: str = SERVICE, **more: Any) -> Any:
    options = loading.get_auth_plugin_conf_options("admin_token")
    cfg.CONF.register_opts(options, "related_images")
    return configured(
        auth_type="admin_token", endpoint=os.environ[stacks.GLANCE], token=token, **more
    )


@pytest.fixture
def with_account() -> Iterator[None]:
    """Heat with an account that has a recording role."""
    with heat_account():
        yield


def an_image(user: User, token: str = "", **more: Any) -> str:
    body = {"name": "there", "disk_format": "raw", "container_format": "bare", **more}
    return str(user.ask("POST", "/images", token, json=body).json()["id"])


def public_image(user: User) -> str:
    return an_image(user, ADMIN, visibility="public")


def recorded(user: User, image_id: str) -> list[tuple[str, str, str | None]]:
    shown = user.ask("GET", f"/images/{image_id}/relations", ADMIN).json()["relations"]
    return sorted((it["instance_id"], it["kind"], it["label"]) for it in shown)


def record(user: User, image_id: str, instance: str, **more: str) -> None:
    """Report a relation as another service."""
    body = {"installation_uuid": INSTALLATION, "instance_id": instance, "image_id": image_id}
    answer = user.ask("POST", "/relations", ADMIN, json={"kind": "snapshot", **body, **more})
    assert answer.status_code in (200, 201)


@pytest.mark.usefixtures("with_account")
def test_a_server_that_nova_shows_the_user_is_recorded(member: User) -> None:
    one, two = Servers.add(member.project), Servers.add(member.project)
    stack, image_id = created(member, imported(server=one))
    assert relations(member, image_id) == [(one, "snapshot", None)]
    updated(stack, imported(instance={"id": two}))
    assert relations(member, image_id) == [(two, "snapshot", None)]
    assert member.image(image_id)["owner"] == member.project


@pytest.mark.usefixtures("with_account")
@pytest.mark.parametrize("kind", ["boot", "snapshot", "backup"])
@pytest.mark.parametrize("invented", [True, False])
def test_a_server_that_nova_does_not_show_the_user_is_refused(
    member: User, kind: str, invented: bool
) -> None:
    image_id = public_image(member)
    server = MISSING if invented else Servers.add("bob", image_id)
    properties = {"instance": {"id": server}, "kind": kind}
    for source in (template(image=image_id, **properties), imported(name="refused", **properties)):
        stack = Stack(member, source).create()
        assert stack.state == "CREATE_FAILED"
        assert f"Nova shows the stack's user no server {server}" in stack.reason
        assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(member, image_id) == []
    assert member.ask("DELETE", f"/images/{image_id}", ADMIN).status_code == 204
    assert member.ask("GET", f"/relations?instance_id={server}", ADMIN).json()["relations"] == []


@pytest.mark.usefixtures("with_account")
@pytest.mark.parametrize("id", ["detail", "..", "inst-1"])
def test_an_id_that_is_not_novas_is_refused(member: User, id: str) -> None:
    stack = Stack(member, imported(instance={"id": id})).create()
    assert stack.state == "CREATE_FAILED"
    assert f"no server {id}, so nothing was recorded" in stack.reason


@pytest.mark.usefixtures("with_account")
def test_an_id_in_upper_case_is_refused(member: User) -> None:
    server = Servers.add(member.project)
    Servers.spellings[server.upper()] = server
    stack = Stack(member, imported(instance={"id": server.upper()})).create()
    assert stack.state == "CREATE_FAILED"
    assert f"no server {server.upper()}" in stack.reason


@pytest.mark.usefixtures("with_account")
def test_a_server_of_another_installation_is_refused(member: User) -> None:
    instance = {"installation": OTHER_INSTALLATION, "id": Servers.add(member.project)}
    stack = Stack(member, imported(name="refused", instance=instance)).create()
    assert stack.state == "CREATE_FAILED"
    assert f"in the installation {OTHER_INSTALLATION}" in stack.reason
    assert member.ask("GET", "/images?name=refused").json()["images"] == []


@pytest.mark.usefixtures("with_account")
def test_a_boot_is_recorded_for_the_image_that_nova_shows(member: User) -> None:
    image_id = public_image(member)
    server = Servers.add(member.project, image_id)
    properties = template(image=image_id, instance={"id": server}, kind="boot")
    stack, _ = created(member, properties)
    assert recorded(member, image_id) == [(server, "boot", None)]
    (shown,) = stack["image"].FnGetAtt("relations")
    assert shown["project_id"] == member.project
    assert stack.check().state == "CHECK_COMPLETE"
    assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(member, image_id) == []


@pytest.mark.usefixtures("with_account")
def test_a_boot_belongs_to_the_project_that_nova_shows() -> None:
    admin = User(f"project-{uuid4()}", "admin")
    image_id = public_image(admin)
    server = Servers.add("bob", image_id)
    created(admin, template(image=image_id, instance={"id": server}, kind="boot"))
    (shown,) = admin.ask("GET", f"/images/{image_id}/relations", ADMIN).json()["relations"]
    assert shown["project_id"] == "bob"


@pytest.mark.usefixtures("with_account")
def test_a_relation_stays_if_it_may_not_be_recorded_with_another_label(member: User) -> None:
    server = Servers.add(member.project)
    properties = {"instance": {"id": server}, "kind": "backup"}
    stack, image_id = created(member, imported(**properties, label="daily"))
    Servers.deleted.add(server)
    updated(stack, imported(**properties, label="daily", properties={"a": "1"}))
    stack.update_with_rollback(imported(**properties, label="weekly"))
    assert stack.state == "ROLLBACK_COMPLETE"
    assert recorded(member, image_id) == [(server, "backup", "daily")]


@pytest.mark.usefixtures("with_account")
@pytest.mark.parametrize("has_image", [True, False])
def test_a_boot_from_another_image_is_refused(member: User, has_image: bool) -> None:
    other = an_image(member) if has_image else None
    image_id, server = public_image(member), Servers.add(member.project, other)
    stack = Stack(member, template(image=image_id, server=server, kind="boot")).create()
    assert stack.state == "CREATE_FAILED"
    assert f"was booted from {f'the image {other}' if other else 'no image'}" in stack.reason
    assert recorded(member, image_id) == []


@pytest.mark.usefixtures("with_account")
@pytest.mark.parametrize("kind", ["snapshot", "backup"])
def test_an_image_of_another_project_is_not_recorded_as_made_from_a_server(
    member: User, kind: str
) -> None:
    image_id = public_image(member)
    properties = template(image=image_id, server=Servers.add(member.project), kind=kind)
    stack = Stack(member, properties).create()
    assert stack.state == "CREATE_FAILED"
    assert f"the image {image_id} belongs to another project" in stack.reason
    assert recorded(member, image_id) == []


def test_a_user_with_a_recording_role_may_record_any_relation(user: User) -> None:
    instance = {"installation": OTHER_INSTALLATION, "id": "inst-1"}
    _, image_id = created(user, imported(instance=instance))
    assert relations(user, image_id) == [("inst-1", "snapshot", None)]


def test_an_account_without_the_role_is_reported(member: User) -> None:
    with heat_account("heat:service:member"):
        stack = Stack(member, imported(server=Servers.add(member.project))).create()
    assert stack.state == "CREATE_FAILED"
    assert "assign a recording role to the account in [related_images] of heat.conf" in stack.reason


class Keystone(BaseHTTPRequestHandler):
    """A Keystone that refuses every password."""

    def do_GET(self) -> None:
        links = [{"rel": "self", "href": f"http://{self.headers['Host']}/v3"}]
        self._answer(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = "The request you have made requires authentication."
        self._answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}})

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def keystone() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v3"
        finally:
            server.shutdown()
            thread.join()


def authenticating(url: str) -> Any:
    """Configure an account of Heat with a password."""
    cfg.CONF.register_opts(loading.get_auth_plugin_conf_options("v3password"), "related_images")
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    account = {"username": "heat", "password": "wrong-one", "project_name": "service"}
    return configured(auth_type="v3password", auth_url=url, **account, **domains)


def test_a_wrong_password_of_heats_account_is_reported(member: User, keystone: str) -> None:
    with authenticating(keystone):
        stack = Stack(member, imported(server=Servers.add(member.project))).create()
    assert stack.state == "CREATE_FAILED"
    assert "Keystone refuses the account in [related_images]" in stack.reason
    assert "got no answer" not in stack.reason
    assert "wrong-one" not in stack.reason


def test_an_unreachable_keystone_is_reported(member: User) -> None:
    with authenticating("http://127.0.0.1:1/v3"):
        stack = Stack(member, imported(server=Servers.add(member.project))).create()
    assert stack.state == "CREATE_FAILED"
    assert "Keystone does not issue a token for the account in [related_images]" in stack.reason


@pytest.mark.parametrize("who", ["user", "member"])
def test_an_installation_of_another_service_user_is_reported(
    user: User, member: User, who: str
) -> None:
    asking, bound = (user, member)[who == "member"], str(uuid4())
    body = {"uuid": bound, "name": f"nova-{bound}", "service_users": [{"user_id": "nova"}]}
    assert user.ask("POST", "/installations", ADMIN, json=body).status_code == 201
    with heat_account(installation_uuid=bound):
        stack = Stack(asking, imported(server=Servers.add(asking.project))).create()
    assert stack.state == "CREATE_FAILED"
    assert (
        "configure the account of one of these service users in [related_images] of heat.conf"
        in stack.reason
    )
    assert "assign a recording role" not in stack.reason
    with heat_account("nova:service:service", installation_uuid=bound):
        created(asking, imported(server=Servers.add(asking.project)))


def test_the_relation_of_another_stack_stays(user: User) -> None:
    image_id, server = an_image(user), str(uuid4())
    one, other = (created(user, template(image=image_id, server=server))[0] for _ in range(2))
    assert one.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == [(server, "snapshot", None)]
    assert other.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == []


@pytest.mark.parametrize("was_first", [True, False])
def test_a_relation_that_another_service_reports_stays(user: User, was_first: bool) -> None:
    image_id, server = an_image(user), str(uuid4())
    if was_first:
        record(user, image_id, server)
    stack, _ = created(user, template(image=image_id, server=server))
    if not was_first:
        record(user, image_id, server)
    assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == [(server, "snapshot", None)]


def test_a_relation_that_another_service_recorded_later_stays(user: User) -> None:
    image_id, server = an_image(user), str(uuid4())
    stack, _ = created(user, template(image=image_id, server=server))
    path = f"/images/{image_id}/relations/{INSTALLATION}/{server}/snapshot"
    assert user.ask("DELETE", path, ADMIN).status_code == 204
    record(user, image_id, server)
    assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == [(server, "snapshot", None)]


def test_an_existing_label_stays(user: User) -> None:
    image_id, server = an_image(user), str(uuid4())
    record(user, image_id, server, kind="backup", label="daily")
    properties = template(image=image_id, server=server, kind="backup")
    stack, _ = created(user, properties)
    assert recorded(user, image_id) == [(server, "backup", "daily")]
    assert stack.check().state == "CHECK_COMPLETE"
    stack.update(template(image=image_id, server=server, kind="backup", label="weekly"))
    assert stack.state == "UPDATE_FAILED"
    assert "with the label daily, not only by this stack" in stack.reason
    assert recorded(user, image_id) == [(server, "backup", "daily")]
    updated(stack, properties)
    assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == [(server, "backup", "daily")]


def test_the_label_of_the_stack_is_changed_and_removed(user: User) -> None:
    image_id, server = an_image(user), str(uuid4())
    properties = {"image": image_id, "server": server, "kind": "backup"}
    stack, _ = created(user, template(**properties, label="daily"))
    updated(stack, template(**properties, label="weekly"))
    assert recorded(user, image_id) == [(server, "backup", "weekly")]
    updated(stack, template(**properties))
    assert recorded(user, image_id) == [(server, "backup", None)]
    assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(user, image_id) == []


def test_reports_in_the_data_of_an_adopted_stack_are_ignored(member: User) -> None:
    image_id, server = public_image(member), Servers.add("bob")
    record(member, image_id, server, kind="boot")
    properties = template(image=image_id)
    (shown,) = member.ask("GET", f"/images/{image_id}/relations", ADMIN).json()["relations"]
    forged = [
        {
            "installation_uuid": INSTALLATION,
            "instance_id": server,
            "kind": "boot",
            "label": None,
            "recorded_at": shown["created_at"],
        }
    ]
    with heat_account():
        stack = Stack(member, properties).adopt("image", image_id, reports=forged)
        assert stack.state == "ADOPT_COMPLETE"
        assert stack.delete().state == "DELETE_COMPLETE"
    assert recorded(member, image_id) == [(server, "boot", None)]
