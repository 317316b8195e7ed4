"""The images of servers that Nova builds, cannot build, or builds while starts are not recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import INSTALLATION, RELATED
from tests.cloud.starting import start_compute
from tests.cloud.user_actions import FLAVOR, CreatedServers, ServerActions

HUGE: Final = "huge"


@pytest.fixture
def actions(cloud: Cloud, created: CreatedServers) -> ServerActions:
    return ServerActions(cloud)


@pytest.fixture
def image_id(actions: ServerActions) -> str:
    """Create an image of alice that no server uses, and return its ID."""
    return actions.image("alice", "to start from", b"a disk")


def create(cloud: Cloud, name: str, image_id: str, flavor: str = FLAVOR) -> Any:
    """Create a server, and return Nova's response without waiting for the server."""
    compute = cloud.connection("alice").compute
    flavor_id = compute.find_flavor(flavor).id
    return compute.create_server(name=name, image_id=image_id, flavor_id=flavor_id, networks="none")


def state(cloud: Cloud, server_id: str) -> str:
    return str(cloud.connection("alice").compute.get_server(server_id).status)


def starts(cloud: Cloud, server_id: str) -> list[tuple[str, str]]:
    path = f"/v2/relations?instance_id={server_id}&kind=boot"
    answer = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("alice")})
    return [(row["image_id"], row["source"]) for row in answer.json["relations"]]


def delete_image(cloud: Cloud, image_id: str) -> tuple[int, str | None]:
    token = {"X-Auth-Token": cloud.token("alice")}
    answer = cloud.glance("DELETE", f"/v2/images/{image_id}", token)
    return answer.status, answer.json["error"]["code"] if answer.body else None


def has_ended(cloud: Cloud, server_id: str) -> bool:
    path = f"/v2/instances/{INSTALLATION}/{server_id}"
    answer = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("alice")})
    return answer.status == 200 and answer.json["ended_at"] is not None


@contextmanager
def no_compute(cloud: Cloud) -> Iterator[None]:
    """Stop nova-compute while the block runs: Nova schedules servers, but builds none."""
    cell = cloud.plan.first
    cloud.processes.stop(cell.compute)
    try:
        yield
    finally:
        start_compute(cloud, cell)


@contextmanager
def no_tables(cloud: Cloud) -> Iterator[None]:
    """Rename a table while the block runs, so that the filter in Glance cannot record."""
    engine = create_engine(cloud.plan.database_of(RELATED))
    with engine.connect() as connection:
        connection.execute(text("RENAME TABLE related_relation TO away"))
        try:
            yield
        finally:
            connection.execute(text("RENAME TABLE away TO related_relation"))
    engine.dispose()


def test_an_image_is_protected_before_the_server_is_built(
    cloud: Cloud, actions: ServerActions, image_id: str
) -> None:
    with no_compute(cloud):
        server = create(cloud, "protected", image_id)
        assert starts(cloud, server.id) == [(image_id, "service")]
        assert delete_image(cloud, image_id) == (409, "image.in-use")
        assert state(cloud, server.id) == "BUILD"
    eventually(lambda: state(cloud, server.id) == "ACTIVE", "the server")
    assert delete_image(cloud, image_id) == (409, "image.in-use")
    actions.delete(server.id)
    eventually(lambda: has_ended(cloud, server.id), "the notification of the deletion")
    assert delete_image(cloud, image_id) == (204, None)


def test_a_server_without_a_host_does_not_use_its_image(
    cloud: Cloud, actions: ServerActions, image_id: str
) -> None:
    # Nova has no quota for the size of local disks
    actions.flavor(HUGE, disk=10_000_000)
    server = create(cloud, "no host", image_id, HUGE)
    assert starts(cloud, server.id) == [(image_id, "service")]
    eventually(lambda: has_ended(cloud, server.id), "the notification of the failure")
    assert state(cloud, server.id) == "ERROR"
    assert delete_image(cloud, image_id) == (204, None)
    actions.delete(server.id)


def test_a_server_that_is_deleted_at_once_does_not_use_its_image(
    cloud: Cloud, actions: ServerActions, image_id: str
) -> None:
    server = create(cloud, "deleted at once", image_id)
    actions.delete(server.id)
    eventually(lambda: has_ended(cloud, server.id), "the end of the server")
    assert delete_image(cloud, image_id) == (204, None)


def test_a_server_is_built_although_its_start_cannot_be_reported(
    cloud: Cloud, actions: ServerActions, image_id: str
) -> None:
    with no_tables(cloud):
        server = create(cloud, "not reported", image_id)
    eventually(lambda: state(cloud, server.id) == "ACTIVE", "the server")
    log = (cloud.plan.home("nova") / "server.log").read_text(errors="replace")
    assert "the start of a server is not reported" in log
    # the listener records the start later
    eventually(lambda: starts(cloud, server.id) == [(image_id, "notification")], "a notification")
    actions.delete(server.id)
