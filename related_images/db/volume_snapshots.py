"""The volume snapshots to which an image of a server on volumes refers.

They are recorded with the relation of the image, and removed with it.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from related_images.db.tables import volume_snapshots


def record(connection: Connection, relation_ref: int, snapshot_ids: Sequence[str]) -> None:
    """Record the volume snapshots of a new relation; those of a known relation stay."""
    if not snapshot_ids:
        return
    ours = volume_snapshots.c.relation_ref == relation_ref
    if connection.execute(select(volume_snapshots.c.relation_ref).where(ours)).first() is None:
        values = {"relation_ref": relation_ref, "snapshot_ids": tuple(snapshot_ids)}
        connection.execute(insert(volume_snapshots), values)
