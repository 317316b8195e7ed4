"""Servers that are backed up every night, and what the services then have."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, create_engine, text

from related_images import validation
from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import INSTALLATION, RELATED
from tests.cloud.user_actions import ServerActions
from tests.cloud.volume_actions import FLAVOR as ON_VOLUME
from tests.cloud.volume_actions import VolumeActions

LABEL: Final = "daily"
ON_DISK: Final = "small-for-nights"

EARLIER: Final = {
    "glance": ["UPDATE images SET created_at = created_at - INTERVAL 1 DAY WHERE id IN :images"],
    "cinder": [
        "UPDATE snapshots SET created_at = created_at - INTERVAL 1 DAY WHERE id IN :snapshots"
    ],
    RELATED: [
        "UPDATE related_relation SET created_at = created_at - :day WHERE image_ref IN"
        " (SELECT id FROM related_image WHERE uuid IN :uuids)",
        "UPDATE related_image SET created_at = created_at - :day WHERE uuid IN :uuids",
        "UPDATE related_instance SET latest_backup_at = latest_backup_at - :day"
        " WHERE instance_id IN :servers",
    ],
}
"""The statements that move the creation of the backups a day back, by database."""


@dataclass(frozen=True)
class Made:
    """A recorded backup that exists."""

    image_id: str
    created_at: datetime
    volume_snapshots: tuple[str, ...]


@dataclass
class Nights:
    """The servers of a user, by name."""

    cloud: Cloud
    servers: dict[str, str] = field(default_factory=dict)
    who: str = "alice"

    def create(self, on_disk: Iterable[str], on_volumes: Iterable[str]) -> None:
        user, actions = self.cloud.connection(self.who), VolumeActions(self.cloud, self.who)
        if user.compute.find_flavor(ON_DISK) is None:
            ServerActions(self.cloud).flavor(ON_DISK)
        image_id = actions.image("for nights")
        for name in on_disk:
            self._server(name, ON_DISK, image_id=image_id)
        for name in on_volumes:
            self._server(name, ON_VOLUME, **_root_volume(image_id))
        for server_id in self.servers.values():
            self.reaches(server_id, "ACTIVE")

    def _server(self, name: str, flavor: str, **boot: Any) -> None:
        compute = self.cloud.connection(self.who).compute
        flavor_id = compute.find_flavor(flavor).id
        made = compute.create_server(name=name, flavor_id=flavor_id, networks="none", **boot)
        self.servers[name] = str(made.id)

    def reaches(self, server_id: str, status: str) -> None:
        """Wait until a server has the status, and Nova does nothing with it."""
        compute = self.cloud.connection("admin").compute

        def is_there() -> bool:
            shown = compute.get_server(server_id)
            return bool(shown.status == status and shown.task_state is None)

        eventually(is_there, f"{status} of a server")

    def pass_a_day(self) -> None:
        made = [each for found in self.backups().values() for each in found]
        values: dict[str, Any] = {
            "images": [each.image_id for each in made],
            "uuids": [bytes.fromhex(each.image_id.replace("-", "")) for each in made],
            "snapshots": [one for each in made for one in each.volume_snapshots],
            "servers": list(self.servers.values()),
            "day": timedelta(days=1) // timedelta(microseconds=1),
        }
        for database, statements in EARLIER.items():
            engine = create_engine(self.cloud.plan.database_of(database))
            with engine.begin() as connection:
                for statement in statements:
                    given = {name: it for name, it in values.items() if f":{name}" in statement}
                    lists: list[Any] = [
                        bindparam(name, expanding=isinstance(it, list))
                        for name, it in given.items()
                    ]
                    connection.execute(text(statement).bindparams(*lists), given)
            engine.dispose()

    def backups(self) -> dict[str, list[Made]]:
        """Return the backups that are recorded and exist, by the name of the server."""
        names = {server_id: name for name, server_id in self.servers.items()}
        images = {each.id for each in self.cloud.connection("admin").image.images()}
        found: dict[str, list[Made]] = defaultdict(list)
        for row in self._relations():
            if row["image_id"] in images and row["instance_id"] in names:
                at = validation.parse_time("created_at", row["image_created_at"])
                made = Made(row["image_id"], at, tuple(row["volume_snapshot_ids"]))
                found[names[row["instance_id"]]].append(made)
        return found

    def _relations(self) -> list[dict[str, Any]]:
        path = f"/v2/relations?kind=backup&label={LABEL}&installation_uuid={INSTALLATION}"
        token, rows = {"X-Auth-Token": self.cloud.token("admin")}, list[dict[str, Any]]()
        following: str | None = f"{path}&limit=1000"
        while following:
            answer = self.cloud.glance("GET", following, token).json
            rows += answer["relations"]
            following = answer.get("next")
        return rows

    def volume_snapshots(self, who: str) -> set[str]:
        return {one.id for one in self.cloud.connection(who).block_storage.snapshots()}


def lines(said: str) -> dict[str, dict[str, Any]]:
    """Return the lines of JSON of ``server backup run`` by the name of the server."""
    return {row["name"]: row for row in map(json.loads, said.splitlines())}


def _root_volume(image_id: str) -> dict[str, Any]:
    root = {"source_type": "image", "destination_type": "volume", "boot_index": 0}
    more = {"uuid": image_id, "volume_size": 1, "delete_on_termination": True}
    return {"block_device_mapping": [{**root, **more}]}
