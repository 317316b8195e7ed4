"""``openstack server backup list``: list the backups of a server that can be restored."""

import argparse
from collections.abc import Iterator

from related_images import model
from related_images.osc.server_image import LABEL, LONG_COLUMNS, Row, ServerImageLister, of_image


class ListServerBackup(ServerImageLister):
    """List the backups of a server, or of all servers, that can be restored.

    These are the backups whose image is active.
    """

    objects = "backups"
    columns = (
        of_image("ID", "id"),
        of_image("Name", "name"),
        LABEL,
        of_image("Size", "size"),
        of_image("Created At", "created_at"),
    )
    long_columns = LONG_COLUMNS[1:]

    def find(self, args: argparse.Namespace) -> Iterator[Row]:
        return self.find_images(args, model.BACKUP, "active")
