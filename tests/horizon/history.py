"""What users did in the cloud before they look at the pages of Horizon."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from openstack.exceptions import ConflictException

from related_images.client.backups import Server, Servers
from related_images.client.backups.stored_policy import METADATA_KEY, write
from tests.cloud.cloud import Cloud, eventually
from tests.cloud.nights import LABEL, Nights
from tests.cloud.user_actions import ServerActions
from tests.cloud.volume_actions import VolumeActions

POLICIES: Final[dict[str, dict[str, Any]]] = {
    "web-1": {"keep_daily": 2, "older_than": "20h", "critical": "50h"},
    "db-1": {"keep_last": 3, "older_than": "30d"},
    "idle-1": {"keep_daily": 7, "older_than": "20h"},
}
"""The stored policy of servers."""
DISK: Final = b"a disk " * 500_000
BACKUPS: Final = 4
"""The number of backups of a server, each a day after the other."""
DAYS: Final = 3
"""The age of the newest backups in days."""


@dataclass
class History:
    """The servers and images, by name.

    ``web-1`` was started from the public image ``base`` and has backups, the newest of which is
    overdue. ``web-2`` was started from its newest backup, and a snapshot of it was made. A third
    server was started from this snapshot; ``third`` is its snapshot. The server and the first
    snapshot were deleted then. ``db-1`` is on a volume. ``idle-1`` has no backup.
    """

    servers: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def make_history(cloud: Cloud) -> History:
    actions, on_volumes, history = ServerActions(cloud), VolumeActions(cloud), History()
    actions.flavor()
    images, servers = history.images, history.servers
    images["base"] = actions.image("admin", "base", DISK, visibility="public")
    for name in ("web-1", "idle-1"):
        servers[name] = actions.server(name, images["base"])
    source = ("--image", images["base"], "--boot-from-volume", "1")
    servers["db-1"] = on_volumes.server("db-1", *source)
    for name, rules in POLICIES.items():
        policy = f"{METADATA_KEY}={write(rules)}"
        cloud.openstack("alice", "server", "set", "--property", policy, servers[name])
    _back_up(cloud, history)
    _inherit(cloud, actions, history)
    return history


def _back_up(cloud: Cloud, history: History) -> None:
    backed_up = {name: history.servers[name] for name in ("web-1", "db-1")}
    nights = Nights(cloud, backed_up)
    for day in range(BACKUPS + DAYS - 1):
        if day < BACKUPS:
            made = [back_up(cloud, server_id) for server_id in backed_up.values()]
            for image_id in made:
                wait_for_image(cloud, image_id)
            history.images["backup"] = made[0]
        nights.pass_a_day()


def back_up(cloud: Cloud, server_id: str) -> str:
    compute = cloud.connection("alice").compute
    eventually(lambda: compute.get_server(server_id).task_state is None, "Nova")
    server = Server.of(compute.get(f"/servers/{server_id}").json()["server"])
    return Servers(compute).back_up(server, LABEL, datetime.now(UTC))


def wait_for_image(cloud: Cloud, image_id: str) -> None:
    user = cloud.connection("alice")
    eventually(lambda: user.image.get_image(image_id).status == "active", "an image")
    snapshots = user.block_storage.snapshots
    eventually(lambda: all(one.status == "available" for one in snapshots()), "volume snapshots")


def _inherit(cloud: Cloud, actions: ServerActions, history: History) -> None:
    images, servers = history.images, history.servers
    servers["web-2"] = actions.server("web-2", images["backup"])
    second = actions.snapshot("alice", servers["web-2"], "second")
    wait_for_image(cloud, second)
    heir = actions.server("web-3", second)
    images["third"] = actions.snapshot("alice", heir, "third")
    wait_for_image(cloud, images["third"])
    actions.delete(heir)
    # the filter hears a little later that the server was deleted
    eventually(lambda: _is_deleted(cloud, second), "the end of an image")
    images["second"] = second


def _is_deleted(cloud: Cloud, image_id: str) -> bool:
    try:
        cloud.connection("alice").image.delete_image(image_id)
    except ConflictException:
        return False
    return True
