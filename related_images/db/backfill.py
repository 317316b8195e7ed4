"""Recording what was claimed before there was a filter, where nothing that is known contradicts.

What is credible goes into few statements, to the same end as recording one by one. Only what is
simple goes together: images in no relation, of instances of which no start is known and of which it
is not told whose they are. Images and instances are inserted without care: who loses against
another at the same moment is run again, and finds that they are new no longer.
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
from related_images.db.row_ids import get_or_create, installation_ref
from related_images.db.tables import LATEST, image, installation, instance, project, relation
from related_images.model import (
    BACKFILL,
    BOOT,
    MADE_FROM,
    ImageState,
    NewRelation,
    Relation,
)

POSITION: Final = "backfill-position:"
"""Begins the row of the state that remembers how far a backfill came."""

RECORDED: Final = "recorded"
KNOWN: Final = "known"
DOUBTED: Final = "doubted"


@dataclass(frozen=True)
class Candidate:
    """An image that may have been made from an instance of ``project_id``, as far as is known."""

    image_id: str
    owner: str
    instance_id: str
    kind: str
    label: str | None
    created_at: datetime
    project_id: str | None


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate, and why."""

    outcome: str
    reason: str | None = None


def position(database: Database, installation_uuid: str) -> str | None:
    """How far an unfinished backfill of this installation came."""
    return database.read(stored_state.get, POSITION + installation_uuid)


def finish(database: Database, installation_uuid: str) -> None:
    """Let the next backfill begin anew."""
    database.write(stored_state.drop, POSITION + installation_uuid)


def judge(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """What would become of the candidates, each taken alone; nothing is recorded.

    :raises StoreUnavailable: if the database cannot answer
    """
    known = database.read(_known, installation_uuid, candidates)
    return [known.verdict(one) or Verdict(RECORDED) for one in candidates]


def record(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """Record the candidates that nothing contradicts, in one transaction.

    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_record, installation_uuid, candidates)


def remember(database: Database, installation_uuid: str, position: str) -> None:
    """Remember how far the backfill came."""
    database.write(stored_state.put, POSITION + installation_uuid, position)


def _record(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    images = {one.image_id for one in candidates}
    instances = {one.instance_id for one in candidates}
    held = _hold(connection, installation_uuid, images, instances)
    known = _known(connection, installation_uuid, candidates)
    verdicts, credible = [], []
    for candidate in candidates:
        verdict = known.verdict(candidate)
        if verdict is None:
            credible.append(_relation(installation_uuid, candidate))
            known.add(credible[-1])
        verdicts.append(verdict or Verdict(RECORDED))
    if credible:
        _record_claims(connection, held, credible)
    return verdicts


@dataclass(frozen=True)
class _Known:
    """What is known of the images and the instances of some candidates, by their ids.

    Of an instance that is whose it is, else whose the oldest image is that was made from it.
    """

    installation_uuid: str
    made: dict[str, list[Relation | NewRelation]]
    owners: dict[str, str | None]

    def verdict(self, candidate: Candidate) -> Verdict | None:
        """What contradicts the candidate, or that it is known; ``None`` if it may be recorded."""
        made = [row for row in self.made.get(candidate.image_id, ()) if _is_same(row, candidate)]
        if made:
            return _against(made, self.installation_uuid, candidate)
        owner = candidate.project_id or self.owners.get(candidate.instance_id)
        if owner is not None and owner != candidate.owner:
            return Verdict(DOUBTED, "its instance belongs to another project")
        return None

    def add(self, new: NewRelation) -> None:
        """Let what is to be recorded be known to the candidates behind it."""
        self.made[new.image_id] = [new]
        self.owners[new.instance_id] = new.project_id


def _known(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> _Known:
    made: dict[str, list[Relation | NewRelation]] = {}
    for row in relation_queries.made(connection, {one.image_id for one in candidates}):
        made.setdefault(row.image_id, []).append(row)
    instances = {one.instance_id for one in candidates}
    return _Known(installation_uuid, made, _owners_of(connection, installation_uuid, instances))


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
    .where(instance.c.installation_ref == installation_ref(bindparam("installation_uuid")))
    .where(instance.c.instance_id.in_(bindparam("instance_ids", expanding=True)))
)


def _owners_of(
    connection: Connection, installation_uuid: str, instance_ids: Collection[str]
) -> dict[str, str | None]:
    """Whose each known instance is, else whose the oldest image is that was made from it."""
    named = {"installation_uuid": installation_uuid, "instance_ids": list(instance_ids)}
    return {row[0]: row[1] for row in connection.execute(_owners, named)}


def _is_same(row: Relation | NewRelation, candidate: Candidate) -> bool:
    """Whether a relation is of this image, and not of another that had its ID before."""
    known_at = row.image_created_at if isinstance(row, Relation) else None
    return known_at in (None, candidate.created_at)


def _against(
    made: Sequence[Relation | NewRelation], installation_uuid: str, candidate: Candidate
) -> Verdict:
    """The claim beside what is recorded of the image."""
    claimed = (installation_uuid, candidate.instance_id, candidate.kind)
    if any((row.installation_uuid, row.instance_id, row.kind) == claimed for row in made):
        return Verdict(KNOWN)
    row = made[0]
    return Verdict(
        DOUBTED,
        f"it is recorded as a {row.kind} of the instance {row.instance_id} of "
        f"{row.installation_uuid} ({row.source})",
    )


def _relation(installation_uuid: str, candidate: Candidate) -> NewRelation:
    return NewRelation(
        installation_uuid,
        candidate.instance_id,
        candidate.image_id,
        candidate.kind,
        candidate.label,
        BACKFILL,
        candidate.owner,
        candidate.created_at,
        instance_project_id=candidate.project_id,
        seen=ImageState(candidate.created_at, candidate.owner),
    )


_Times = Mapping[tuple[str, str], datetime]
"""When the latest image of an instance and a kind was made."""


@dataclass(frozen=True)
class _Held:
    """What is known, by the names it bears outside: nobody else records anything of it now.

    ``home`` is the installation, if it is known.
    """

    home: int | None
    images: Mapping[str, int]
    instances: Mapping[str, int]


def _hold(
    connection: Connection,
    installation_uuid: str,
    image_ids: Collection[str],
    instance_ids: Collection[str],
) -> _Held:
    """Take hold of those of the images, and of the installation's instances, that are known."""
    home = connection.execute(select(installation_ref(installation_uuid))).scalar()
    ours = instance.c.installation_ref == home
    return _Held(
        home,
        _numbers(connection, image.c.uuid, image_ids, is_held=True),
        _numbers(connection, instance.c.instance_id, instance_ids, ours, is_held=True),
    )


def _numbers(
    connection: Connection,
    names: Column[Any],
    wanted: Iterable[str | None],
    *conditions: ColumnElement[bool],
    is_held: bool = False,
) -> dict[str, int]:
    """The numbers of the rows that bear one of the names."""
    number = names.table.c.id
    named = {name for name in wanted if name is not None}
    if not named:
        return {}
    # by an expression: else some planner looks through all rows for the sake of their order
    asked = select(names, number).where(names.in_(named), *conditions).order_by(number + 0)
    if is_held:
        asked = asked.with_for_update(key_share=True)
    return {row[0]: row[1] for row in connection.execute(asked)}


def _record_claims(connection: Connection, held: _Held, new: Sequence[NewRelation]) -> None:
    """Record what images that are there claim, each once, of instances of one installation.

    :param held: what :func:`_hold` gave of them in this transaction
    """
    untold = [one for one in new if one.instance_project_id is None]
    fresh = [one for one in untold if one.image_id not in held.images]
    started = _started(connection, held.instances.values())
    together = [one for one in fresh if held.instances.get(one.instance_id) not in started]
    if together:
        _record_together(connection, held, together)
    done = {one.image_id for one in together}
    for one in new:
        if one.image_id not in done:
            relations.record(connection, one, relied_on=True)


def _started(connection: Connection, instance_refs: Collection[int]) -> Collection[int]:
    """Those of the instances of which a start is known, from which their images descend."""
    if not instance_refs:
        return ()
    starts = select(relation.c.instance_ref).where(
        relation.c.instance_ref.in_(instance_refs), relation.c.kind == BOOT
    )
    return set(connection.execute(starts).scalars())


def _record_together(connection: Connection, held: _Held, new: Sequence[NewRelation]) -> None:
    _note_latest(connection, held, new)
    home = (
        held.home or get_or_create(connection, installation, {"uuid": new[0].installation_uuid})[0]
    )
    unknown = [one for one in new if one.instance_id not in held.instances]
    if unknown:
        connection.execute(insert(instance), _instance_rows(home, unknown))
    connection.execute(insert(image), [_image_row(one) for one in new])
    ours = instance.c.installation_ref == home
    made = (one.instance_id for one in unknown)
    instances = {**held.instances, **_numbers(connection, instance.c.instance_id, made, ours)}
    images = _numbers(connection, image.c.uuid, (one.image_id for one in new))
    projects = _projects(connection, {one.project_id for one in new})
    rows = [
        _relation_row(one, images[one.image_id], instances[one.instance_id], projects)
        for one in new
    ]
    connection.execute(insert(relation), rows)


def _image_row(new: NewRelation) -> dict[str, Any]:
    return {"uuid": new.image_id, "created_at": new.seen.created_at if new.seen else EPOCH}


def _note_latest(connection: Connection, held: _Held, new: Iterable[NewRelation]) -> None:
    times: dict[str, dict[int, datetime]] = {}
    for (name, kind), at in _latest(new).items():
        if name in held.instances:
            times.setdefault(kind, {})[held.instances[name]] = at
    for kind, of_instances in times.items():
        latest_images.advance_many(connection, kind, of_instances)


def _projects(connection: Connection, wanted: Collection[str | None]) -> Mapping[str | None, int]:
    """The numbers of the projects, which are made where they are not there."""
    refs: dict[str | None, int] = {}
    refs.update(_numbers(connection, project.c.project_id, wanted))
    for name in sorted(name for name in wanted if name is not None and name not in refs):
        refs[name] = get_or_create(connection, project, {"project_id": name})[0]
    return refs


def _latest(new: Iterable[NewRelation]) -> _Times:
    found: dict[tuple[str, str], datetime] = {}
    for one in new:
        key = (one.instance_id, one.kind)
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
