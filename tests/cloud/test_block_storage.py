"""Servers on volumes, with the real Cinder: what the filters record, and the listener by itself."""

import json
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from typing import Any, Final

import pytest

from related_images.db import Database, origins, relation_queries
from related_images.model import Filters
from tests.cloud.cloud import PATIENCE, Cloud, eventually
from tests.cloud.plan import INSTALLATION, LISTENERS, RELATED, VOLUMES, WITNESSED
from tests.cloud.starting import glance_beside
from tests.cloud.volume_actions import CreatedVolumes, VolumeActions, do_everything

SERVICE: Final = "service"

ORIGINS: Final = {
    "booted from an image": "of the server",
    "booted from a volume": "clone",
    "booted from a snapshot": "of the heir",
    "blank": None,
    "clone": "from an image",
    "from a snapshot": "s1",
    "s1": "from an image",
}
"""The true source of each resource; ``None`` for a resource that is known to have no source."""

BOOTS: Final = {
    ("booted from an image", "root"),
    ("booted from a snapshot", "snapshot"),
    ("booted from a volume", "other"),
    ("of the server", "root"),
    ("from an image", "root"),
    ("data", "data"),
    ("described", "data"),
    # by the rebuild of the server on it
    ("clone", "other"),
}
"""The image from which each resource was made."""

UNKNOWN_TO_LISTENER: Final = ("blank", "clone")


@pytest.fixture(scope="module")
def created(cloud: Cloud) -> CreatedVolumes:
    return do_everything(cloud)


def recorded(cloud: Cloud, created: CreatedVolumes, name: str) -> tuple[dict[str, Any], set[Any]]:
    """The recorded origins and starts of resources, by name, in a database of the cloud."""
    names = created.names()
    with closing(Database(cloud.plan.database_of(name), PATIENCE)) as database:
        found = origins.page(database, Filters(), 500, None).items
        starts = database.read(relation_queries.find, Filters(kind="boot"), 500)
    return (
        {
            names[one.instance_id]: one.source and names.get(one.source.instance_id)
            for one in found
            if one.instance_id in names
        },
        {
            (names[one.instance_id], names.get(one.image_id))
            for one in starts
            if one.instance_id in names
        },
    )


def test_what_the_filters_and_the_listener_record(cloud: Cloud, created: CreatedVolumes) -> None:
    eventually(lambda: ORIGINS.keys() <= recorded(cloud, created, RELATED)[0].keys(), "the origins")
    found, starts = recorded(cloud, created, RELATED)
    assert {name: found[name] for name in ORIGINS} == ORIGINS
    assert starts == BOOTS


def test_the_listener_alone_records_nothing_wrong(cloud: Cloud, created: CreatedVolumes) -> None:
    wanted = {name: source for name, source in ORIGINS.items() if name not in UNKNOWN_TO_LISTENER}
    eventually(
        lambda: wanted.keys() <= recorded(cloud, created, WITNESSED)[0].keys(), "the origins"
    )
    found, starts = recorded(cloud, created, WITNESSED)
    assert {name: found.get(name) for name in ORIGINS} == {**dict.fromkeys(ORIGINS), **wanted}
    assert starts == {("booted from a snapshot", "snapshot")}


def test_no_notification_is_a_dead_letter(cloud: Cloud, created: CreatedVolumes) -> None:
    for listener in LISTENERS:
        assert cloud.plan.dead_letters(listener).read_text() == ""


def asked(cloud: Cloud, path: str) -> Any:
    return cloud.glance("GET", path, {"X-Auth-Token": cloud.token("admin")}).json


@pytest.mark.parametrize(
    ("image", "made_from", "resource_type", "ancestors"),
    [
        ("snapshot", "booted from an image", "server", ["root"]),
        ("uploaded", "from a snapshot", "volume", ["root"]),
        # the metadata of its volume names the image `other`
        ("uploaded again", "described", "volume", ["data"]),
    ],
)
def test_the_image_of_a_volume_is_recorded(
    cloud: Cloud,
    created: CreatedVolumes,
    image: str,
    made_from: str,
    resource_type: str,
    ancestors: list[str],
) -> None:
    names, image_id = created.names(), created.images[image]
    relations = asked(cloud, f"/v2/images/{image_id}/relations")["relations"]
    (made,) = [one for one in relations if one["kind"] == "snapshot"]
    assert (names[made["instance_id"]], made["resource_type"]) == (made_from, resource_type)
    installation = INSTALLATION if resource_type == "server" else VOLUMES
    assert (made["installation_uuid"], made["source"]) == (installation, SERVICE)
    found = asked(cloud, f"/v2/images/{image_id}/ancestry")["ancestry"]
    assert [names[one["image_id"]] for one in found] == ancestors


def test_the_volume_snapshots_of_an_image_are_shown(cloud: Cloud, created: CreatedVolumes) -> None:
    image = cloud.connection("alice").image.get_image(created.images["snapshot"])
    mapping = json.loads(image.properties["block_device_mapping"])
    relations = asked(cloud, f"/v2/images/{image.id}/relations")["relations"]
    (made,) = [one for one in relations if one["kind"] == "snapshot"]
    assert made["volume_snapshot_ids"] == [one["snapshot_id"] for one in mapping]


def test_a_transferred_volume_belongs_to_its_new_project(
    cloud: Cloud, created: CreatedVolumes
) -> None:
    bob = cloud.connection("bob").current_project_id
    path = f"/v2/origins?instance_id={created.volumes['blank']}"

    def is_of_bob() -> bool:
        (origin,) = asked(cloud, path)["origins"]
        return bool(origin["project_id"] == bob)

    eventually(is_of_bob, "the transfer")


def test_an_image_is_used_until_the_last_volume_is_deleted(cloud: Cloud) -> None:
    actions = VolumeActions(cloud)
    image_id = actions.image("of a short life")
    server_id = actions.server("short", "--image", image_id, "--boot-from-volume", "1")
    volume_id = actions.root_volume(server_id)
    _uses(cloud, image_id, 2)
    _is_guarded(cloud, image_id)
    actions.delete_server(server_id)
    _uses(cloud, image_id, 1)
    _is_guarded(cloud, image_id)
    actions.delete_volume(volume_id)
    _uses(cloud, image_id, 0)
    cloud.openstack("alice", "image", "delete", image_id)
    assert cloud.connection("alice").image.find_image(image_id) is None


ROUNDS: Final = int(os.environ.get("RELATED_IMAGES_VOLUME_ROUNDS", "20"))


def test_an_image_is_deleted_or_a_volume_is_made_of_it(cloud: Cloud) -> None:
    """Both begin at the same time, and never both succeed."""
    user = cloud.connection("alice")
    results: Counter[tuple[bool, bool]] = Counter()
    volumes = []
    # the seconds that a creation takes on this machine
    longest = 1.0
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            image_id = VolumeActions(cloud).image(f"of round {number}")
            pause, begun = random.uniform(0, 2 * longest), time.monotonic()
            deleting = pool.submit(_delete_image, user, image_id, pause)
            body = {"volume": {"size": 1, "imageRef": image_id, "name": "of a race"}}
            created = pool.submit(user.block_storage.post, "/volumes", json=body).result()
            if created.ok:
                volumes.append(created.json()["volume"]["id"])
                longest = time.monotonic() - begun
            results[deleting.result(), created.status_code == HTTPStatus.ACCEPTED] += 1
    assert results[True, True] == 0
    assert results[False, False] == 0
    # a refused creation leaves no volume, and the others are made
    named = user.block_storage.volumes(name="of a race")
    assert {one.id for one in named} == set(volumes)
    for volume_id in volumes:
        VolumeActions(cloud).wait_for(volume_id)


def _delete_image(user: Any, image_id: str, pause: float) -> bool:
    time.sleep(pause)
    return bool(user.image.delete(f"/images/{image_id}").ok)


def _uses(cloud: Cloud, image_id: str, number: int) -> None:
    """Wait until this number of live resources uses the image."""

    def are_so_many() -> bool:
        (usage,) = asked(cloud, f"/v2/usages?image_ids={image_id}")["usages"]
        return bool(usage["live_instances"] == number)

    eventually(are_so_many, f"{number} uses of an image")


def _is_guarded(cloud: Cloud, image_id: str) -> None:
    refused = cloud.command("openstack", "image", "delete", image_id, OS_CLOUD="alice")
    assert refused.returncode == 1
    assert "409" in refused.stderr


USED: Final = ("root", "other", "data", "snapshot")
"""The images of the volumes and servers; all servers are on volumes."""


def unused_images(cloud: Cloud, who: str, **environment: str) -> set[str]:
    listing = ("image", "usage", "list", "--unused", "--limit", "1000", "-f", "json")
    done = cloud.command("openstack", *listing, OS_CLOUD=who, **environment)
    # 3 says that the use of some images is unknown
    assert done.returncode in (0, 3), done.stderr
    return {row["Image ID"] for row in json.loads(done.stdout)}


def test_no_used_image_is_unused(cloud: Cloud, created: CreatedVolumes) -> None:
    idle = VolumeActions(cloud).image("idle")
    for who in ("admin", "alice"):
        listed = unused_images(cloud, who)
        assert idle in listed
        assert listed.isdisjoint(created.images[name] for name in USED)


def test_without_a_witness_no_used_image_is_unused(cloud: Cloud, created: CreatedVolumes) -> None:
    """The listeners alone report to this database; the filters in nova-api and cinder-api do not.

    So the images of the volumes are not recorded. Their use is unknown, as long as the filter in
    cinder-api is expected to report it, even after a comparison with Nova and Cinder.
    """
    connection = ("--connection", cloud.plan.database_of(WITNESSED))
    where = ("--older-than", "0h", "--rate", "1000", "--os-cloud", "admin", *connection)
    expected = {INSTALLATION: ("nova-bus",), VOLUMES: ("cinder-bus", "cinder-api")}
    for uuid, witnesses in expected.items():
        named = [f"--witness={one}" for one in witnesses]
        added = ("installation", "add", uuid, "--name", uuid, *named, *connection)
        assert cloud.command("related-images", *added).returncode == 0
        done = cloud.command("related-images", "reconcile", "--resources", uuid, *where)
        assert done.returncode == 0, done.stderr
    clouds = cloud.plan.directory / "clouds-of-the-witness.yaml"
    with glance_beside(
        cloud, "glance-of-the-witness", options={"connection": connection[1]}
    ) as port:
        cloud.plan.write_clouds(clouds, image=f"http://127.0.0.1:{port}")
        for who in ("admin", "alice"):
            listed = unused_images(cloud, who, OS_CLIENT_CONFIG_FILE=str(clouds))
            assert listed.isdisjoint(created.images[name] for name in USED)
        # if nobody is expected to report the images of volumes, they are called unused
        for words in (
            ("remove", VOLUMES),
            ("add", VOLUMES, "--name", "cinder", "--witness=cinder-bus"),
        ):
            done = cloud.command("related-images", "installation", *words, *connection)
            assert done.returncode == 0, done.stderr
        listed = unused_images(cloud, "admin", OS_CLIENT_CONFIG_FILE=str(clouds))
        assert created.images["data"] in listed
