"""The sentences of the filter in the reasons of stacks that fail, before the real Glance."""

import os
from uuid import uuid4

import pytest

from tests.heat.engine import stacks
from tests.heat.engine.stacks import INSTALLATION, Source, Stack, User
from tests.heat.engine.test_image import created, imported, of_instance, source


def boot(user: User, image_id: str) -> str:
    """Start a server from the image; gives its id."""
    server = str(uuid4())
    said = {"installation_uuid": INSTALLATION, "instance_id": server, "image_id": image_id}
    assert user.ask("POST", "/relations", json=said | {"kind": "boot"}).status_code == 201
    return server


def failed(user: User, said: Source) -> str:
    stack = Stack(user, said).create()
    assert stack.state == "CREATE_FAILED"
    return stack.reason


def test_who_may_record_is_told(member: User) -> None:
    assert "one of these roles is needed" in failed(member, imported(instance=of_instance("i")))


def test_who_is_not_known_is_told(user: User) -> None:
    user.roles = ""
    assert "X-Auth-Token is malformed" in failed(user, imported(instance=of_instance("i")))


def test_that_relations_are_down_is_told(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stacks.GLANCE, os.environ[stacks.DOWN_GLANCE])
    reason = failed(user, imported(instance=of_instance("i")))
    assert "the database cannot be used now" in reason


def test_that_an_image_is_in_use_is_told(user: User) -> None:
    stack, image_id = created(user, imported())
    server = boot(user, image_id)
    assert stack.delete().state == "DELETE_FAILED"
    assert (
        f"cannot be deleted: it is used by 1 live server ({server} of {INSTALLATION})"
        in stack.reason
    )


def test_heats_own_image_tells_it_too(user: User) -> None:
    own = {"type": "OS::Glance::WebImage", "properties": source()}
    said = {"heat_template_version": "2021-04-16", "resources": {"image": own}}
    stack, image_id = created(user, said)
    server = boot(user, image_id)
    assert stack.delete().state == "DELETE_FAILED"
    assert (
        f"cannot be deleted: it is used by 1 live server ({server} of {INSTALLATION})"
        in stack.reason
    )
