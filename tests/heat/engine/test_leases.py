"""The program in docs/leases.md, with stacks of the real engine behind Heat's own API."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from openstack.connection import Connection

from tests.heat.engine import heat_api
from tests.heat.engine.stacks import INSTALLATION, Stack, User

PAGE = Path(__file__).parents[3] / "docs" / "leases.md"
TEMPLATE = """
heat_template_version: 2018-08-31
parameters:
  image: {type: string, constraints: [{custom_constraint: glance.image}]}
  spare: {type: string, default: ""}
  word: {type: string, default: none, constraints: [{allowed_values: [none]}]}
resources:
  value: {type: OS::Heat::Value, properties: {value: {get_param: image}}}
"""


@pytest.fixture
def renew() -> Callable[[Connection, str], int]:
    """The function of the program on the page."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(source.splitlines()) < 60
    names: dict[str, Any] = {"__name__": "renew_stack_leases"}
    exec(compile(source, str(PAGE), "exec"), names)
    found: Callable[[Connection, str], int] = names["renew"]
    return found


@pytest.fixture
def user() -> User:
    """A user who may read the stacks of the project, and has a recording role."""
    return User(f"project-{uuid4()}", "member,reader,service")


@pytest.fixture(autouse=True)
def registered(user: User) -> None:
    answer = user.ask("POST", "/resource-types", "root:admin:admin", json={"name": "stack"})
    assert answer.status_code in (200, 201)


def an_image(user: User, name: str) -> str:
    answer = user.ask("POST", "/images", json={"name": name})
    assert answer.status_code == 201
    return str(answer.json()["id"])


def leases(user: User) -> dict[tuple[str, str], str]:
    """Return the ends of the leases by stack and image."""
    found = user.ask("GET", f"/relations?kind=use&project_id={user.project}").json()
    rows = found["relations"]
    return {(row["instance_id"], row["image_id"]): row["expires_at"] for row in rows}


def test_the_program_renews_the_leases_of_live_stacks(
    user: User, renew: Callable[[Connection, str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    images = [an_image(user, name) for name in ("one", "two")]
    first = Stack(user, TEMPLATE, image=images[0], spare=images[1]).create()
    second = Stack(user, TEMPLATE, image="two").create()
    gone = Stack(user, TEMPLATE, image=images[1]).create().delete()
    assert (first.state, gone.state) == ("CREATE_COMPLETE", "DELETE_COMPLETE")
    with heat_api.connected(user) as cloud:
        assert renew(cloud, INSTALLATION) == 0
        begun = leases(user)
        assert set(begun) == {
            (first.stack_id, images[0]),
            (second.stack_id, images[1]),
        }
        assert renew(cloud, INSTALLATION) == 0
        renewed = leases(user)
        assert set(renewed) == set(begun)
        assert all(renewed[key] > end for key, end in begun.items())
        refused = user.ask("DELETE", f"/images/{images[0]}")
        assert refused.status_code == 409
        assert f"1 live stack ({first.stack_id} of " in refused.json()["error"]["message"]
        path = f"/instances/{INSTALLATION}/{first.stack_id}?resource_type=stack"
        assert user.ask("DELETE", path).status_code == 204
        assert renew(cloud, INSTALLATION) == 1
    assert f"stack {first.stack_id}, image {images[0]}: " in capsys.readouterr().err
    assert user.ask("DELETE", f"/images/{images[0]}").status_code == 204
