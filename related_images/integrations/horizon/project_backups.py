"""The backups of all servers of a project."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from related_images import model, validation
from related_images.client import Instance, RelationsClient
from related_images.client.backups import Inventory, Server, ServerPolicies
from related_images.client.backups.retention import ACTIVE
from related_images.client.backups.service import Service
from related_images.client.backups.volume_snapshots import VolumeSnapshot
from related_images.client.glance import PAGE
from related_images.integrations.horizon.schedule import Schedule
from related_images.integrations.horizon.servers import find, policies_of
from related_images.integrations.horizon.volume_snapshots import ProjectSnapshots
from related_images.model import BACKUP, SERVER, InstanceRef, Relation

READ: Final = 5 * PAGE
"""The largest number of servers that are read for one page."""
BACKUPS: Final = 100
"""The number of the newest backups of a server that are read."""
DAYS: Final = 90
"""The length of the timeline."""
OLDEST: Final = datetime.min.replace(tzinfo=UTC)
LABELS: Final = 20
"""The largest number of labels that the page offers as filters."""


@dataclass(frozen=True)
class Timeline:
    """The days of the last 90 days on which a server was backed up; 0 is today."""

    days: list[int]

    @property
    def marks(self) -> list[int]:
        """The horizontal positions of the days in the picture."""
        return [2 * (DAYS - 1 - day) for day in self.days]


@dataclass(frozen=True)
class ServerRow(Schedule):
    """A server with backups.

    :ivar server: the server as Nova shows it; ``None`` if Nova does not know it
    :ivar newest_at: when its newest active backup was made; ``None`` without one
    :ivar backups: the number of its backups, at most :data:`BACKUPS`
    :ivar size: the bytes of its newest :data:`BACKUPS` backups, with those of volume snapshots
    :ivar volume_snapshots: the number of volume snapshots of these backups
    :ivar sized_snapshots: the number of those whose size is known
    :ivar is_more: whether it has more backups than these
    """

    instance: Instance
    server: Server | None
    policies: ServerPolicies | None
    newest_at: datetime | None
    backups: int
    size: int
    volume_snapshots: int
    sized_snapshots: int
    is_more: bool
    labels: list[str]
    timeline: Timeline
    now: datetime

    @property
    def name(self) -> str:
        """The name of the server, or its ID."""
        return self.server.name if self.server else self.instance.instance_id

    @property
    def is_size_lower_bound(self) -> bool:
        """Whether the backups may be larger."""
        return self.is_more or self.sized_snapshots < self.volume_snapshots


@dataclass(frozen=True)
class ProjectBackups:
    """A page of the servers with backups.

    :ivar number: the number of the page, from 1
    :ivar total: the number of servers with backups that exist
    :ivar is_more: whether the project has more servers than are read
    :ivar is_without_snapshots: whether Cinder does not answer, so that no size of a volume snapshot
        is known
    """

    rows: list[ServerRow]
    number: int
    total: int
    has_next: bool
    is_more: bool
    labels: list[str] = field(default_factory=list)
    is_without_snapshots: bool = False


def load(
    inventory: Inventory,
    nova: Service,
    snapshots: ProjectSnapshots,
    project_id: str,
    label: str | None,
    number: int,
    limit: int,
) -> ProjectBackups:
    """Return a page of the servers with backups: overdue ones first, then by the age.

    The pages have the servers whose newest backup is the oldest first, and each page has its
    overdue servers first: the policies of the servers on a page are read with it.

    :param label: only backups with this label count; ``None`` for all
    :param number: the number of the page, from 1
    :param limit: the number of servers of a page
    :raises ClientError: if a request fails
    """
    now = datetime.now(UTC)
    found = list(itertools.islice(_instances(inventory.relations, project_id, label), READ + 1))
    live = [it for it in found[:READ] if it.ended_at is None and BACKUP in it.images]
    latest = {it.instance: it.images[BACKUP].latest_at for it in live}
    if label is not None:
        latest = _latest(inventory.relations, project_id, label)
    live.sort(key=lambda it: (latest.get(it.instance, OLDEST), it.instance))
    shown = live[(number - 1) * limit : number * limit]
    backups = {it.instance: _backups(inventory.relations, it, label) for it in shown}
    existing = [one for it in backups.values() for one in it if one.image_deleted_at is None]
    sizes = snapshots.find({id for one in existing for id in one.volume_snapshot_ids})
    images = dict(inventory.relations.glance.images({one.image_id for one in existing}, dict))
    rows = [_row(nova, it, backups[it.instance], images, sizes or {}, now) for it in shown]
    rows.sort(key=lambda row: (not row.lateness, row.newest_at or OLDEST))
    labels = sorted({label for row in rows for label in row.labels})[:LABELS]
    return ProjectBackups(
        rows,
        number,
        len(live),
        number * limit < len(live),
        len(found) > READ,
        labels,
        sizes is None,
    )


def _instances(
    relations: RelationsClient, project_id: str, label: str | None
) -> Iterator[Instance]:
    return relations.instances(
        kind=BACKUP, resource_type=SERVER, project_id=project_id, label=label, page_size=PAGE
    )


def _latest(relations: RelationsClient, project_id: str, label: str) -> dict[InstanceRef, datetime]:
    """Return when the newest backup with the label was recorded, without servers of old ones."""
    found = relations.relations(
        kind=BACKUP, resource_type=SERVER, project_id=project_id, label=label, page_size=PAGE
    )
    latest: dict[InstanceRef, datetime] = {}
    for one in itertools.islice(found, READ):
        if one.image_deleted_at is None:
            latest.setdefault(one.instance, one.created_at)
    return latest


def _row(
    nova: Service,
    instance: Instance,
    recorded: list[Relation],
    images: Mapping[str, Mapping[str, Any]],
    snapshots: Mapping[str, VolumeSnapshot],
    now: datetime,
) -> ServerRow:
    server = find(nova, instance.instance_id)
    made = [one for one in recorded if one.image_deleted_at is None]
    existing = [(one, images[one.image_id]) for one in made if one.image_id in images]
    ages = [now - one.made_at for one in made]
    snapshot_ids = {id for one in made for id in one.volume_snapshot_ids}
    sizes = [snapshots[id].size for id in snapshot_ids if id in snapshots]
    days = sorted({age.days for age in ages if 0 <= age.days < DAYS})
    return ServerRow(
        instance,
        server,
        policies_of(server),
        max((one.made_at for one, image in existing if image["status"] == ACTIVE), default=None),
        len(made),
        sum(image["size"] or 0 for _, image in existing) + sum(sizes),
        len(snapshot_ids),
        len(sizes),
        len(recorded) == BACKUPS and len(made) < instance.images[BACKUP].count,
        sorted({one.label for one in made if one.label}),
        Timeline(days),
        now,
    )


def _backups(relations: RelationsClient, instance: Instance, label: str | None) -> list[Relation]:
    """Return the newest backups of a server, also deleted ones."""
    found = relations.relations(
        installation_uuid=instance.installation_uuid,
        instance_id=instance.instance_id,
        resource_type=SERVER,
        kind=BACKUP,
        label=label,
        limit=BACKUPS,
    )
    return list(found)


@dataclass(frozen=True)
class UnsavedServer(Schedule):
    """A server without a backup."""

    server: Server
    policies: ServerPolicies | None
    now: datetime
    newest_at: None = None

    @property
    def created_at(self) -> datetime:
        """When the server was created."""
        return validation.parse_time("created", self.server.created_at)


@dataclass(frozen=True)
class UnsavedServers:
    """The servers without a backup among a page of Nova's servers.

    :ivar marker: the marker of the next page of Nova; ``None`` on the last page
    """

    rows: list[UnsavedServer]
    marker: str | None


def without_backup(
    inventory: Inventory, nova: Service, project_id: str, marker: str | None
) -> UnsavedServers:
    """Return the servers without a backup among a page of Nova's servers.

    :param marker: the marker of Nova's page; ``None`` for the first page
    :raises ClientError: if a request fails
    """
    now = datetime.now(UTC)
    recorded = itertools.islice(_instances(inventory.relations, project_id, None), READ)
    saved = {it.instance_id for it in recorded if model.BACKUP in it.images}
    query = {"limit": str(BACKUPS)} | ({"marker": marker} if marker else {})
    body: Any = nova.request("GET", "/servers/detail", params=query)
    found = [Server.of(shown) for shown in body["servers"]]
    rows = [UnsavedServer(one, policies_of(one), now) for one in found if one.id not in saved]
    return UnsavedServers(rows, found[-1].id if found and body.get("servers_links") else None)
