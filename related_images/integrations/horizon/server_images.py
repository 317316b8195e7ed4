"""The images of a server, its backup policy, and what the next prune would do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from related_images import model, validation
from related_images.client import InstallationAmbiguous, Instance, RelationsClient
from related_images.client.backups import (
    Inventory,
    ServerPolicies,
    Verdict,
    decide,
    stored,
)
from related_images.client.backups.due import UNFINISHED
from related_images.client.backups.service import Service
from related_images.client.backups.volume_snapshots import VolumeSnapshot
from related_images.integrations.horizon.pages import Page, page
from related_images.integrations.horizon.schedule import Schedule
from related_images.integrations.horizon.servers import find, policies_of
from related_images.integrations.horizon.volume_snapshots import ProjectSnapshots
from related_images.model import Relation
from related_images.protocol import paths


@dataclass(frozen=True)
class ImageRow:
    """An image of a server.

    :ivar image: the image as Glance shows it; ``None`` if the user does not see it
    :ivar verdict: the decision of the next prune on a backup
    :ivar volume_snapshots: the volume snapshots to which it refers, as far as they exist
    """

    relation: Relation
    image: Mapping[str, Any] | None
    verdict: Verdict | None
    volume_snapshots: list[VolumeSnapshot]
    now: datetime

    @property
    def name(self) -> str:
        """The name of the image, or its ID."""
        return (self.image and self.image["name"]) or self.relation.image_id

    @property
    def created_at(self) -> datetime:
        """When the image was made."""
        return self.relation.made_at

    @property
    def age(self) -> timedelta:
        """The age of the image."""
        return max(self.now - self.created_at, timedelta())

    @property
    def size(self) -> int:
        """The bytes of the image, or the size of its volume snapshots."""
        own = (self.image and self.image["size"]) or 0
        return int(own) or sum(one.size for one in self.volume_snapshots)

    @property
    def is_unfinished(self) -> bool:
        """Whether its status will change by itself."""
        return self.image is not None and self.image["status"] in UNFINISHED


@dataclass(frozen=True)
class ServerImages(Schedule):
    """What the page of a server shows.

    :ivar next_marker: the marker of the next page of images
    :ivar newest_at: when the newest active backup was made
    :ivar verdicts: the decisions of the next prune on all backups
    :ivar is_without_snapshots: whether the volume snapshots are not shown, for want of an answer
    """

    rows: list[ImageRow] = field(default_factory=list)
    next_marker: str | None = None
    policies: ServerPolicies | None = None
    newest_at: datetime | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    is_without_snapshots: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_unfinished(self) -> bool:
        """Whether an image will change by itself."""
        return any(row.is_unfinished for row in self.rows)

    @property
    def kept(self) -> int:
        """The number of backups that the next prune keeps."""
        return sum(verdict.decision.keep for verdict in self.verdicts)

    @property
    def removed(self) -> int:
        """The number of backups that the next prune removes."""
        return len(self.verdicts) - self.kept


def load(
    inventory: Inventory,
    nova: Service,
    snapshots: ProjectSnapshots,
    server_id: str,
    marker: str | None,
    limit: int,
) -> ServerImages:
    """Return what the page of a server shows, with a bounded number of requests.

    :param marker: the marker of a page of images; ``None`` for the first page
    :param limit: the number of images of a page
    :raises ClientError: if a request fails
    """
    now = datetime.now(UTC)
    instance = _recorded(inventory.relations, server_id)
    known = policies_of(find(nova, server_id))
    if instance is None:
        return ServerImages(policies=known, now=now)
    pruning = decide(
        inventory, [instance], stored({server_id: known} if known else {}), project_id=None, now=now
    )
    verdicts = {one.decision.backup.image_id: one for one in pruning.verdicts}
    found = _page(inventory.relations, instance, marker, limit)
    live = [relation for relation in found.items if relation.image_deleted_at is None]
    existing = snapshots.find({id for one in live for id in one.volume_snapshot_ids})
    return ServerImages(
        _rows(inventory.relations, found.items, existing or {}, verdicts, now),
        found.marker,
        known,
        _newest(pruning.verdicts, now),
        pruning.verdicts,
        pruning.faults,
        existing is None,
        now,
    )


def _recorded(relations: RelationsClient, server_id: str) -> Instance | None:
    found = list(relations.instances(instance_id=server_id, resource_type=model.SERVER, limit=2))
    if len(found) > 1:
        raise InstallationAmbiguous(f"server {server_id} is recorded in several installations")
    return found[0] if found else None


def _page(
    relations: RelationsClient, instance: Instance, marker: str | None, limit: int
) -> Page[Relation]:
    query = {
        "installation_uuid": instance.installation_uuid,
        "instance_id": instance.instance_id,
        "resource_type": instance.resource_type,
        "limit": str(limit),
        "marker": marker,
    }
    return page(relations, paths.RELATIONS, "relations", Relation.from_json, query.items())


def _newest(verdicts: Iterable[Verdict], now: datetime) -> datetime | None:
    made = (one.decision.backup for one in verdicts)
    latest = now + validation.CLOCK_SKEW
    times = (it.created_at for it in made if it.status == "active" and it.created_at <= latest)
    return max(times, default=None)


def _rows(
    relations: RelationsClient,
    found: list[Relation],
    snapshots: Mapping[str, VolumeSnapshot],
    verdicts: Mapping[str, Verdict],
    now: datetime,
) -> list[ImageRow]:
    live = {relation.image_id for relation in found if relation.image_deleted_at is None}
    images = dict(relations.glance.images(live, dict))
    return [
        ImageRow(
            relation,
            images.get(relation.image_id) if relation.image_deleted_at is None else None,
            verdicts.get(relation.image_id),
            [snapshots[id] for id in relation.volume_snapshot_ids if id in snapshots],
            now,
        )
        for relation in found
    ]
