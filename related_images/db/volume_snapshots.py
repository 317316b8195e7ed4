"""The volume snapshots to which an image of a server on volumes refers.

They are recorded with the relation of the image, and removed with it.
"""

from collections.abc import Mapping, Sequence

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


def pass_on(connection: Connection, heirs: Mapping[int, int]) -> None:
    """Give the volume snapshots of relations that are about to be removed to other relations.

    :param heirs: the other relation, locked, for each relation
    """
    stored = select(volume_snapshots).where(volume_snapshots.c.relation_ref.in_(heirs))
    for ref, snapshot_ids in connection.execute(stored).all():
        record(connection, heirs[ref], snapshot_ids)
