"""Snapshots of servers in templates."""

from typing import Any
from uuid import uuid4

import pytest
from heat.common.exception import StackValidationFailed

from tests.heat.engine.compute import BROKEN, BROKEN_AT_ONCE, MISSING
from tests.heat.engine.stacks import INSTALLATION, Stack, User, configured

pytestmark = pytest.mark.usefixtures("nova")


def snapshot(server: str, **properties: Any) -> dict[str, Any]:
    resource = {"type": "OS::RelatedImages::Image", "properties": {"server": server, **properties}}
    return {"heat_template_version": "2021-04-16", "resources": {"image": resource}}


def test_a_snapshot_is_created_updated_and_recorded(user: User) -> None:
    server = str(uuid4())
    with configured(installation_uuid=INSTALLATION):
        stack = Stack(user, snapshot(server, name="of web-1", properties={"why": "x"})).create()
        assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
        image = user.image(stack["image"].resource_id)
        assert (image["status"], image["name"], image["why"]) == ("active", "of web-1", "x")
        (relation,) = stack["image"].FnGetAtt("relations")
        assert (relation["instance_id"], relation["kind"]) == (server, "snapshot")
        assert relation["installation_uuid"] == INSTALLATION

        stack.update(snapshot(server, name="of web-1", properties={"why": "y"}))
        assert stack["image"].resource_id == image["id"]
        stack.update(snapshot(str(uuid4()), name="of web-2"))
        assert stack.state == "UPDATE_COMPLETE"
        assert stack["image"].resource_id != image["id"]
        assert stack.delete().state == "DELETE_COMPLETE"


def test_a_bad_gateway_during_a_snapshot_is_retried(user: User) -> None:
    user.recorder.lost = 2
    with configured(installation_uuid=INSTALLATION):
        stack = Stack(user, snapshot(str(uuid4()))).create()
    assert (stack.state, user.recorder.lost) == ("CREATE_COMPLETE", 0)


@pytest.mark.parametrize("server", [BROKEN, BROKEN_AT_ONCE])
def test_a_snapshot_that_fails_fails_the_stack(user: User, server: str) -> None:
    with configured(installation_uuid=INSTALLATION):
        stack = Stack(user, snapshot(server)).create()
    assert stack.state == "CREATE_FAILED"
    assert f"of server {server} failed: Nova deleted the image again" in stack.reason
    assert stack.delete().state == "DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("server", "more", "message"),
    [
        (MISSING, {}, MISSING),
        ("web-1", {"kind": "boot"}, "cannot be of the kind boot"),
        ("web-1", {"instance": {"id": "i"}}, "server and instance exclude each other"),
    ],
)
def test_an_invalid_snapshot_is_refused(
    user: User, server: str, more: dict[str, Any], message: str
) -> None:
    with (
        configured(installation_uuid=INSTALLATION),
        pytest.raises(StackValidationFailed) as refused,
    ):
        Stack(user, snapshot(server, **more)).validate()
    assert message in str(refused.value)


def test_a_server_without_an_installation_is_refused(user: User) -> None:
    with pytest.raises(StackValidationFailed, match="no installation is known"):
        Stack(user, snapshot(str(uuid4()))).validate()
