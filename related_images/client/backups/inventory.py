"""List and delete the backups of servers in Glance, with their volume snapshots in Cinder."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from related_images import model, validation
from related_images.client.backups import backup_images
from related_images.client.backups.backup_images import BackupImage
from related_images.client.backups.retention import Backup
from related_images.client.backups.volume_snapshots import VolumeSnapshots
from related_images.client.errors import NotFound, ServiceFailed
from related_images.client.glance import HIDDEN, PAGE
from related_images.client.images import InstanceAwareImageService
from related_images.client.relations import RelationsClient
from related_images.model import Instance, InstanceRef, Relation

DELETED: Final = "deleted"
"""The status of a backup whose image was deleted."""

REMAIN: Final = "the image was deleted, but volume snapshots remain: "


class Inventory:
    """List and delete the backups of servers.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service; or a :class:`RelationsClient`
    :param volume_snapshots: deletes the volume snapshots of backups; without it, backups with
        volume snapshots are not deleted
    :raises TypeError: if ``client`` has another type

    Every method raises :exc:`GlanceError` if a request fails.
    """

    def __init__(self, client: object, volume_snapshots: VolumeSnapshots | None = None) -> None:
        self.relations = client if isinstance(client, RelationsClient) else RelationsClient(client)
        self.volume_snapshots = volume_snapshots

    def images(self, ref: InstanceRef) -> InstanceAwareImageService:
        """Return the client for images of resources with the installation and type of ``ref``."""
        return InstanceAwareImageService(self.relations, ref.installation_uuid, ref.resource_type)

    def instances(
        self,
        *,
        label: str | None = None,
        project_id: str | None = None,
        installation_uuid: str | None = None,
    ) -> Iterator[Instance]:
        """Return the servers that have a backup.

        :param label: only servers that have a backup with this label
        :param project_id: only servers with images of this project
        :param installation_uuid: only servers of this installation
        """
        return self.relations.instances(
            kind=model.BACKUP,
            resource_type=model.SERVER,
            label=label,
            project_id=project_id,
            installation_uuid=installation_uuid,
            page_size=PAGE,
        )

    def backups(self, instance: Instance, label: str | None = None) -> list[Backup]:
        """Return all backups of a server, also hidden images and images that are not active.

        :param instance: the server
        :param label: only backups with this label
        """
        ref = instance.instance
        service = self.images(ref)
        recorded = service.relations(
            ref.instance_id, kind=model.BACKUP, label=label, page_size=PAGE
        )
        relations = {relation.image_id: relation for relation in recorded}
        listed = itertools.chain.from_iterable(
            service.list(
                ref.instance_id, kind=model.BACKUP, label=label, page_size=PAGE, os_hidden=hidden
            )
            for hidden in HIDDEN
        )
        found = {image.id: BackupImage.of(image) for image in listed if image.id in relations}
        usages = self.relations.usages(found)
        return [
            found[usage.image_id].backup(
                instance,
                relations[usage.image_id].label,
                usage,
                relations[usage.image_id].volume_snapshot_ids,
            )
            for usage in usages
        ]

    def backups_of_servers(
        self, instances: Iterable[Instance], label: str | None = None, project_id: str | None = None
    ) -> dict[InstanceRef, list[Backup]]:
        """Return what :meth:`backups` returns for each server, with few requests.

        A server is left out if only :meth:`backups` can tell which images are its backups.

        :param instances: the servers, as :meth:`instances` returned them
        :param label: only backups with this label
        :param project_id: the project that owns all or most of the images; backups of other
            projects take one more request for each server that has some
        """
        servers = {instance.instance: instance for instance in instances}
        return backup_images.backups_of_servers(self.relations, servers, label, project_id)

    def is_unchanged(self, backup: Backup) -> bool:
        """Return True if the image has not changed, and no server was started from it.

        :param backup: the backup as :meth:`backups` returned it
        """
        try:
            image = self.images(backup.instance).get(backup.image_id)
        except NotFound:
            return False
        (usage,) = self.relations.usages([backup.image_id])
        made_at = validation.parse_time("created_at", image.created_at)
        current = (made_at, image.status, image.protected, image.os_hidden)
        is_same = current == (backup.created_at, backup.status, backup.protected, backup.hidden)
        # a gap does not prevent the deletion of a backup, as it does not prevent that of an image
        return is_same and usage.no_use_is_recorded

    def delete(self, backup: Backup) -> tuple[str, ...]:
        """Delete the image of a backup, if it still exists, and then its volume snapshots.

        Volume snapshots are deleted only if they are recorded, and with no other image.

        :param backup: the backup
        :returns: the volume snapshots that Cinder now deletes
        :raises ImageNotOfInstance: if it is not recorded as a backup of the server any more
        :raises Conflict: if a live server was started from it, with delete protection
        :raises ServiceFailed: if its volume snapshots cannot be deleted; without Cinder, the image
            is not deleted either
        """
        service, server_id = self.images(backup.instance), backup.instance.instance_id
        volume_snapshots, ids = self.volume_snapshots, backup.volume_snapshot_ids
        if not ids:
            service.delete(backup.image_id, instance_id=server_id)
            return ()
        if volume_snapshots is None:
            raise ServiceFailed(
                "the backup has volume snapshots, and there is no block storage service (Cinder) "
                "that can delete them; nothing was deleted"
            )
        needed = _needed(service.relations(server_id, page_size=PAGE), but=backup.image_id)
        if backup.status != DELETED:
            service.delete(backup.image_id, instance_id=server_id)
        deleted = tuple(id for id in ids if id not in needed)
        if refused := volume_snapshots.delete(deleted):
            raise ServiceFailed(REMAIN + "; ".join(refused.values()))
        return deleted

    def without_image(
        self,
        *,
        server_id: str | None = None,
        label: str | None = None,
        project_id: str | None = None,
        installation_uuid: str | None = None,
    ) -> Iterator[Backup]:
        """Yield the deleted backups of servers that left volume snapshots, with these.

        :param server_id: only backups of this server
        :param label: only backups with this label
        :param project_id: only backups that this project owned
        :param installation_uuid: only backups of servers of this installation
        :raises ServiceFailed: if a request to Cinder fails
        """
        if self.volume_snapshots is None or not self.volume_snapshots.exist():
            return
        relations = self.relations.relations(
            kind=model.BACKUP,
            resource_type=model.SERVER,
            instance_id=server_id,
            label=label,
            project_id=project_id,
            installation_uuid=installation_uuid,
            page_size=PAGE,
        )
        recorded = [one for one in relations if one.volume_snapshot_ids]
        deleted = [one for one in recorded if one.image_deleted_at]
        needed = _needed(recorded)
        left = self.volume_snapshots.find(
            {id for one in deleted for id in one.volume_snapshot_ids} - needed
        )
        for one in deleted:
            if ids := tuple(id for id in one.volume_snapshot_ids if id in left):
                yield Backup(
                    image_id=one.image_id,
                    instance=one.instance,
                    label=one.label,
                    created_at=one.made_at,
                    status=DELETED,
                    project_id=one.project_id,
                    volume_snapshot_ids=ids,
                )

    def has_image(self, backup: Backup) -> bool:
        """Return whether Glance shows an image with the ID of the backup."""
        try:
            self.images(backup.instance).get(backup.image_id)
        except NotFound:
            return False
        return True


def _needed(relations: Iterable[Relation], but: str | None = None) -> set[str]:
    """Return the volume snapshots of images that were not deleted.

    If Nova repeats a request, the same volume snapshots are recorded with two images.

    :param but: an image that is left out
    """
    return {
        id
        for relation in relations
        if relation.image_deleted_at is None and relation.image_id != but
        for id in relation.volume_snapshot_ids
    }
