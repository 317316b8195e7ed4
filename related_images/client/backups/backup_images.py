"""Read the backups of many servers in pages, and join what belongs to one image.

The relations, the images and their usages are three lists. An image that is missing in one of them
is left out, as if it were not recorded. The rules then keep an older backup in its place, and the
group is read again before anything is deleted.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from related_images import model, validation
from related_images.client.backups.retention import Backup
from related_images.client.glance import PAGE, is_worth_a_page
from related_images.client.relations import RelationsClient
from related_images.errors import BadInput
from related_images.model import Instance, InstanceRef, Relation, Usage


@dataclass(frozen=True, slots=True)
class BackupImage:
    """What the rules need to know of an image.

    :ivar named: the volume snapshots to which a property of the image refers
    """

    created_at: datetime
    status: str
    protected: bool
    hidden: bool
    owner: str | None
    named: tuple[str, ...]

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> "BackupImage":
        """Return the facts of an image as Glance shows it."""
        return cls(
            validation.parse_time("created_at", image["created_at"]),
            sys.intern(image["status"]),
            image["protected"],
            image["os_hidden"],
            _shared(image.get("owner")),
            _named_volume_snapshots(image),
        )

    def backup(
        self,
        instance: Instance,
        label: str | None,
        usage: Usage,
        volume_snapshot_ids: tuple[str, ...],
    ) -> Backup:
        """Return the image as a backup of a server.

        :param label: the label of the relation between them
        :param usage: the usage of the image
        :param volume_snapshot_ids: the volume snapshots in that relation
        """
        return Backup(
            image_id=usage.image_id,
            instance=instance.instance,
            label=label,
            created_at=self.created_at,
            status=self.status,
            protected=self.protected,
            hidden=self.hidden,
            in_use=usage.live_instances > 0 or usage.leases.count > 0 or usage.shelved > 0,
            orphan=instance.ended_at is not None,
            of_another=usage.made_from > 1,
            project_id=self.owner,
            # the image was made from this server: a usage that counts no such server is incomplete
            used_by_others=usage.used_by_others if usage.made_from else None,
            volume_snapshot_ids=volume_snapshot_ids,
            named_volume_snapshot_ids=tuple(
                id for id in self.named if id not in volume_snapshot_ids
            ),
        )


def _named_volume_snapshots(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the volume snapshots in a property of the image; none if the property is malformed."""
    try:
        return validation.volume_snapshot_ids(image.get("block_device_mapping", "[]"))
    except BadInput:
        return ()


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A relation between a server and its backup.

    :ivar image_created_at: when the image was created; ``None`` if that is not recorded
    :ivar recorded_at: when the relation was recorded, unless ``image_created_at`` is known
    """

    instance: InstanceRef
    label: str | None
    project_id: str | None
    image_created_at: datetime | None
    recorded_at: datetime | None
    volume_snapshot_ids: tuple[str, ...]

    @classmethod
    def of(cls, relation: Relation, instance: InstanceRef) -> "_Recorded":
        is_known = relation.image_created_at is not None
        return cls(
            instance,
            _shared(relation.label),
            _shared(relation.project_id),
            relation.image_created_at,
            None if is_known else relation.created_at,
            relation.volume_snapshot_ids,
        )

    def is_of(self, created_at: datetime) -> bool | None:
        """Return whether it is the relation of the image with this ID that was created then.

        An image with the same ID and another creation time is another image.

        :returns: ``None`` if only the filter can tell
        """
        if self.recorded_at is None:
            return self.image_created_at == created_at
        return created_at <= self.recorded_at + validation.CLOCK_SKEW or None


def _shared(text: str | None) -> str | None:
    """Return the text as an object that equal texts share."""
    return None if text is None else sys.intern(text)


def backups_of_servers(
    relations: RelationsClient,
    servers: Mapping[InstanceRef, Instance],
    label: str | None,
    project_id: str | None,
) -> dict[InstanceRef, list[Backup]]:
    """Return the backups of the servers, without those servers for which this is not certain.

    :param label: only backups with this label
    :param project_id: the project that owns all or most of the images
    :raises GlanceError: if a request fails
    """
    recorded: dict[str, list[_Recorded]] = defaultdict(list)
    for image_id, relation in _recorded(relations, servers, project_id):
        if label in (None, relation.label):
            recorded[image_id].append(relation)
    owners = {relation.project_id for found in recorded.values() for relation in found}
    owner = owners.pop() if len(owners) == 1 else project_id
    # by default, as for one server, Glance does not list community images of others
    images = dict(relations.glance.images(recorded, BackupImage.of, visibility=None, owner=owner))
    backups: dict[InstanceRef, list[Backup]] = {ref: [] for ref in servers}
    for usage in relations.usages(images):
        image = images.pop(usage.image_id)
        for relation in recorded.pop(usage.image_id):
            is_same = relation.is_of(image.created_at)
            if is_same is None:
                backups.pop(relation.instance, None)
            elif is_same and relation.instance in backups:
                server = servers[relation.instance]
                found = image.backup(server, relation.label, usage, relation.volume_snapshot_ids)
                backups[relation.instance].append(found)
    return backups


def _recorded(
    relations: RelationsClient, servers: Mapping[InstanceRef, Instance], project_id: str | None
) -> Iterator[tuple[str, _Recorded]]:
    """Yield the relations of the backups of the servers, without deleted images, by image ID.

    They are read from pages of all relations while these are worth it. If the number of backups
    that these pages have of a server differs from the number in its :class:`Instance`, for example
    because another project owns some of its backups, they are read with a separate request.
    """
    found: dict[InstanceRef, dict[str, _Recorded]] = {ref: {} for ref in servers}
    refs = {ref: ref for ref in servers}
    expected = {ref: _number_of_backups(server) for ref, server in servers.items()}
    total, kept = sum(expected.values()), 0
    for number, relation in enumerate(_all_backups(relations, servers, project_id), 1):
        ref = refs.get(relation.instance)
        if ref is not None and relation.image_deleted_at is None:
            kept += relation.image_id not in found[ref]
            found[ref][relation.image_id] = _Recorded.of(relation, ref)
        pages, rest = divmod(number, PAGE)
        # not within a page: backups made since the servers were listed come first and count too
        if not rest and (kept >= total or not is_worth_a_page(pages, kept, len(servers))):
            break
    for ref in servers:
        of_server = found.pop(ref)
        if len(of_server) != expected[ref]:
            of_server = {
                relation.image_id: _Recorded.of(relation, ref)
                for relation in _backups_of(relations, ref)
                if relation.image_deleted_at is None
            }
        yield from of_server.items()


def _number_of_backups(server: Instance) -> int:
    backups = server.images.get(model.BACKUP)
    return backups.count if backups else 0


def _all_backups(
    relations: RelationsClient, servers: Iterable[InstanceRef], project_id: str | None
) -> Iterator[Relation]:
    installations = {ref.installation_uuid for ref in servers}
    return relations.relations(
        kind=model.BACKUP,
        resource_type=model.SERVER,
        installation_uuid=installations.pop() if len(installations) == 1 else None,
        project_id=project_id,
        page_size=PAGE,
    )


def _backups_of(relations: RelationsClient, ref: InstanceRef) -> Iterator[Relation]:
    return relations.relations(
        kind=model.BACKUP,
        resource_type=ref.resource_type,
        installation_uuid=ref.installation_uuid,
        instance_id=ref.instance_id,
        page_size=PAGE,
    )
