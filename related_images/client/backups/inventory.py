"""List and delete the backups of servers in Glance."""

import itertools
from collections.abc import Iterable, Iterator

from related_images import model, validation
from related_images.client.backups import join
from related_images.client.backups.join import BackupImage
from related_images.client.backups.retention import Backup
from related_images.client.errors import NotFound
from related_images.client.glance import HIDDEN, PAGE
from related_images.client.images import InstanceAwareImageService
from related_images.client.relations import RelationsClient
from related_images.model import Instance, InstanceRef


class Inventory:
    """List and delete the backups of servers.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service; or a :class:`RelationsClient`
    :raises TypeError: if ``client`` has another type

    Every method raises :exc:`GlanceError` if a request fails.
    """

    def __init__(self, client: object) -> None:
        self.relations = client if isinstance(client, RelationsClient) else RelationsClient(client)

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
        labels = {relation.image_id: relation.label for relation in recorded}
        listed = itertools.chain.from_iterable(
            service.list(
                ref.instance_id, kind=model.BACKUP, label=label, page_size=PAGE, os_hidden=hidden
            )
            for hidden in HIDDEN
        )
        found = {image.id: BackupImage.of(image) for image in listed if image.id in labels}
        usages = self.relations.usages(found)
        return [
            found[usage.image_id].backup(instance, labels[usage.image_id], usage)
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
        return join.backups_of_servers(self.relations, servers, label, project_id)

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
        # a gap of a witness does not keep a backup, as it does not keep an image from deletion
        return is_same and usage.no_use_is_recorded

    def delete(self, backup: Backup) -> None:
        """Delete the image of a backup.

        :param backup: the backup
        :raises ImageNotOfInstance: if it is not recorded as a backup of the server any more
        :raises Conflict: if a live server was started from it, with delete protection
        """
        service = self.images(backup.instance)
        service.delete(backup.image_id, instance_id=backup.instance.instance_id)
