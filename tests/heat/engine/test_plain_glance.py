"""A Glance without the filter: images work, and relations are refused."""

import os

import pytest

from tests.heat.engine import stacks
from tests.heat.engine.stacks import Stack, User
from tests.heat.engine.test_image import created, imported, of_instance, updated


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stacks.GLANCE, os.environ[stacks.PLAIN_GLANCE])


def test_images_without_a_relation_work(user: User) -> None:
    stack, image_id = created(user, imported(properties={"a": "1"}))
    updated(stack, imported(properties={"a": "2"}))
    assert user.image(image_id)["a"] == "2"
    assert stack.delete().state == "DELETE_COMPLETE"


def test_an_image_with_a_relation_is_refused_and_not_created(user: User) -> None:
    stack = Stack(user, imported(name="refused", instance=of_instance("inst-1"))).create()
    assert stack.state == "CREATE_FAILED"
    assert "this Glance does not have the related-images filter" in stack.reason
    assert user.ask("GET", "/images?name=refused").json()["images"] == []
