"""``openstack server backup list``: the backups of a server that can be restored."""

import argparse
from collections.abc import Iterator

from related_images import model
from related_images.osc.server_image import LABEL, MORE, Row, ServerImageLister, of_image


class ListServerBackup(ServerImageLister):
    """List the backups of a server that can be restored: those whose image is active."""

    columns = (
        of_image("ID", "id"),
        of_image("Name", "name"),
        LABEL,
        of_image("Size", "size"),
        of_image("Created At", "created_at"),
    )
    more = MORE[1:]

    def found(self, given: argparse.Namespace) -> Iterator[Row]:
        return self.rows(given, model.BACKUP, "active")
