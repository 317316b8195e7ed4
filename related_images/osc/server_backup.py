"""``openstack server backup list``: list the backups of a server that can be restored."""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from related_images import model
from related_images.osc import services
from related_images.osc.server_image import LABEL, LONG_COLUMNS, Row, ServerImageLister, of_image


class ListServerBackup(ServerImageLister):
    """List the backups of a server, or of all servers, that can be restored.

    These are the backups whose image is active. The size of a backup of a server on volumes is that
    of its volume snapshots.
    """

    objects = "backups"
    columns = (
        of_image("ID", "id"),
        of_image("Name", "name"),
        LABEL,
        ("Size", lambda row: row.size),
        of_image("Created At", "created_at"),
    )
    long_columns = LONG_COLUMNS[1:]

    def find(self, args: argparse.Namespace) -> Iterator[Row]:
        return self.find_images(args, model.BACKUP, "active")

    def prepare(self, items: Iterator[Row]) -> Iterator[Row]:
        rows = list(items)
        ids = {id for row in rows for id in _volume_snapshots(row)}
        cinder = services.volume_snapshots(self.app.client_manager) if ids else None
        known = cinder.find(ids) if cinder else {}
        for row in rows:
            sizes = [known[id].size for id in _volume_snapshots(row) if id in known]
            size = row.image.get("size")
            yield replace(row, size=(size or 0) + sum(sizes) if sizes else size)


def _volume_snapshots(row: Row) -> set[str]:
    return {id for relation in row.relations for id in relation.volume_snapshot_ids}
