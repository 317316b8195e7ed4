"""Notifications that a real Cinder 29.0.0 sent, and what the listener makes of them."""

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from related_images.db.notifications import Created, Ended, Event, Started, Transferred
from related_images.errors import ConfigurationError, NotificationMalformed
from related_images.manage import cinder_notifications, listen
from related_images.manage.notification_parser import nova_reader
from related_images.model import InstanceRef

CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SENT: dict[str, Any] = {
    one["name"]: one
    for one in map(
        json.loads, Path(__file__).with_name("cinder_notifications.jsonl").read_text().splitlines()
    )
}


def ref(resource_type: str, resource_id: str) -> InstanceRef:
    return InstanceRef(CINDER, resource_id, resource_type)


def read(name: str, **changes: Any) -> Event | None:
    message = SENT[name]
    payload = {**message["payload"], **changes}
    return cinder_notifications.read(CINDER, {**message, "payload": payload})


@pytest.mark.parametrize(
    ("name", "kind", "resource_type", "source"),
    [
        # the payload of all but the last has the image of the first in its glance_metadata
        ("volume from an image", Created, "volume", None),
        ("clone", Created, "volume", None),
        ("volume from a snapshot", Created, "volume", ("snapshot_id", "volume-snapshot")),
        ("blank volume", Created, "volume", None),
        ("volume snapshot", Created, "volume-snapshot", ("volume_id", "volume")),
        ("transferred volume", Transferred, "volume", None),
        ("deleted volume", Ended, "volume", None),
        ("deleted volume snapshot", Ended, "volume-snapshot", None),
    ],
)
def test_what_a_notification_says(
    name: str, kind: type[Event], resource_type: str, source: tuple[str, str] | None
) -> None:
    payload = SENT[name]["payload"]
    event = read(name)
    assert type(event) is kind
    own = payload[cinder_notifications.IDS[resource_type]]
    assert event.instance == ref(resource_type, own)
    assert event.project_id == payload["tenant_id"]
    assert event.at.isoformat(" ").startswith(SENT[name]["timestamp"])
    if isinstance(event, Created):
        assert event.origin == (source and ref(source[1], payload[source[0]]))


@pytest.mark.parametrize("event_type", ["volume.update.end", "volume.create.start"])
def test_other_notifications_are_ignored(event_type: str) -> None:
    message = {**SENT["blank volume"], "event_type": event_type}
    assert cinder_notifications.read(CINDER, message) is None


@pytest.mark.parametrize("changes", [{"volume_id": "no id!"}, {"tenant_id": None}])
def test_a_malformed_notification_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(NotificationMalformed):
        read("blank volume", **changes)


def server(image: str, *devices: tuple[str | None, int | None]) -> dict[str, Any]:
    block_devices = [
        {"nova_object.data": {"volume_id": volume_id, "boot_index": boot_index}}
        for volume_id, boot_index in devices
    ]
    payload = {"uuid": "vm-1", "tenant_id": "demo", "image_uuid": image}
    return {
        "event_type": "instance.create.end",
        "timestamp": "2026-01-31 12:00:00.000000",
        "payload": {"nova_object.data": {**payload, "block_devices": block_devices}},
    }


def test_the_root_volume_of_a_server() -> None:
    data, root = ("data", None), ("root", 0)
    wanted = Started(InstanceRef(NOVA, "vm-1"), "demo", AT, None, ref("volume", "root"))
    assert nova_reader(CINDER)(NOVA, server("", data, root)) == wanted
    image = "10000000-0000-4000-8000-000000000001"
    both = replace(wanted, image_id=image)
    assert nova_reader(CINDER)(NOVA, server(image, root)) == both
    assert nova_reader(CINDER)(NOVA, server("", data)) is None
    assert nova_reader()(NOVA, server("", root)) is None


def buses(*words: str) -> Any:
    parser = argparse.ArgumentParser()
    listen.Listen.add_arguments(cast(Any, None), parser)
    return listen._buses(parser.parse_args(words), [])


def test_cinder_has_its_own_topic_and_exchange() -> None:
    nova, cinder = buses(
        *("--installation", NOVA, "--transport-url", "rabbit://nova"),
        *("--cinder-installation", CINDER, "--cinder-transport-url", "rabbit://cinder"),
    )
    assert (nova.installation_uuid, nova.url, nova.topic, nova.exchange) == (
        *(NOVA, "rabbit://nova", "versioned_notifications", "nova"),
    )
    assert (cinder.installation_uuid, cinder.url, cinder.topic, cinder.exchange) == (
        *(CINDER, "rabbit://cinder", "cinder_notifications", "openstack"),
    )
    (alone,) = buses(
        "--cinder-installation", CINDER, "--cinder-transport-url", "rabbit://", "--cinder-topic=t"
    )
    assert alone.topic == "t"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is no installation"),
        (("--cinder-installation", CINDER), "there is no bus"),
        (("--installation", NOVA, "--cinder-transport-url", "rabbit://"), "needs --cinder-inst"),
        (("--cinder-installation", CINDER, "--transport-url", "rabbit://"), "in the same order"),
    ],
)
def test_every_installation_needs_a_bus(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        buses(*words)
