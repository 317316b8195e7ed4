"""What people do with volumes, and servers on volumes, in the cloud."""

from dataclasses import dataclass, field
from typing import Final

from tests.cloud.cloud import Cloud, eventually
from tests.cloud.user_actions import ServerActions

FLAVOR: Final = "small-on-volume"
CLAIMS: Final = ("image_id", "base_image_ref")
"""Metadata of a volume that name an image."""


@dataclass
class CreatedVolumes:
    """What was made, by name."""

    images: dict[str, str] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)

    def names(self) -> dict[str, str]:
        """The name of each ID."""
        made = (self.images, self.servers, self.volumes, self.snapshots)
        return {thing_id: name for group in made for name, thing_id in group.items()}


class VolumeActions:
    """Does things with volumes as one user, and waits until they are done."""

    def __init__(self, cloud: Cloud, who: str = "alice") -> None:
        self._cloud, self._who = cloud, who
        self._user = cloud.connection(who)
        self._actions = ServerActions(cloud)
        if self._user.compute.find_flavor(FLAVOR) is None:
            self._actions.flavor(FLAVOR)

    def image(self, name: str) -> str:
        return self._actions.image(self._who, name, b"a disk")

    def volume(self, name: str, **source: str) -> str:
        made = self._user.block_storage.create_volume(name=name, size=1, **source)
        self.wait_for(made.id)
        return str(made.id)

    def wait_for(self, volume_id: str) -> None:
        """Wait until the volume is available."""

        def is_available() -> bool:
            found = self._user.block_storage.get_volume(volume_id)
            assert found.status != "error", found
            return bool(found.status == "available")

        eventually(is_available, "a volume")

    def snapshot(self, volume_id: str) -> str:
        storage = self._user.block_storage
        made = storage.create_snapshot(volume_id=volume_id, name="a snapshot")
        eventually(lambda: storage.get_snapshot(made.id).status == "available", "a snapshot")
        return str(made.id)

    def upload(self, volume_id: str, name: str) -> str:
        words = ("image", "create", "--volume", volume_id, "--disk-format", "raw", name)
        image_id: str = self._cloud.shown(self._who, *words)["image_id"]
        self.wait_for(volume_id)
        return image_id

    def describe(self, volume_id: str, image_id: str) -> None:
        """Let the metadata of the volume name an image that it was not made from."""
        action = {
            "os-set_image_metadata": {"metadata": dict.fromkeys(CLAIMS, image_id)},
        }
        self._user.block_storage.post(f"/volumes/{volume_id}/action", json=action)

    def transfer(self, volume_id: str) -> None:
        """Give the volume to bob's project."""
        offered = self._cloud.shown(self._who, "volume", "transfer", "request", "create", volume_id)
        accept = ("volume", "transfer", "request", "accept", "--auth-key", offered["auth_key"])
        self._cloud.openstack("bob", *accept, offered["id"])

    def server(self, name: str, *source: str) -> str:
        words = ("server", "create", *source, "--flavor", FLAVOR, "--nic", "none", "--wait", name)
        server_id: str = self._cloud.shown(self._who, *words)["id"]
        return server_id

    def root_volume(self, server_id: str) -> str:
        (attached,) = self._user.compute.volume_attachments(server_id)
        return str(attached.volume_id)

    def snapshot_of_server(self, server_id: str, name: str) -> str:
        words = ("server", "image", "create", "--name", name, "--wait", server_id)
        image_id: str = self._cloud.shown(self._who, *words)["id"]
        # Nova does not wait for the volume snapshots that the image refers to
        taken = self._user.block_storage.snapshots
        are_made = lambda: all(one.status == "available" for one in taken())  # noqa: E731
        eventually(are_made, "the volume snapshots")
        return image_id

    def reimage(self, server_id: str, image_id: str) -> None:
        words = ("server", "rebuild", "--image", image_id, "--reimage-boot-volume", "--wait")
        version = ("--os-compute-api-version", "2.93")
        self._cloud.openstack(self._who, *version, *words, server_id)

    def delete_server(self, server_id: str) -> None:
        self._actions.delete(server_id)

    def delete_volume(self, volume_id: str) -> None:
        storage = self._user.block_storage
        storage.delete_volume(volume_id)
        eventually(lambda: storage.find_volume(volume_id) is None, "the end of a volume")


def do_everything(cloud: Cloud) -> CreatedVolumes:
    """Use volumes in every way that this cloud has."""
    actions, made = VolumeActions(cloud), CreatedVolumes()
    images, volumes, servers = made.images, made.volumes, made.servers
    for name in ("root", "other", "data"):
        images[name] = actions.image(name)
    servers["booted from an image"] = actions.server(
        "on-volume", "--image", images["root"], "--boot-from-volume", "1"
    )
    volumes["of the server"] = actions.root_volume(servers["booted from an image"])
    volumes["from an image"] = actions.volume("v1", image_id=images["root"])
    volumes["blank"] = actions.volume("blank")
    volumes["data"] = actions.volume("data", image_id=images["data"])
    volumes["clone"] = actions.volume("clone", source_volume_id=volumes["from an image"])
    made.snapshots["s1"] = actions.snapshot(volumes["from an image"])
    volumes["from a snapshot"] = actions.volume("v2", snapshot_id=made.snapshots["s1"])
    images["uploaded"] = actions.upload(volumes["from a snapshot"], "uploaded")
    servers["booted from a volume"] = actions.server("from-volume", "--volume", volumes["clone"])
    images["snapshot"] = actions.snapshot_of_server(servers["booted from an image"], "snap")
    servers["booted from a snapshot"] = actions.server("heir", "--image", images["snapshot"])
    volumes["of the heir"] = actions.root_volume(servers["booted from a snapshot"])
    volumes["described"] = actions.volume("described", image_id=images["data"])
    actions.describe(volumes["described"], images["other"])
    images["uploaded again"] = actions.upload(volumes["described"], "uploaded again")
    actions.reimage(servers["booted from a volume"], images["other"])
    actions.transfer(volumes["blank"])
    return made
