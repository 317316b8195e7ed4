"""Two Novas on one Cinder: a server is recorded with the installation of its Nova."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import pytest

from related_images.db import Database, instances, origins, relation_queries
from related_images.model import BOOT, NOTIFICATION, SERVER, SERVICE, SOURCES, Filters
from tests.cloud.cloud import PATIENCE, Cloud, eventually
from tests.cloud.plan import INSTALLATION, LISTENERS, RELATED, SECOND, VOLUMES, WITNESSED
from tests.cloud.second_nova import second_nova
from tests.cloud.volume_actions import VolumeActions

Fact = tuple[str, str, str, str]
"""The installation of a server or volume, its name, a word, and the name of another thing."""

FROM: Final = "made from"
TO: Final = "made into"

INSTALLATIONS: Final = {INSTALLATION: "first", SECOND: "second", VOLUMES: "cinder"}

VOLUME_SNAPSHOTS: Final[set[Fact]] = {
    ("cinder", "root of the heir", FROM, "volume snapshot"),
    ("cinder", "volume snapshot", FROM, "root 1"),
    ("cinder", "volume snapshot of the heir", FROM, "root of the heir"),
}
"""What both the filters and the listener know of volumes."""

FILTERS: Final[set[Fact]] = {
    *VOLUME_SNAPSHOTS,
    ("first", "server 1", FROM, "image"),
    ("second", "server 2", FROM, "image"),
    ("cinder", "root 1", FROM, "image"),
    ("cinder", "root 2", FROM, "image"),
    ("first", "server 1", TO, "snapshot"),
    ("second", "heir", FROM, "snapshot"),
    ("second", "heir", TO, "snapshot of the heir"),
    ("first", "server on root 2", FROM, "root 2"),
}

LISTENER: Final[set[Fact]] = {
    *VOLUME_SNAPSHOTS,
    ("first", "server 1", FROM, "root 1"),
    ("second", "server 2", FROM, "root 2"),
    ("second", "heir", FROM, "snapshot"),
    ("second", "heir", FROM, "root of the heir"),
    ("first", "server on root 2", FROM, "root 2"),
}


@dataclass
class Made:
    """What alice made, by ID, and the clouds with each Nova."""

    first: Cloud
    second: Cloud
    names: dict[str, str]


@pytest.fixture(scope="module")
def made(cloud: Cloud) -> Iterator[Made]:
    """Use the volumes of one Cinder in both Novas."""
    with second_nova(cloud) as second:
        made = Made(cloud, second, {})
        _use(made)
        yield made


def _use(made: Made) -> None:
    one, two = VolumeActions(made.first), VolumeActions(made.second)
    image = one.image("for two Novas")
    new = ("--image", image, "--boot-from-volume", "1")
    server_1, server_2 = one.server("one", *new), two.server("two", *new)
    root_1, root_2 = one.root_volume(server_1), two.root_volume(server_2)
    snapshot = one.snapshot_of_server(server_1, "of one")
    heir = two.server("heir", "--image", snapshot)
    root_of_heir = two.root_volume(heir)
    snapshot_of_heir = two.snapshot_of_server(heir, "of the heir")
    two.delete_server(server_2)
    on_root_2 = one.server("on-root-2", "--volume", root_2)
    taken = {
        shown.volume_id: shown.id
        for shown in made.first.connection("alice").block_storage.snapshots()
    }
    made.names = {
        image: "image",
        server_1: "server 1",
        server_2: "server 2",
        root_1: "root 1",
        root_2: "root 2",
        snapshot: "snapshot",
        heir: "heir",
        root_of_heir: "root of the heir",
        snapshot_of_heir: "snapshot of the heir",
        on_root_2: "server on root 2",
        taken[root_1]: "volume snapshot",
        taken[root_of_heir]: "volume snapshot of the heir",
    }


def facts(made: Made, name: str, *sources: str) -> set[Fact]:
    """Return what a database of the cloud has of the things that alice made.

    :param sources: only what these reported
    """
    names, found = made.names, set[Fact]()
    with closing(Database(made.first.plan.database_of(name), PATIENCE)) as database:
        for one in origins.page(database, Filters(), 500, None).items:
            if one.instance_id in names and one.source and one.reported_by in sources:
                where = INSTALLATIONS[one.installation_uuid]
                found.add((where, names[one.instance_id], FROM, names[one.source.instance_id]))
                # all sources here are volumes and volume snapshots
                assert one.source.installation_uuid == VOLUMES
        for row in database.read(relation_queries.find, Filters(), 500):
            if row.instance_id in names and row.source in sources:
                word, where = FROM if row.kind == BOOT else TO, INSTALLATIONS[row.installation_uuid]
                found.add((where, names[row.instance_id], word, names[row.image_id]))
    return found


def test_the_filters_record_the_nova_of_a_server(made: Made) -> None:
    assert facts(made, RELATED, SERVICE) == FILTERS


def test_the_listeners_alone_record_the_nova_of_a_server(made: Made) -> None:
    eventually(lambda: facts(made, WITNESSED, NOTIFICATION) >= LISTENER, "the notifications")
    assert facts(made, WITNESSED, *SOURCES) == LISTENER


def test_both_record_the_nova_of_a_server(made: Made) -> None:
    both = FILTERS | LISTENER
    eventually(lambda: facts(made, RELATED, *SOURCES) >= both, "the notifications")
    assert facts(made, RELATED, *SOURCES) == both


@pytest.mark.parametrize("name", [RELATED, WITNESSED])
def test_a_server_exists_and_ends_in_its_nova(made: Made, name: str) -> None:
    """A server in the other Nova now has the volume of the deleted server."""

    def servers(*, ended: bool) -> set[tuple[str, str]]:
        with closing(Database(made.first.plan.database_of(name), PATIENCE)) as database:
            found = instances.page(database, Filters(resource_type=SERVER), 500, None, None).items
        return {
            (INSTALLATIONS[one.installation_uuid], made.names[one.instance_id])
            for one in found
            if one.instance_id in made.names and bool(one.ended_at) is ended
        }

    eventually(lambda: servers(ended=True), "the end of a server")
    assert servers(ended=True) == {("second", "server 2")}
    living = {("first", "server 1"), ("first", "server on root 2"), ("second", "heir")}
    assert servers(ended=False) == living


def test_no_notification_is_a_dead_letter(made: Made) -> None:
    for cloud in (made.first, made.second):
        for listener in LISTENERS:
            assert cloud.plan.dead_letters(listener).read_text() == ""
