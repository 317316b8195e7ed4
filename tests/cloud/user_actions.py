"""Actions of users in the cloud, mostly with the ``openstack`` command, and their results."""

from dataclasses import dataclass, field
from typing import Any, Final

from tests.cloud.cloud import Cloud, eventually

FLAVOR: Final = "small"
ROTATION: Final = 3


class ServerActions:
    """Carries out actions of users in a cloud, and waits until each is complete."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._compute = cloud.connection("admin").compute
        self._images = cloud.connection("admin").image

    def flavor(self, name: str = FLAVOR, ram: int = 64, disk: int = 1) -> None:
        self._compute.create_flavor(name=name, vcpus=1, ram=ram, disk=disk)

    def image(self, who: str, name: str, data: bytes | None, **properties: str) -> str:
        """Create an image without Nova.

        :param data: the data of the image; with None, nothing is uploaded
        """
        formats = {"disk_format": "raw", "container_format": "bare"}
        images = self._cloud.connection(who).image
        made = images.create_image(name=name, data=data, **formats, **properties)
        return str(made.id)

    def server(self, name: str, image_id: str) -> str:
        boot = ("--image", image_id, "--flavor", FLAVOR, "--nic", "none")
        server_id: str = self._cloud.shown("alice", "server", "create", *boot, name)["id"]
        self._settled(server_id)
        return server_id

    def snapshot(self, who: str, server_id: str, name: str, **metadata: str) -> str:
        given = [f"--property={key}={text}" for key, text in metadata.items()]
        words = ("server", "image", "create", "--name", name, *given, server_id)
        image_id: str = self._cloud.shown(who, *words)["id"]
        self._settled(server_id)
        return image_id

    def backup(self, server_id: str, name: str) -> str:
        """Create a daily backup, and wait until Nova has rotated the older backups."""
        how = ("--name", name, "--type", "daily", "--rotate", str(ROTATION))
        words = ("server", "backup", "create", *how, server_id)
        image_id: str = self._cloud.shown("alice", *words)["id"]
        eventually(lambda: self._last_action_ended(server_id), f"the rotation after {name}")
        return image_id

    def shelve(self, server_id: str, name: str) -> str:
        self._cloud.openstack("alice", "server", "shelve", server_id)
        self._settled(server_id)
        (image,) = self._cloud.connection("alice").image.images(name=f"{name}-shelved")
        return str(image.id)

    def unshelve(self, server_id: str) -> None:
        """Unshelve a server, and wait until Nova has deleted its image."""
        self._cloud.openstack("alice", "server", "unshelve", server_id)
        self._settled(server_id)

    def rebuild(self, server_id: str, image_id: str) -> None:
        self._cloud.openstack("alice", "server", "rebuild", "--image", image_id, server_id)
        self._settled(server_id)

    def resize(self, server_id: str, flavor: str) -> Any:
        """Resize a server, and return it; the resize is not confirmed yet."""
        self._cloud.openstack("alice", "server", "resize", "--flavor", flavor, server_id)
        self._settled(server_id)
        return self._compute.get_server(server_id)

    def confirm(self, server_id: str) -> None:
        self._cloud.openstack("alice", "server", "resize", "confirm", server_id)
        eventually(lambda: self._is_active(server_id), "the end of a resize")

    def _is_active(self, server_id: str) -> bool:
        return bool(self._compute.get_server(server_id).status == "ACTIVE")

    def delete(self, server_id: str) -> None:
        self._cloud.openstack("alice", "server", "delete", server_id)
        gone = lambda: self._compute.find_server(server_id, all_projects=True) is None  # noqa: E731
        eventually(gone, "the end of a server")

    def _settled(self, server_id: str) -> None:
        """Wait until Nova has completed its task on the server."""

        def idle() -> bool:
            server = self._compute.get_server(server_id)
            assert server.status != "ERROR", server.fault
            return server.task_state is None and server.status != "BUILD"

        eventually(idle, "Nova")

    def _last_action_ended(self, server_id: str) -> bool:
        actions = self._compute.server_actions(server_id)
        newest = max(actions, key=lambda action: str(action.start_time))
        action = self._compute.get_server_action(newest.request_id, server_id)
        return bool(action.events) and all(event["finish_time"] for event in action.events)


@dataclass
class CreatedServers:
    """The servers and images that :func:`do_everything` created.

    :ivar servers: the ID of each server, by its name
    :ivar images: the ID of the image of each action
    :ivar made_from: the ID of the server that the image of each action was really made from
    :ivar claimed_before: result of :func:`claiming` for the first server before its fourth backup
    :ivar claimed_after: the same after its fourth backup
    """

    servers: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    claimed_before: set[str] = field(default_factory=set)
    claimed_after: set[str] = field(default_factory=set)

    def note(self, action: str, server_id: str, image_id: str) -> None:
        self.images[action], self.made_from[action] = image_id, server_id


def claiming(cloud: Cloud, server_id: str) -> set[str]:
    """Return the names of the images whose properties say that they are backups of a server.

    The query has no ``backup_type``. With it, the query would be that of Nova's rotation, which the
    filter restricts to recorded backups.
    """
    asked = f"image_type=backup&instance_uuid={server_id}"
    found = cloud.glance("GET", f"/v2/images?{asked}", {"X-Auth-Token": cloud.token("alice")})
    return {str(image["name"]) for image in found.json["images"]}


def do_everything(cloud: Cloud) -> CreatedServers:
    actions = ServerActions(cloud)
    actions.flavor()
    created = CreatedServers()
    base = created.images["base"] = actions.image("admin", "base", b"a disk", visibility="public")
    first = created.servers["first"] = actions.server("first", base)
    created.note("snapshot", first, actions.snapshot("alice", first, "snapshot"))
    created.note("snapshot by an administrator", first, actions.snapshot("admin", first, "admin's"))
    for number in (1, 2, 3):
        created.note(f"backup {number}", first, actions.backup(first, f"backup {number}"))
    heir = created.servers["heir"] = actions.server("heir", created.images["backup 3"])
    created.note("snapshot of an heir", heir, actions.snapshot("alice", heir, "of the heir"))
    _forge(actions, created)
    created.claimed_before = claiming(cloud, first)
    created.note("backup 4", first, actions.backup(first, "backup 4"))
    created.claimed_after = claiming(cloud, first)
    shelved = created.servers["shelved"] = actions.server("shelved", base)
    created.note("shelve", shelved, actions.shelve(shelved, "shelved"))
    actions.unshelve(shelved)
    actions.rebuild(shelved, created.images["backup 4"])
    actions.delete(heir)
    return created


def _forge(actions: ServerActions, created: CreatedServers) -> None:
    """Create two images whose properties say falsely that they are backups of the first server."""
    claims = {
        "instance_uuid": created.servers["first"],
        "image_type": "backup",
        "backup_type": "daily",
    }
    heir = created.servers["heir"]
    forged = actions.snapshot("alice", heir, "of another server", **claims)
    created.note("snapshot with forged metadata", heir, forged)
    actions.image("alice", "never uploaded", None, **claims)
