"""The images of a server, its backup policy, and what the next prune would do."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from related_images import model, validation
from related_images.client import InstallationAmbiguous, Instance, RelationsClient
from related_images.client.backups import (
    Inventory,
    ServerPolicies,
    Verdict,
    VolumeSnapshots,
    decide,
    policies_of_server,
    stored,
)
from related_images.client.backups.volume_snapshots import FEW, VolumeSnapshot
from related_images.integrations.horizon.pages import Page, page
from related_images.integrations.horizon.schedule import Schedule
from related_images.model import Relation
from related_images.protocol import paths

UNFINISHED: Final = ("queued", "saving", "uploading", "importing")
"""The statuses of images that change by themselves."""


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
    """

    rows: list[ImageRow] = field(default_factory=list)
    next_marker: str | None = None
    policies: ServerPolicies | None = None
    newest_at: datetime | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
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


def policies(server: Any) -> ServerPolicies | None:
    """Return the stored policy of a server as Horizon has it."""
    return policies_of_server(server.id, server.tenant_id, server.created, server.metadata)


def load(inventory: Inventory, server: Any, marker: str | None, limit: int) -> ServerImages:
    """Return what the page of a server shows, with a bounded number of requests.

    :param server: the server as Horizon has it
    :param marker: the marker of a page of images; ``None`` for the first page
    :param limit: the number of images of a page
    :raises ClientError: if a request fails
    """
    now = datetime.now(UTC)
    known = policies(server)
    instance = _recorded(inventory.relations, server.id)
    if instance is None:
        return ServerImages(policies=known, now=now)
    pruning = decide(
        inventory, [instance], stored({server.id: known} if known else {}), project_id=None, now=now
    )
    verdicts = {one.decision.backup.image_id: one for one in pruning.verdicts}
    found = _page(inventory.relations, instance, marker, limit)
    return ServerImages(
        _rows(inventory, found.items, verdicts, now),
        found.marker,
        known,
        _newest(pruning.verdicts, now),
        pruning.verdicts,
        pruning.faults,
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
    inventory: Inventory,
    found: list[Relation],
    verdicts: Mapping[str, Verdict],
    now: datetime,
) -> list[ImageRow]:
    live = [relation for relation in found if relation.image_deleted_at is None]
    images = dict(inventory.relations.glance.images({it.image_id for it in live}, dict))
    snapshots = _find(
        inventory.volume_snapshots,
        [id for relation in live for id in relation.volume_snapshot_ids],
    )
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


def _find(client: VolumeSnapshots | None, ids: list[str]) -> dict[str, VolumeSnapshot]:
    """Return the volume snapshots that exist, each with a request of its own."""
    found: dict[str, VolumeSnapshot] = {}
    remaining = iter(dict.fromkeys(ids))
    while client is not None and (part := list(itertools.islice(remaining, FEW))):
        found |= client.find(part)
    return found
