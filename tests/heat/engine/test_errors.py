"""Messages of the filter in the reasons of failed stacks, with a real Glance."""

import os
from uuid import uuid4

import pytest

from tests.heat.engine import stacks
from tests.heat.engine.stacks import INSTALLATION, Source, Stack, User
from tests.heat.engine.test_image import created, imported, of_instance, source


def boot(user: User, image_id: str) -> str:
    """Record a server that was booted from the image, and return its ID."""
    server = str(uuid4())
    body = {"installation_uuid": INSTALLATION, "instance_id": server, "image_id": image_id}
    assert user.ask("POST", "/relations", json=body | {"kind": "boot"}).status_code == 201
    return server


def failed(user: User, template: Source) -> str:
    stack = Stack(user, template).create()
    assert stack.state == "CREATE_FAILED"
    return stack.reason


def test_a_403_is_shown(member: User) -> None:
    assert "one of these roles is needed" in failed(member, imported(instance=of_instance("i")))


def test_a_401_is_shown(user: User) -> None:
    user.roles = ""
    assert "X-Auth-Token is malformed" in failed(user, imported(instance=of_instance("i")))


def test_a_503_is_shown(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stacks.GLANCE, os.environ[stacks.DOWN_GLANCE])
    reason = failed(user, imported(instance=of_instance("i")))
    assert "the database cannot be used now" in reason


def test_a_409_is_shown(user: User) -> None:
    stack, image_id = created(user, imported())
    server = boot(user, image_id)
    assert stack.delete().state == "DELETE_FAILED"
    assert (
        f"cannot be deleted: it is used by 1 live server ({server} of {INSTALLATION})"
        in stack.reason
    )


def test_a_409_is_shown_for_heats_own_image(user: User) -> None:
    own = {"type": "OS::Glance::WebImage", "properties": source()}
    template = {"heat_template_version": "2021-04-16", "resources": {"image": own}}
    stack, image_id = created(user, template)
    server = boot(user, image_id)
    assert stack.delete().state == "DELETE_FAILED"
    assert (
        f"cannot be deleted: it is used by 1 live server ({server} of {INSTALLATION})"
        in stack.reason
    )
