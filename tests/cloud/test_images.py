"""The server of an image according to the filter, the notifications, and Nova's property."""

from typing import Any, Final

import pytest

from related_images.db import (
    Database,
    Filters,
    instances,
    relation_queries,
)
from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import INSTALLATION, LISTENERS, WITNESSED
from tests.cloud.user_actions import CreatedServers

SNAPSHOTS: Final = {
    "snapshot": ("snapshot", None),
    "snapshot by an administrator": ("snapshot", None),
    "snapshot of an heir": ("snapshot", None),
    "snapshot with forged metadata": ("snapshot", None),
    "backup 1": ("backup", "daily"),
    "backup 4": ("backup", "daily"),
    "shelve": ("shelved", None),
}
"""The kind and label that are recorded for the image of each action."""

SILENT: Final = {"shelve"}
"""The actions for whose images Nova sends no notification."""

GONE: Final = {"backup 1", "shelve"}
"""The actions whose images Nova deletes: by rotation, and when a server is unshelved."""

STARTED_FROM: Final = {
    "first": {"base"},
    "heir": {"backup 3"},
    "shelved": {"base", "backup 4"},
}
"""The images that each server was started or rebuilt from."""

Relations = dict[str, tuple[str, str]]


def relation(cloud: Cloud, image_id: str) -> dict[str, Any]:
    """Return the one relation of an image to the server that it was made from."""
    path = f"/v2/relations?image_id={image_id}"
    answer = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("admin")})
    assert answer.status == 200, answer.body
    (found,) = [row for row in answer.json["relations"] if row["kind"] != "boot"]
    return dict(found)


@pytest.fixture(scope="module")
def witnessed(cloud: Cloud, created: CreatedServers) -> Relations:
    """Return the server and kind of each image that the notifications alone report."""
    database = Database(cloud.plan.database_of(WITNESSED), 20)

    def all_heard() -> Relations | None:
        # its deletion is the last notification that Nova sends
        heir = Filters(INSTALLATION, created.servers["heir"])
        known = database.read(instances._find, heir, 1)
        if not known or known[0].ended_at is None:
            return None
        rows = database.read(relation_queries.find, Filters(), 1000)
        return {row.image_id: (row.instance_id, row.kind) for row in rows if row.kind != "boot"}

    return eventually(all_heard, "the last notification")


@pytest.fixture(scope="module")
def listened(cloud: Cloud, created: CreatedServers) -> None:
    """Wait until the listener that uses the filter's database has stored all notifications."""
    eventually(lambda: ended_at(cloud, created.servers["heir"]), "the last notification")


@pytest.mark.parametrize("action", SNAPSHOTS)
def test_the_filter_names_the_instance_that_it_was_made_from(
    cloud: Cloud, created: CreatedServers, action: str
) -> None:
    recorded = relation(cloud, created.images[action])
    assert recorded["installation_uuid"] == INSTALLATION
    assert recorded["instance_id"] == created.made_from[action]
    assert (recorded["kind"], recorded["label"]) == SNAPSHOTS[action]
    assert recorded["source"] == "service"


@pytest.mark.parametrize("action", SNAPSHOTS)
def test_the_notifications_name_the_same(
    created: CreatedServers, witnessed: Relations, action: str
) -> None:
    said = None if action in SILENT else (created.made_from[action], SNAPSHOTS[action][0])
    assert witnessed.get(created.images[action]) == said


def test_no_notification_becomes_a_dead_letter(cloud: Cloud, witnessed: Relations) -> None:
    assert [cloud.plan.dead_letters(name).read_text() for name in LISTENERS] == [""] * len(
        LISTENERS
    )


@pytest.mark.parametrize("action", [action for action in SNAPSHOTS if action not in GONE])
def test_novas_property_names_what_the_user_wants(
    cloud: Cloud, created: CreatedServers, action: str
) -> None:
    forged = action == "snapshot with forged metadata"
    path = f"/v2/images/{created.images[action]}"
    image = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("admin")}).json
    claimed = created.servers["first"] if forged else created.made_from[action]
    assert image["instance_uuid"] == claimed
    assert (image["image_type"] == SNAPSHOTS[action][0]) is not forged
    assert (claimed == created.made_from[action]) is not forged


def test_an_administrators_snapshot_belongs_to_the_administrator(
    cloud: Cloud, created: CreatedServers
) -> None:
    projects = {name: cloud.connection(name).current_project_id for name in ("admin", "alice")}
    recorded = relation(cloud, created.images["snapshot by an administrator"])
    assert recorded["project_id"] == projects["admin"] != projects["alice"]


@pytest.mark.parametrize("name", STARTED_FROM)
def test_what_a_server_was_started_from(cloud: Cloud, created: CreatedServers, name: str) -> None:
    images = {created.images[action] for action in STARTED_FROM[name]}
    eventually(
        lambda: started_from(cloud, created.servers[name]) == images,
        f"what {name} was started from",
    )


def started_from(cloud: Cloud, server_id: str) -> set[str]:
    path = f"/v2/relations?instance_id={server_id}&kind=boot"
    answer = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("alice")})
    return {row["image_id"] for row in answer.json["relations"]}


@pytest.mark.usefixtures("listened")
def test_which_servers_ended(cloud: Cloud, created: CreatedServers) -> None:
    ended = {name for name, server_id in created.servers.items() if ended_at(cloud, server_id)}
    assert ended == {"heir"}


def ended_at(cloud: Cloud, server_id: str) -> object:
    path = f"/v2/instances/{INSTALLATION}/{server_id}"
    answer = cloud.glance("GET", path, {"X-Auth-Token": cloud.token("alice")})
    return answer.json["ended_at"] if answer.status == 200 else None


def test_what_nova_deleted_is_marked(cloud: Cloud, created: CreatedServers) -> None:
    rows = {action: relation(cloud, created.images[action]) for action in SNAPSHOTS}
    assert {action for action, row in rows.items() if row["image_deleted_at"]} == GONE


@pytest.mark.usefixtures("listened")
def test_descent_through_two_servers(cloud: Cloud, created: CreatedServers) -> None:
    image_id = created.images["snapshot of an heir"]
    shown = cloud.shown("alice", "image", "ancestry", "list", image_id)
    chain = [image_id, created.images["backup 3"], created.images["base"]]
    assert [row["Image ID"] for row in shown] == chain


def test_rotation_deletes_exactly_the_oldest_real_backup(created: CreatedServers) -> None:
    others = {"backup 2", "backup 3", "of another server", "never uploaded"}
    assert created.claimed_before == others | {"backup 1"}
    assert created.claimed_after == others | {"backup 4"}


def test_the_backups_of_a_server(cloud: Cloud, created: CreatedServers) -> None:
    shown = cloud.shown("alice", "server", "backup", "list", created.servers["first"])
    assert [row["Name"] for row in shown] == ["backup 4", "backup 3", "backup 2"]
