"""Backfill: record the relations that image properties claim, unless recorded data contradicts.

Candidates that pass are recorded in a few bulk statements, with the same result as
:func:`related_images.db.relations.record` for each of them. A candidate is recorded in bulk only if
its image has no relation, no start of its instance is known, and the owner of the instance is not
reported. The bulk inserts do not check for existing rows: after a conflict with a concurrent
transaction, :meth:`Database.write` runs the transaction again, which then finds these rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    bindparam,
    func,
    insert,
    select,
)

from related_images.db import latest_images, relation_queries, relations, stored_state
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.row_ids import (
    INSTALLATION_REF,
    get_or_create,
    get_or_create_installation,
)
from related_images.db.tables import LATEST, image, instance, origin, project, relation
from related_images.model import (
    BACKFILL,
    BOOT,
    MADE_FROM,
    SERVER,
    SNAPSHOT,
    ImageState,
    InstanceRef,
    NewRelation,
    Relation,
)

POSITION: Final = "backfill-position:"
"""The prefix of the name under which the position of an unfinished backfill is stored."""

RECORDED: Final = "recorded"
KNOWN: Final = "known"
DOUBTED: Final = "doubted"
"""The outcomes of a candidate: recorded, recorded before, rejected."""


@dataclass(frozen=True)
class Candidate:
    """An image that may have been made from an instance.

    :ivar owner: the project that owns the image
    :ivar created_at: when Glance created the image
    :ivar project_id: the project that owns the instance, if Nova reported it
    """

    image_id: str
    owner: str
    instance_id: str
    kind: str
    label: str | None
    created_at: datetime
    project_id: str | None


@dataclass(frozen=True)
class Verdict:
    """The outcome of a candidate, and the reason for which it was rejected."""

    outcome: str
    reason: str | None = None


def position(database: Database, installation_uuid: str) -> str | None:
    """Return the position that :func:`remember` stored, or ``None`` for a new backfill.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(stored_state.get, POSITION + installation_uuid)


def finish(database: Database, installation_uuid: str) -> None:
    """Remove the stored position, so that the next backfill starts at the beginning.

    :raises StoreUnavailable: if it could not be committed
    """
    database.write(stored_state.drop, POSITION + installation_uuid)


def judge(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """Return the verdict on each candidate by itself, in their order, and record nothing.

    :raises StoreUnavailable: if the database is unavailable
    """
    known = database.read(_known, installation_uuid, candidates)
    return [known.verdict(one) or Verdict(RECORDED) for one in candidates]


def record(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """Record the candidates that recorded data does not contradict, in one transaction.

    :returns: the verdict on each candidate, in their order
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_record, installation_uuid, candidates)


def remember(database: Database, installation_uuid: str, position: str) -> None:
    """Store the position of an unfinished backfill, so that the next one continues there.

    :raises StoreUnavailable: if it could not be committed
    """
    database.write(stored_state.put, POSITION + installation_uuid, position)


def _record(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    images = {one.image_id for one in candidates}
    instances = {one.instance_id for one in candidates}
    locked = _lock(connection, installation_uuid, images, instances)
    known = _known(connection, installation_uuid, candidates)
    verdicts, credible = [], []
    for candidate in candidates:
        verdict = known.verdict(candidate)
        if verdict is None:
            credible.append(_relation(installation_uuid, candidate))
            known.add(credible[-1])
        verdicts.append(verdict or Verdict(RECORDED))
    if credible:
        _record_claims(connection, locked, credible)
    return verdicts


@dataclass(frozen=True)
class _Known:
    """The recorded data about the images and instances of some candidates.

    :ivar made: the relations of each image with the instance from which it was made
    :ivar owners: the project that owns each instance; if that is unknown, the project that owns the
        oldest image made from it
    """

    installation_uuid: str
    made: dict[str, list[Relation | NewRelation]]
    owners: dict[str, str | None]

    def verdict(self, candidate: Candidate) -> Verdict | None:
        """Return why the candidate cannot be recorded, or ``None`` if it can."""
        made = [row for row in self.made.get(candidate.image_id, ()) if _is_same(row, candidate)]
        if made:
            return _compare(made, self.installation_uuid, candidate)
        owner = candidate.project_id or self.owners.get(candidate.instance_id)
        if owner is not None and owner != candidate.owner:
            return Verdict(DOUBTED, "its server belongs to another project")
        return None

    def add(self, new: NewRelation) -> None:
        """Add a relation that will be recorded; the following candidates are compared with it."""
        self.made[new.image_id] = [new]
        self.owners[new.instance.instance_id] = new.project_id


def _known(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> _Known:
    made: dict[str, list[Relation | NewRelation]] = {}
    for row in relation_queries.made(connection, {one.image_id for one in candidates}):
        made.setdefault(row.image_id, []).append(row)
    instances = {one.instance_id for one in candidates}
    return _Known(installation_uuid, made, _find_owners(connection, installation_uuid, instances))


_oldest_owner: Final = (
    select(project.c.project_id)
    .select_from(relation.join(project, relation.c.project_ref == project.c.id))
    .where(relation.c.instance_ref == instance.c.id, relation.c.kind.in_(MADE_FROM))
    .order_by(relation.c.created_at, relation.c.id)
    .limit(1)
    .correlate(instance)
    .scalar_subquery()
)
_owners: Final = (
    select(instance.c.instance_id, func.coalesce(project.c.project_id, _oldest_owner))
    .select_from(instance.outerjoin(project, instance.c.project_ref == project.c.id))
    .where(instance.c.installation_ref == INSTALLATION_REF)
    .where(instance.c.instance_id.in_(bindparam("instance_ids", expanding=True)))
)


def _of_servers(installation_uuid: str) -> dict[str, str]:
    """Return the parameters of :data:`related_images.db.row_ids.OF_TYPE` for servers."""
    return {"named_uuid": installation_uuid, "named_type": SERVER}


def _find_owners(
    connection: Connection, installation_uuid: str, instance_ids: Collection[str]
) -> dict[str, str | None]:
    """Return the ``owners`` of :class:`_Known` for the recorded instances among these."""
    values = {**_of_servers(installation_uuid), "instance_ids": list(instance_ids)}
    return {row[0]: row[1] for row in connection.execute(_owners, values)}


def _is_same(row: Relation | NewRelation, candidate: Candidate) -> bool:
    """Return whether the relation is of this image, not of another image that had its ID before."""
    known_at = row.image_created_at if isinstance(row, Relation) else None
    return known_at in (None, candidate.created_at)


def _compare(
    made: Sequence[Relation | NewRelation], installation_uuid: str, candidate: Candidate
) -> Verdict:
    """Return the verdict on a candidate whose image has the relations ``made``."""
    claimed = InstanceRef(installation_uuid, candidate.instance_id)
    # Nova's properties call the image of a shelved server, and a backup by createImage, a snapshot
    kinds = MADE_FROM if candidate.kind == SNAPSHOT else (candidate.kind,)
    if any(row.instance == claimed and row.kind in kinds for row in made):
        return Verdict(KNOWN)
    row = made[0]
    return Verdict(
        DOUBTED,
        f"it is recorded as a {row.kind} of the {row.instance} ({row.source})",
    )


def _relation(installation_uuid: str, candidate: Candidate) -> NewRelation:
    return NewRelation(
        InstanceRef(installation_uuid, candidate.instance_id),
        candidate.image_id,
        candidate.kind,
        candidate.label,
        BACKFILL,
        candidate.owner,
        candidate.created_at,
        instance_project_id=candidate.project_id,
        image_state=ImageState(candidate.created_at, candidate.owner),
    )


_Times = Mapping[tuple[str, str], datetime]
"""The time of the latest image by server ID and kind."""


@dataclass(frozen=True)
class _LockedRows:
    """The existing rows of the candidates, locked until the transaction ends.

    :ivar installation_ref: the row of the installation, if it exists
    :ivar images: the rows by image ID
    :ivar instances: the rows by server ID
    """

    installation_ref: int | None
    images: Mapping[str, int]
    instances: Mapping[str, int]


def _lock(
    connection: Connection,
    installation_uuid: str,
    image_ids: Collection[str],
    instance_ids: Collection[str],
) -> _LockedRows:
    """Lock the existing rows of the images and of the instances of the installation."""
    home = connection.execute(select(INSTALLATION_REF), _of_servers(installation_uuid)).scalar()
    of_installation = instance.c.installation_ref == home
    return _LockedRows(
        home,
        _refs(connection, image.c.uuid, image_ids, lock=True),
        _refs(connection, instance.c.instance_id, instance_ids, of_installation, lock=True),
    )


def _refs(
    connection: Connection,
    column: Column[Any],
    values: Iterable[str | None],
    *conditions: ColumnElement[bool],
    lock: bool = False,
) -> dict[str, int]:
    """Return the primary keys of the rows with one of the ``values`` in the ``column``."""
    number = column.table.c.id
    wanted = {value for value in values if value is not None}
    if not wanted:
        return {}
    # sorted by an expression: for `ORDER BY id`, some planners scan the primary key
    query = select(column, number).where(column.in_(wanted), *conditions).order_by(number + 0)
    if lock:
        query = query.with_for_update(key_share=True)
    return {row[0]: row[1] for row in connection.execute(query)}


def _record_claims(connection: Connection, locked: _LockedRows, new: Sequence[NewRelation]) -> None:
    """Record relations of existing images, one for each image, in one installation.

    :param locked: the result of :func:`_lock` in this transaction
    """
    without_owner = [one for one in new if one.instance_project_id is None]
    of_new_images = [one for one in without_owner if one.image_id not in locked.images]
    started = _started(connection, locked.instances.values())
    bulk = [
        one
        for one in of_new_images
        if locked.instances.get(one.instance.instance_id) not in started
    ]
    if bulk:
        _record_bulk(connection, locked, bulk)
    done = {one.image_id for one in bulk}
    for one in new:
        if one.image_id not in done:
            relations.record(connection, one, relied_on=True)


def _started(connection: Connection, instance_refs: Collection[int]) -> Collection[int]:
    """Return those instances that have a ``boot`` relation or an origin.

    Their images may have a parent.
    """
    if not instance_refs:
        return ()
    starts = select(relation.c.instance_ref).where(
        relation.c.instance_ref.in_(instance_refs), relation.c.kind == BOOT
    )
    origins = select(origin.c.instance_ref).where(origin.c.instance_ref.in_(instance_refs))
    return set(connection.execute(starts.union(origins)).scalars())


def _record_bulk(connection: Connection, locked: _LockedRows, new: Sequence[NewRelation]) -> None:
    _update_latest(connection, locked, new)
    home = locked.installation_ref or get_or_create_installation(
        connection, new[0].instance.installation_uuid
    )
    unknown = [one for one in new if one.instance.instance_id not in locked.instances]
    if unknown:
        connection.execute(insert(instance), _instance_rows(home, unknown))
    connection.execute(insert(image), [_image_row(one) for one in new])
    of_installation = instance.c.installation_ref == home
    added = (one.instance.instance_id for one in unknown)
    added_refs = _refs(connection, instance.c.instance_id, added, of_installation)
    instances = {**locked.instances, **added_refs}
    images = _refs(connection, image.c.uuid, (one.image_id for one in new))
    projects = _projects(connection, {one.project_id for one in new})
    rows = [
        _relation_row(one, images[one.image_id], instances[one.instance.instance_id], projects)
        for one in new
    ]
    connection.execute(insert(relation), rows)


def _image_row(new: NewRelation) -> dict[str, Any]:
    return {
        "uuid": new.image_id,
        "created_at": new.image_state.created_at if new.image_state else EPOCH,
    }


def _update_latest(connection: Connection, locked: _LockedRows, new: Iterable[NewRelation]) -> None:
    times: dict[str, dict[int, datetime]] = {}
    for (instance_id, kind), at in _latest(new).items():
        if instance_id in locked.instances:
            times.setdefault(kind, {})[locked.instances[instance_id]] = at
    for kind, times_by_ref in times.items():
        latest_images.advance_many(connection, kind, times_by_ref)


def _projects(connection: Connection, wanted: Collection[str | None]) -> Mapping[str | None, int]:
    """Return the primary keys of the projects, and create the missing ones."""
    refs: dict[str | None, int] = {}
    refs.update(_refs(connection, project.c.project_id, wanted))
    for name in sorted(name for name in wanted if name is not None and name not in refs):
        refs[name] = get_or_create(connection, project, {"project_id": name})[0]
    return refs


def _latest(new: Iterable[NewRelation]) -> _Times:
    found: dict[tuple[str, str], datetime] = {}
    for one in new:
        key = (one.instance.instance_id, one.kind)
        found[key] = max(found.get(key, one.created_at), one.created_at)
    return found


def _instance_rows(home: int, new: Iterable[NewRelation]) -> list[dict[str, Any]]:
    times = _latest(new)
    return [
        {
            "installation_ref": home,
            "instance_id": name,
            **{column.name: times.get((name, kind), EPOCH) for kind, column in LATEST.items()},
        }
        for name in sorted({name for name, _ in times})
    ]


def _relation_row(
    new: NewRelation, image_ref: int, instance_ref: int, projects: Mapping[str | None, int]
) -> dict[str, Any]:
    return {
        "image_ref": image_ref,
        "instance_ref": instance_ref,
        "project_ref": projects.get(new.project_id),
        "kind": new.kind,
        "label": new.label,
        "source": new.source,
        "created_at": new.created_at,
        "claimed": relations.FOR_GOOD,
    }
