"""List and delete the backups of servers in Glance."""

import itertools
from collections.abc import Iterator

from related_images import model, validation
from related_images.client.backups.retention import Backup
from related_images.client.errors import NotFound
from related_images.client.glance import HIDDEN, PAGE
from related_images.client.image import Image
from related_images.client.images import InstanceAwareImageService
from related_images.client.relations import RelationsClient
from related_images.model import Instance, InstanceRef, Relation, Usage


class Inventory:
    """List and delete the backups of servers.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :raises TypeError: if ``client`` has another type

    Every method raises :exc:`GlanceError` if a request fails.
    """

    def __init__(self, client: object) -> None:
        self._client = client
        self.relations = RelationsClient(client)
        self._alive: dict[InstanceRef, bool] = {}

    def images(self, ref: InstanceRef) -> InstanceAwareImageService:
        """Return the client for images of resources with the installation and type of ``ref``."""
        return InstanceAwareImageService(self._client, ref.installation_uuid, ref.resource_type)

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
        labels = {relation.image_id: relation.label for relation in recorded}
        listed = itertools.chain.from_iterable(
            service.list(
                ref.instance_id, kind=model.BACKUP, label=label, page_size=PAGE, os_hidden=hidden
            )
            for hidden in HIDDEN
        )
        images = [image for image in listed if image.id in labels]
        usages = self.relations.usages([image.id for image in images])
        return [
            self._backup(image, instance, labels[image.id], usage)
            for image, usage in zip(images, usages, strict=True)
        ]

    def _backup(self, image: Image, instance: Instance, label: str | None, usage: Usage) -> Backup:
        relations = list(self.relations.relations(image_id=image.id, page_size=PAGE))
        return Backup(
            image_id=image.id,
            instance=instance.instance,
            label=label,
            created_at=validation.parse_time("created_at", image.created_at),
            status=image.status,
            protected=image.protected,
            hidden=image.os_hidden,
            in_use=any(map(self._is_use, relations)),
            orphan=instance.ended_at is not None,
            of_another=any(
                r.kind in model.MADE_FROM and r.instance != instance.instance for r in relations
            ),
            project_id=image.get("owner"),
            used_by_others=usage.used_by_others,
        )

    def _is_use(self, relation: Relation) -> bool:
        """Return True if a live server or volume, or a shelved server, needs the image."""
        if relation.kind == model.SHELVED:
            return relation.ended_at is None
        return relation.kind == model.BOOT and self._is_alive(relation.instance)

    def _is_alive(self, ref: InstanceRef) -> bool:
        if ref not in self._alive:
            try:
                self._alive[ref] = self.relations.instance(ref).ended_at is None
            except NotFound:
                self._alive[ref] = True  # not recorded as deleted
        return self._alive[ref]

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
        return is_same and usage.is_unused

    def delete(self, backup: Backup) -> None:
        """Delete the image of a backup.

        :param backup: the backup
        :raises ImageNotOfInstance: if it is not recorded as a backup of the server any more
        :raises Conflict: if a live server was started from it, with delete protection
        """
        service = self.images(backup.instance)
        service.delete(backup.image_id, instance_id=backup.instance.instance_id)
