"""Recording what many images claim in few statements, to the same end as recording one by one.

Only what is simple goes together: images in no relation, of instances of which no start is known
and of which it is not told whose they are. Images and instances are inserted without care: who
loses against another at the same moment is run again, and finds that they are new no longer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, insert, select

from related_images.db import latest_images, relations
from related_images.db.column_types import EPOCH
from related_images.db.relations import reach
from related_images.db.row_ids import installation_ref
from related_images.db.tables import (
    LATEST,
    image,
    installation,
    instance,
    project,
    relation,
)
from related_images.model import BOOT, NewRelation

Times = Mapping[tuple[str, str], datetime]
"""When the latest image of an instance and a kind was made."""


@dataclass(frozen=True)
class Held:
    """What is known, by the names it bears outside: nobody else records anything of it now.

    ``home`` is the installation, if it is known.
    """

    home: int | None
    images: Mapping[str, int]
    instances: Mapping[str, int]


def hold(
    connection: Connection,
    installation_uuid: str,
    image_ids: Collection[str],
    instance_ids: Collection[str],
) -> Held:
    """Take hold of those of the images, and of the installation's instances, that are known."""
    home = connection.execute(select(installation_ref(installation_uuid))).scalar()
    ours = instance.c.installation_ref == home
    return Held(
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


def record_claims(connection: Connection, held: Held, new: Sequence[NewRelation]) -> None:
    """Record what images that are there claim, each once, of instances of one installation.

    :param held: what :func:`hold` gave of them in this transaction
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


def _record_together(connection: Connection, held: Held, new: Sequence[NewRelation]) -> None:
    _note_latest(connection, held, new)
    home = held.home or reach(connection, installation, {"uuid": new[0].installation_uuid})[0]
    unknown = [one for one in new if one.instance_id not in held.instances]
    if unknown:
        connection.execute(insert(instance), _instances(home, unknown))
    connection.execute(insert(image), [_image(one) for one in new])
    ours = instance.c.installation_ref == home
    made = (one.instance_id for one in unknown)
    instances = {**held.instances, **_numbers(connection, instance.c.instance_id, made, ours)}
    images = _numbers(connection, image.c.uuid, (one.image_id for one in new))
    projects = _projects(connection, {one.project_id for one in new})
    rows = [
        _relation(one, images[one.image_id], instances[one.instance_id], projects) for one in new
    ]
    connection.execute(insert(relation), rows)


def _image(new: NewRelation) -> dict[str, Any]:
    return {"uuid": new.image_id, "created_at": new.seen.created_at if new.seen else EPOCH}


def _note_latest(connection: Connection, held: Held, new: Iterable[NewRelation]) -> None:
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
        refs[name] = reach(connection, project, {"project_id": name})[0]
    return refs


def _latest(new: Iterable[NewRelation]) -> Times:
    found: dict[tuple[str, str], datetime] = {}
    for one in new:
        key = (one.instance_id, one.kind)
        found[key] = max(found.get(key, one.created_at), one.created_at)
    return found


def _instances(home: int, new: Iterable[NewRelation]) -> list[dict[str, Any]]:
    times = _latest(new)
    return [
        {
            "installation_ref": home,
            "instance_id": name,
            **{column.name: times.get((name, kind), EPOCH) for kind, column in LATEST.items()},
        }
        for name in sorted({name for name, _ in times})
    ]


def _relation(
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
