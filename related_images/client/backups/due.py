"""Decide which servers are due for a backup."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from related_images import model
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.newest import NewestBackup, NewestBackups
from related_images.client.backups.overdue import OverdueServer
from related_images.client.backups.server_policies import check_installation
from related_images.client.backups.servers import Server
from related_images.client.backups.stored_policy import Ages
from related_images.client.glance import PAGE
from related_images.model import Relation

NOT_DUE: Final = "not due"
DUE: Final = "due"
RUNNING: Final = "running"
MADE: Final = "backed up"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"

UNFINISHED: Final = ("queued", "saving", "uploading", "importing")
"""The statuses of images whose data are not complete."""

CREATING: Final = "creating"
LOST: Final = (None, "error", "deleting", "error_deleting")
"""The statuses of volume snapshots without which a backup cannot be restored."""


@dataclass
class ServerRun:
    """A server in a run, and the result of the run for it.

    :ivar ages: the ages at which it is due and critical; ``None`` if it is not backed up
    :ivar made_at: when its newest complete backup was made; ``None`` without one
    :ivar state: :data:`NOT_DUE`, :data:`DUE` or :data:`SKIPPED`; after the run :data:`MADE`,
        :data:`FAILED` or :data:`SKIPPED` in place of :data:`DUE`
    :ivar reason: why it failed or was skipped
    :ivar image_id: the image of the new backup
    :ivar relation: the relation of the new backup
    """

    server: Server
    ages: Ages | None
    made_at: datetime | None = None
    state: str = NOT_DUE
    reason: str = ""
    image_id: str | None = None
    relation: Relation | None = None

    @property
    def next_due(self) -> datetime | None:
        """The time from which it is due; ``None`` without a backup or without ages."""
        return self.made_at + self.ages.older_than if self.ages and self.made_at else None

    def become(self, state: str, reason: str = "") -> None:
        """Set the state and its reason."""
        self.state, self.reason = state, reason

    def lateness(self, now: datetime) -> str:
        """Return ``warning`` or ``critical`` if a due backup was not made; else empty.

        :param now: the current time
        """
        if self.state not in (FAILED, SKIPPED) or self.ages is None:
            return ""
        if self.next_due is not None and now < self.next_due:
            return ""
        age = None if self.made_at is None else now - self.made_at
        server = self.server
        late = OverdueServer(server.id, None, server.project_id, made_at=self.made_at, age=age)
        return late.by(self.ages).state


@dataclass(frozen=True)
class Search:
    """Find the newest complete backups of servers.

    :ivar label: only backups with this label count
    :ivar project_id: only backups that this project owns count; ``None`` for all
    :ivar installation_uuid: only servers of this installation
    """

    inventory: Inventory
    label: str
    project_id: str | None = None
    installation_uuid: str | None = None

    @property
    def filters(self) -> dict[str, Any]:
        """The filters of lists of servers and relations."""
        return {"project_id": self.project_id, "installation_uuid": self.installation_uuid}

    def newest(self, server_ids: Collection[str]) -> dict[str, NewestBackup]:
        """Return the newest active backups by server ID.

        :param server_ids: the IDs of servers of Nova
        :raises InstallationAmbiguous: if they are recorded in several installations
        """
        relations = self.inventory.relations
        recorded = relations.instances(resource_type=model.SERVER, page_size=PAGE, **self.filters)
        instances = [each for each in recorded if each.instance_id in server_ids]
        check_installation(instances, server_ids)
        newest = NewestBackups(self.inventory, self.label, self.project_id)
        found = newest.of({each.instance: each for each in instances})
        return {ref.instance_id: backup for ref, backup in found.items()}

    def recent(self, since: datetime) -> "Recent":
        """Return which backups since then are not complete.

        :param since: the time after which they were recorded
        """
        wanted: dict[str, Any] = {
            "kind": model.BACKUP,
            "resource_type": model.SERVER,
            "label": self.label,
            "created_after": since,
            "page_size": PAGE,
        }
        relations = self.inventory.relations
        recorded = {
            relation.image_id: relation
            for relation in relations.relations(**wanted, **self.filters)
            if relation.image_deleted_at is None
        }
        found = Recent()
        if recorded:
            for image in relations.images(**wanted, status=f"in:{','.join(UNFINISHED)}"):
                if image.id in recorded:
                    found.unfinished[recorded[image.id].instance_id] = image.id
            self._check_volume_snapshots(recorded.values(), found)
        return found

    def _check_volume_snapshots(self, recorded: Iterable[Relation], found: "Recent") -> None:
        on_volumes = [relation for relation in recorded if relation.volume_snapshot_ids]
        if not on_volumes or self.inventory.volume_snapshots is None:
            return
        ids = {id for relation in on_volumes for id in relation.volume_snapshot_ids}
        known = self.inventory.volume_snapshots.statuses(ids)
        for relation in on_volumes:
            statuses = {known.get(id) for id in relation.volume_snapshot_ids}
            if statuses.intersection(LOST):
                found.broken.add(relation.image_id)
            elif CREATING in statuses:
                found.unfinished[relation.instance_id] = relation.image_id


@dataclass(frozen=True)
class Recent:
    """The recent backups that are not complete.

    :ivar unfinished: an image that is not finished, by server ID
    :ivar broken: the images of which a volume snapshot is missing or failed
    """

    unfinished: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
