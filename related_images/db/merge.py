"""Merge an installation into another one, because its UUID was wrong or one deployment used two.

A resource that only the old installation has moves to the new one, with its relations, rebuilds and
links, by a change of its own row. A resource with the same type and ID in both is united: its
relations move to the row of the new installation. Nothing that was recorded is lost:

* Of a relation that both have, the relation with the earlier time remains. If the times are equal,
  the relation of the new installation remains. It gets the claims of the other relation, and the
  label of the other relation if it has no label.
* If the relation is a start, the later time remains as a rebuild, unless
  :func:`related_images.db.parent_links.is_rebuild` denies that. All rebuilds remain.
* The owner of the resource is the owner in the new installation, or else the owner in the old one.
* The united resource has ended if one of the two has ended; the earlier end remains. The same is
  true of a relation that both have.
* A lease ends at the later time.
* The coverage and the losses of the witnesses move too. Gaps that only a comparison of the new
  installation closed are open again.
* Of two origins with the same time, that of the new installation remains. An origin between the two
  resources is removed, since they are one. So is an origin that only repeats another one: see
  :func:`related_images.db.origin_records.drop_repeated`.

So the result is as if everything had been recorded under the new UUID, in the order of its times.
Each transaction moves at most :data:`BATCH` resources, or relations of one resource. The last one
of a resource computes its links and latest times. What is not merged yet remains under the old
UUID, where the next merge finds it.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    SmallInteger,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    type_coerce,
    update,
)

from related_images import failpoints
from related_images.db import (
    backfill,
    image_owners,
    installations,
    latest_images,
    leases,
    origin_records,
    parent_links,
    shelving,
    volume_snapshots,
    witnesses,
)
from related_images.db.database import Database
from related_images.db.index_hints import WithoutIndex
from related_images.db.parent_links import Start
from related_images.db.relations import CLAIMS_LIMIT, NO_CREATOR
from related_images.db.row_ids import (
    get_or_create_installation,
    installation_refs,
    of_installation,
)
from related_images.db.tables import installation, instance, origin, rebuild, relation
from related_images.errors import InstallationConflict, InstallationNotFound
from related_images.failpoints import Point
from related_images.model import BOOT, SERVICE, USE, Merged

BATCH: Final = 1000
"""The number of rows that one transaction moves."""

LONGEST_PAUSE: Final = 1.0
"""The largest pause between two transactions, in seconds."""

_twin: Final = instance.alias("twin")
_same: Final = relation.alias("same")
_HAS_RESOURCES: Final = exists().where(instance.c.installation_ref == installation.c.id)

Result = TypeVar("Result")


def merge(database: Database, old: str, new: str) -> Merged:
    """Move everything that is recorded for the installation ``old`` to the installation ``new``.

    At the end the registration of ``old`` is removed, if no resource of it is left. Reports on
    ``old`` may arrive during a merge and after it; another merge moves these.

    :returns: the numbers of moved rows; ``left`` is the number of resources that were reported
        after the merge had passed them
    :raises InstallationConflict: if both are the same, or ``old`` alone is bound to service users
    :raises InstallationNotFound: if one of them is unknown, or ``new`` is neither registered nor
        recorded now
    :raises StoreUnavailable: if the database fails; the next merge continues
    """
    moved = united = duplicates = 0
    for home, resource_type in _homes(database, old, new):
        target = database.write(get_or_create_installation, new, resource_type)
        after: int | None = 0
        while after is not None:
            batch = _write(database, _move, home, target, after)
            failpoints.reach(Point.MERGE_MOVED)
            for pair in batch.pairs:
                duplicates += _unite(database, *pair)
            moved, united, after = moved + batch.moved, united + len(batch.pairs), batch.last
    left = database.read(_count_resources, old)
    if not left:
        backfill.finish(database, old)
        witnesses.move(database, old, new)
        with suppress(InstallationNotFound):
            installations.unregister(database, old)
    return Merged(moved, united, duplicates, left)


def _write(database: Database, task: Callable[..., Result], *arguments: Any) -> Result:
    """Run a transaction, then pause for the same time, so that others can use the database.

    SQLite has no queue of writers: others wait for a moment without a transaction.
    """
    begin = time.monotonic()
    result = database.write(task, *arguments)
    time.sleep(min(time.monotonic() - begin, LONGEST_PAUSE))
    return result


def _check_bindings(connection: Connection, old: str, new: str) -> None:
    """Refuse a merge that would let others report on the resources of ``old``."""
    bound = {one.uuid for one in installations.registered_in(connection) if one.service_users}
    if old in bound and new not in bound:
        raise InstallationConflict(
            f"the installation {old} is bound to service users and {new} is not, so that any "
            "service could report on its resources after the merge; register it with its service "
            f"users first: `related-images installation add {new} --service-user ...`"
        )


def count(database: Database, old: str, new: str) -> Merged:
    """Return what a merge would move now, without changes; everything is ``left``.

    :raises InstallationConflict: see :func:`merge`
    :raises InstallationNotFound: see :func:`merge`
    :raises StoreUnavailable: if the database is unavailable
    """
    united = duplicates = 0
    for home, resource_type in _homes(database, old, new):
        in_both = database.read(_count_in_both, home, new, resource_type)
        united, duplicates = united + in_both[0], duplicates + in_both[1]
    left = database.read(_count_resources, old)
    return Merged(left - united, united, duplicates, left)


def _homes(database: Database, old: str, new: str) -> Sequence[Any]:
    """Check that the merge is allowed, and return the rows of the installation ``old`` that have
    resources, with their types."""
    if old == new:
        raise InstallationConflict(
            f"the installation {old} cannot be merged into itself; give two different UUIDs"
        )
    for uuid, is_known in ((old, _is_known), (new, _is_in_use)):
        if not database.read(is_known, uuid):
            raise InstallationNotFound(
                f"the installation {uuid} is neither registered nor recorded; check the UUID, or "
                "register it with `related-images installation add`"
            )
    database.read(_check_bindings, old, new)
    return database.read(_find_homes, old)


def _is_known(connection: Connection, uuid: str) -> bool:
    known = select(installation.c.id).where(of_installation(uuid)).limit(1)
    return connection.execute(known).first() is not None


def _is_in_use(connection: Connection, uuid: str) -> bool:
    """Return whether the installation is registered or has resources."""
    is_used = or_(installation.c.registered_at.is_not(None), _HAS_RESOURCES)
    known = select(installation.c.id).where(of_installation(uuid), is_used).limit(1)
    return connection.execute(known).first() is not None


def _find_homes(connection: Connection, uuid: str) -> Sequence[Any]:
    homes = select(installation.c.id, installation.c.resource_type)
    found = homes.where(of_installation(uuid), _HAS_RESOURCES).order_by(installation.c.id)
    return connection.execute(found).all()


def _count_resources(connection: Connection, uuid: str) -> int:
    homes = select(installation.c.id).where(of_installation(uuid))
    resources = select(func.count()).where(instance.c.installation_ref.in_(homes))
    return connection.execute(resources).scalar_one()


def _count_in_both(
    connection: Connection, home: int, new: str, resource_type: str
) -> tuple[int, int]:
    """Return the numbers of resources and of relations that two rows of installations share."""
    target = installation_refs(new, resource_type).scalar_subquery()
    pairs = instance.join(
        _twin,
        (_twin.c.instance_id == instance.c.instance_id) & (_twin.c.installation_ref == target),
    )
    both = pairs.join(relation, relation.c.instance_ref == instance.c.id).join(
        _same,
        (_same.c.image_ref == relation.c.image_ref)
        & (_same.c.instance_ref == _twin.c.id)
        & (WithoutIndex(_same.c.kind) == relation.c.kind),
    )
    resources, relations = (
        select(func.count()).select_from(rows).where(instance.c.installation_ref == home)
        for rows in (pairs, both)
    )
    return connection.execute(resources).scalar_one(), connection.execute(relations).scalar_one()


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch of resources of the old installation.

    :ivar moved: the number of resources that only the old installation has
    :ivar pairs: the rows of the others, each with the row in the new installation
    :ivar last: the last row of the batch; ``None`` at the end
    """

    moved: int
    pairs: Sequence[tuple[int, int]]
    last: int | None


def _move(connection: Connection, home: int, target: int, after: int) -> _Batch:
    """Move the resources of the next batch that only the old installation has.

    If a concurrent transaction records one of them for the new installation, the unique key makes
    this transaction run again.
    """
    is_twin = _twin.c.instance_id == instance.c.instance_id, _twin.c.installation_ref == target
    rows = connection.execute(
        select(instance.c.id, _twin.c.id.label("twin"))
        .select_from(instance.outerjoin(_twin, is_twin[0] & is_twin[1]))
        .where(instance.c.installation_ref == home, instance.c.id > after)
        .order_by(instance.c.id)
        .limit(BATCH)
        .with_for_update(of=instance)
    ).all()
    alone = [row.id for row in rows if row.twin is None]
    if alone:
        moved = update(instance).where(instance.c.id.in_(alone))
        connection.execute(moved.values(installation_ref=target))
    pairs = [(row.id, row.twin) for row in rows if row.twin is not None]
    return _Batch(len(alone), pairs, rows[-1].id if rows else None)


def _unite(database: Database, ref: int, twin: int) -> int:
    """Unite two resources, and return the number of relations that both had."""
    duplicates, is_done = 0, False
    while not is_done:
        number, is_done = _write(database, _unite_some, ref, twin)
        failpoints.reach(Point.MERGE_UNITED)
        duplicates += number
    return duplicates


def _unite_some(connection: Connection, ref: int, twin: int) -> tuple[int, bool]:
    """Move some relations to the resource ``twin``, and remove the resource without relations.

    :returns: the number of relations that both had, and whether no relation is left to move
    """
    pair = select(instance.c.id, instance.c.project_ref, instance.c.ended_at).where(
        instance.c.id.in_([ref, twin])
    )
    rows = connection.execute(pair.order_by(instance.c.id).with_for_update())
    locked = {row.id: row for row in rows}
    if len(locked) < 2:  # a concurrent transaction removed one; another merge moves what is left
        return 0, True
    found = connection.execute(_of_resource(ref).limit(BATCH)).all()
    duplicates = _duplicates(connection, found, twin)
    _join(connection, duplicates, (ref, twin))
    dropped = {dropped.id for _, dropped in duplicates}
    moved = [row.id for row in found if row.id not in dropped]
    if moved:
        is_moved = relation.c.id.in_(moved)
        connection.execute(update(relation).where(is_moved).values(instance_ref=twin))
    is_done = len(found) < BATCH and _move_origins(connection, ref, twin)
    if is_done:
        # once, since the links and times of a large resource take longer than a batch
        connection.execute(delete(instance).where(instance.c.id == ref))
        _complete(connection, locked[ref], locked[twin])
    return len(duplicates), is_done


def _move_origins(connection: Connection, ref: int, twin: int) -> bool:
    """Move some origins, with the resource or from it, to the resource ``twin``.

    :returns: whether no origin is left to move
    """
    own = select(origin.c.since).where(origin.c.instance_ref == ref).limit(BATCH)
    times = connection.execute(own).scalars().all()
    if times:
        is_moved = origin.c.since.in_(times)
        known = select(origin.c.since).where(origin.c.instance_ref == twin, is_moved)
        in_both = connection.execute(known).scalars().all()
        if in_both:
            is_double = origin.c.instance_ref == ref, origin.c.since.in_(in_both)
            connection.execute(delete(origin).where(*is_double))
        moved = update(origin).where(origin.c.instance_ref == ref, is_moved)
        connection.execute(moved.values(instance_ref=twin))
    below = select(origin.c.instance_ref).where(origin.c.source_ref == ref).distinct()
    refs = connection.execute(below.limit(BATCH)).scalars().all()
    if refs:
        from_ref = update(origin).where(origin.c.source_ref == ref, origin.c.instance_ref.in_(refs))
        connection.execute(from_ref.values(source_ref=twin))
    if times or refs:
        origin_records.drop_repeated(connection, [twin, *refs])
    is_own_source = origin.c.instance_ref == twin, origin.c.source_ref == twin
    connection.execute(delete(origin).where(*is_own_source))
    return len(times) < BATCH and len(refs) < BATCH


_code: Final = type_coerce(relation.c.kind, SmallInteger).label("code")
"""The kind; it may be a kind that only a newer version knows."""


def _of_resource(ref: int) -> Any:
    """Return the query for the relations of a resource, starts first."""
    is_start = case((relation.c.kind == BOOT, 0), else_=1)
    return select(relation, _code).where(relation.c.instance_ref == ref).order_by(is_start, "id")


def _duplicates(connection: Connection, found: Sequence[Any], twin: int) -> list[tuple[Any, Any]]:
    """Return those relations that the ``twin`` has too: each pair with the earlier one first."""
    images = {row.image_ref for row in found}
    if not images:
        return []
    of_twin = _of_resource(twin).where(relation.c.image_ref.in_(images))
    known = {(row.image_ref, row.code): row for row in connection.execute(of_twin)}
    pairs = [(known.get((row.image_ref, row.code)), row) for row in found]
    return [
        (row, own) if row.created_at < own.created_at else (own, row)
        for own, row in pairs
        if own is not None
    ]


def _join(
    connection: Connection, duplicates: Sequence[tuple[Any, Any]], resources: tuple[int, int]
) -> None:
    """Copy the additional data of each pair to the first relation, and remove the second one."""
    if not duplicates:
        return
    starts = [start for ref in resources for start in parent_links.starts_of(connection, ref)]
    rebuilds = [
        {"relation_ref": kept.id, "started_at": at}
        for kept, dropped in duplicates
        if kept.kind == BOOT
        for at in sorted(_rebuilt_at(starts, kept, dropped))
    ]
    leases.unite(
        connection, [(kept.id, dropped.id) for kept, dropped in duplicates if kept.kind == USE]
    )
    heirs = {dropped.id: kept.id for kept, dropped in duplicates}
    shelving.pass_on(connection, heirs)
    volume_snapshots.pass_on(connection, heirs)
    dropped_refs = [dropped.id for _, dropped in duplicates]
    connection.execute(delete(relation).where(relation.c.id.in_(dropped_refs)))
    for kept, dropped in duplicates:
        values = {"claimed": _claims(kept, dropped), "label": kept.label or dropped.label}
        connection.execute(update(relation).where(relation.c.id == kept.id).values(values))
    if rebuilds:
        connection.execute(insert(rebuild), rebuilds)


def _rebuilt_at(starts: Sequence[Start], kept: Any, dropped: Any) -> set[datetime]:
    """Return the times at which ``dropped`` states a rebuild that ``kept`` does not state."""
    known = {start.at for start in starts if start.relation_ref == kept.id}
    first = Start(dropped.created_at, dropped.id, dropped.image_ref)
    others = [start for start in starts if start != first]
    times = {start.at for start in others if start.relation_ref == dropped.id}
    if parent_links.is_rebuild(others, first, dropped.source):
        times.add(first.at)
    return times - known


def _claims(kept: Any, dropped: Any) -> int:
    """Return the claims of ``kept`` after all reports of ``dropped`` claimed it.

    The announcement that created ``dropped`` is not among its claims, but becomes a claim of
    ``kept``. A report that is never revoked supports the relation in place of its creator.
    """
    has_creator = dropped.claimed < NO_CREATOR
    is_announced = has_creator and dropped.source == SERVICE
    number = dropped.claimed % NO_CREATOR + (1 if is_announced else 0)
    lacks_creator = kept.claimed >= NO_CREATOR and (is_announced or not has_creator)
    total = min(kept.claimed % NO_CREATOR + number, CLAIMS_LIMIT)
    claims: int = total + NO_CREATOR if lacks_creator else total
    return claims


def _complete(connection: Connection, old: Any, new: Any) -> None:
    """Update the owner, the end, the links and the latest times of the united resource ``new``."""
    ends = [row.ended_at for row in (old, new) if row.ended_at is not None]
    if ends:
        ended = update(instance).where(instance.c.id == new.id)
        connection.execute(ended.values(ended_at=min(ends)))
        for at in ends:
            shelving.end_of(connection, new.id, at)
    owner = new.project_ref or old.project_ref
    if owner is not None:
        image_owners.report(connection, new.id, owner)
    parent_links.refresh(connection, new.id)
    parent_links.refresh_below(connection, new.id)
    latest_images.refresh(connection, [new.id])
