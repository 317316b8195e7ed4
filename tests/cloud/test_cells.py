"""Resizes from one cell to another, for which nova-conductor creates temporary images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from related_images.db import (
    Database,
    Filters,
    relation_queries,
)
from tests.cloud.cells import second_cell
from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import INSTALLATION, WITNESSED, Cell
from tests.cloud.user_actions import FLAVOR, CreatedServers, ServerActions

NAME: Final = "moved"
BIGGER: Final = "bigger"

TEMPORARY: Final = text(
    "SELECT i.id, i.status, p.value FROM images i JOIN image_properties p ON p.image_id = i.id"
    " WHERE i.name = :name AND p.name = 'instance_uuid'"
)
"""Finds deleted images in Glance's database, because the API does not return them."""


@dataclass(frozen=True)
class Moved:
    """A server that was resized into the second cell, and back.

    :param there: the server after the first resize
    :param snapshot_id: the ID of a snapshot that was made in the second cell
    :param back: the server after the second resize
    """

    server_id: str
    there: Any
    snapshot_id: str
    back: Any


@pytest.fixture(scope="module")
def server_id(cloud: Cloud, created: CreatedServers) -> str:
    """Create a server in the first cell, which is the only one yet, and return its ID."""
    return ServerActions(cloud).server(NAME, created.images["base"])


@pytest.fixture(scope="module")
def cell(cloud: Cloud, server_id: str) -> Iterator[Cell]:
    with second_cell(cloud) as started:
        yield started


@pytest.fixture(scope="module")
def moved(cloud: Cloud, server_id: str, cell: Cell) -> Moved:
    actions = ServerActions(cloud)
    actions.flavor(BIGGER, ram=128)
    there = actions.resize(server_id, BIGGER)
    actions.confirm(server_id)
    snapshot_id = actions.snapshot("alice", server_id, "in the second cell")
    return Moved(server_id, there, snapshot_id, actions.resize(server_id, FLAVOR))


@pytest.fixture(scope="module")
def recorded(cloud: Cloud, moved: Moved) -> list[dict[str, Any]]:
    """Return the relations of the images that were made from the server."""
    path = f"/v2/relations?instance_id={moved.server_id}"
    rows = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("admin")}).json["relations"]
    return [row for row in rows if row["kind"] != "boot"]


def test_both_resizes_wait_to_be_confirmed_in_the_other_cell(
    cloud: Cloud, cell: Cell, moved: Moved
) -> None:
    found = [(server.status, server.compute_host) for server in (moved.there, moved.back)]
    hosts = (cell.host, cloud.plan.first.host)
    assert found == [("VERIFY_RESIZE", host) for host in hosts]


def test_the_temporary_images_of_the_conductor_are_recorded(
    cloud: Cloud, moved: Moved, recorded: list[dict[str, Any]]
) -> None:
    deleted = {row["image_id"] for row in recorded if row["image_deleted_at"]}
    with create_engine(cloud.plan.database_of("glance")).connect() as connection:
        made = connection.execute(TEMPORARY, {"name": f"{NAME}-resize-temp"}).all()
    assert len(made) == 2
    assert {tuple(row) for row in made} == {
        (image_id, "deleted", moved.server_id) for image_id in deleted
    }


def test_a_snapshot_in_the_second_cell_is_recorded(
    cloud: Cloud, moved: Moved, recorded: list[dict[str, Any]]
) -> None:
    kept = [row["image_id"] for row in recorded if row["image_deleted_at"] is None]
    assert kept == [moved.snapshot_id]
    path = f"/v2/images/{moved.snapshot_id}"
    image = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("alice")}).json
    assert image["instance_uuid"] == moved.server_id


def test_each_is_a_snapshot_of_the_server_that_its_owner_sees(
    cloud: Cloud, moved: Moved, recorded: list[dict[str, Any]]
) -> None:
    said = {
        "installation_uuid": INSTALLATION,
        "instance_id": moved.server_id,
        "kind": "snapshot",
        "label": None,
        "source": "service",
        "project_id": cloud.connection("alice").current_project_id,
    }
    assert [{name: row[name] for name in said} for row in recorded] == [said] * 3


def test_notifications_report_only_the_snapshot(cloud: Cloud, moved: Moved) -> None:
    database = Database(cloud.plan.database_of(WITNESSED), 20)

    def heard() -> set[tuple[str, str]]:
        rows = database.read(relation_queries.find, Filters(INSTALLATION, moved.server_id), 1000)
        return {(row.image_id, row.kind) for row in rows if row.kind != "boot"}

    assert eventually(heard, "a notification") == {(moved.snapshot_id, "snapshot")}
