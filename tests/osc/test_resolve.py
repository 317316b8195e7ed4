"""The lookup of images and projects by name."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from osc_lib.exceptions import CommandError

from related_images.client import RelationsClient
from related_images.osc import resolve
from tests.client.clients import MAKERS
from tests.client.scripted import Scripted
from tests.osc.identity import PASSWORD, Identity
from tests.osc.running import Instance
from tests.servers import ServedGlance


@pytest.fixture
def relations(instance: Instance) -> RelationsClient:
    return RelationsClient(MAKERS["adapter"](instance.glance.url, instance.member))


@pytest.mark.parametrize(
    "name", ["plain", "Größe & co", "in:a,b", 'say "so"', "web:2", "2026-01-31T12:00:00Z", "../x"]
)
def test_an_image_by_name(name: str, instance: Instance, relations: RelationsClient) -> None:
    image_id = instance.image(name)
    instance.image("another")
    assert resolve.image(relations, name) == image_id
    assert resolve.image(relations, image_id) == image_id


def test_a_name_that_several_images_have(instance: Instance, relations: RelationsClient) -> None:
    made = [instance.image("twin"), instance.image("twin")]
    with pytest.raises(CommandError, match="more than one image with the name") as refused:
        resolve.image(relations, "twin")
    for image_id in made:
        assert image_id in str(refused.value)


@pytest.mark.slow
def test_all_pages_are_searched_for_a_name(instance: Instance, tmp_path: Path) -> None:
    short = "[DEFAULT]\napi_limit_max = 1"
    with ServedGlance(tmp_path / "short", glance_conf=short) as glance:
        there = replace(instance, glance=glance)
        made = [there.image("twin"), there.image("twin")]
        relations = RelationsClient(MAKERS["adapter"](glance.url, instance.member))
        with pytest.raises(CommandError, match="more than one image with the name") as refused:
            resolve.image(relations, "twin")
        assert all(image_id in str(refused.value) for image_id in made)


def test_a_name_that_no_image_has(instance: Instance, relations: RelationsClient) -> None:
    with pytest.raises(CommandError, match=r"no image with the name or ID 'nothing'.*give the ID"):
        resolve.image(relations, "nothing")


@pytest.fixture
def identity(scripted: Scripted) -> Identity:
    return Identity(scripted, "http://127.0.0.1:1", "t")


def manager(identity: Identity) -> Any:
    auth = Password(
        identity.url,
        username="alice",
        password=PASSWORD,
        user_domain_id="default",
        project_name="own",
        project_domain_id="default",
    )
    session = Session(auth)
    return SimpleNamespace(
        auth_ref=auth.get_access(session), session=session, region_name="one", interface="public"
    )


def test_a_project_without_an_identity_service() -> None:
    assert resolve.project(SimpleNamespace(auth_ref=None), "web") == "web"


def test_no_project(identity: Identity) -> None:
    assert resolve.project(manager(identity), None) is None


def test_a_project_by_name_or_id(identity: Identity) -> None:
    identity.projects = {"id-1": "web", "id-2": "mail"}
    asking = manager(identity)
    assert [resolve.project(asking, text) for text in ("web", "mail", "id-2")] == [
        "id-1",
        "id-2",
        "id-2",
    ]


def test_the_own_project_is_not_looked_up(identity: Identity, scripted: Scripted) -> None:
    asking = manager(identity)
    assert resolve.project(asking, "own") == resolve.project(asking, "own-id") == "own-id"
    assert not [asked for asked in scripted.asked if "projects" in asked.path]


def test_an_identity_service_that_refuses(identity: Identity) -> None:
    identity.refusal = 403
    with pytest.raises(CommandError, match=r"look up the project 'web'; give the project's ID"):
        resolve.project(manager(identity), "web")
    for project_id in (uuid4().hex, str(uuid4())):
        assert resolve.project(manager(identity), project_id) == project_id


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_identity_service_that_fails(status: int, identity: Identity) -> None:
    identity.refusal = status
    with pytest.raises(CommandError, match=f"answered {status}"):
        resolve.project(manager(identity), uuid4().hex)


def test_a_project_name_with_no_or_two_projects(identity: Identity) -> None:
    identity.projects = {"id-1": "web", "id-2": "web"}
    with pytest.raises(CommandError, match=r"more than one project.*id-1, id-2; give the ID"):
        resolve.project(manager(identity), "web")
    with pytest.raises(CommandError, match="no project with the name or ID 'a/b'"):
        resolve.project(manager(identity), "a/b")
