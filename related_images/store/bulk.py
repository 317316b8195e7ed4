"""Recording what many images claim in few statements, to the same end as recording one by one.

Only what is simple goes together: images in no relation, of instances of which no start is known
and of which it is not told whose they are. Images and instances are inserted without care: who
loses against another at the same moment is run again, and finds that they are new no longer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, bindparam, insert, select

from related_images.store import latest, relations
from related_images.store.lookups import BOOT
from related_images.store.refs import image_ref, installation_ref, instance_ref, project_ref
from related_images.store.relations import reach
from related_images.store.rows import NewRelation
from related_images.store.tables import LATEST, image, installation, instance, project, relation
from related_images.store.types import EPOCH

Times = Mapping[tuple[str, str], datetime]
"""When the latest image of an instance and a kind was made."""

_relate: Final = insert(relation).values(
    image_ref=image_ref(bindparam("image_id")),
    instance_ref=instance_ref(bindparam("installation_uuid"), bindparam("instance_id")),
    project_ref=project_ref(bindparam("project_id")),
)


def record_claims(
    connection: Connection, installation_uuid: str, new: Sequence[NewRelation]
) -> None:
    """Record what images that are there claim, each once, of instances of one installation."""
    home = _home(connection, installation_uuid)
    fresh = _fresh(connection, new)
    known = _hold(connection, home, fresh)
    started = _started(connection, known.values())
    together = [one for one in fresh if known.get(one.instance_id) not in started]
    if together:
        _record_together(connection, home, known, together)
    done = {one.image_id for one in together}
    for one in new:
        if one.image_id not in done:
            relations.record(connection, one, relied_on=True)


def _home(connection: Connection, installation_uuid: str) -> int:
    found = connection.execute(select(installation_ref(installation_uuid))).scalar()
    return found or reach(connection, installation, {"uuid": installation_uuid})[0]


def _fresh(connection: Connection, new: Iterable[NewRelation]) -> Sequence[NewRelation]:
    """Those whose image is in no relation, if they do not tell whose their instance is."""
    untold = [one for one in new if one.instance_project_id is None]
    unknown = _missing(connection, image.c.uuid, (one.image_id for one in untold))
    return [one for one in untold if one.image_id in unknown]


def _missing(connection: Connection, names: Column[Any], wanted: Iterable[str | None]) -> set[str]:
    """Those of the names that no row bears."""
    named = {name for name in wanted if name is not None}
    return named.difference(connection.execute(select(names).where(names.in_(named))).scalars())


def _hold(connection: Connection, home: int, new: Collection[NewRelation]) -> Mapping[str, int]:
    """The numbers of the instances that are known, which are held, and told of these images."""
    times = _latest(new)
    known = select(instance.c.instance_id, instance.c.id).where(
        instance.c.installation_ref == home,
        instance.c.instance_id.in_({instance_id for instance_id, _ in times}),
    )
    refs = {row.instance_id: row.id for row in connection.execute(known)}
    told = [(refs[name], kind, at) for (name, kind), at in times.items() if name in refs]
    for ref, kind, at in sorted(told):
        latest.advance(connection, ref, kind, at)
    return refs


def _latest(new: Iterable[NewRelation]) -> Times:
    found: dict[tuple[str, str], datetime] = {}
    for one in new:
        key = (one.instance_id, one.kind)
        found[key] = max(found.get(key, EPOCH), one.created_at)
    return found


def _started(connection: Connection, instance_refs: Collection[int]) -> Collection[int]:
    """Those of the instances of which a start is known, from which their images descend."""
    starts = select(relation.c.instance_ref).where(
        relation.c.instance_ref.in_(instance_refs), relation.c.kind == BOOT
    )
    return set(connection.execute(starts).scalars())


def _record_together(
    connection: Connection, home: int, known: Mapping[str, int], new: Sequence[NewRelation]
) -> None:
    for project_id in sorted(
        _missing(connection, project.c.project_id, [one.project_id for one in new])
    ):
        reach(connection, project, {"project_id": project_id})
    if instances := _instances(home, [one for one in new if one.instance_id not in known]):
        connection.execute(insert(instance), instances)
    connection.execute(insert(image), [{"uuid": one.image_id} for one in new])
    connection.execute(_relate, [_relation(one) for one in new])


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


def _relation(new: NewRelation) -> dict[str, Any]:
    return {
        "image_id": new.image_id,
        "installation_uuid": new.installation_uuid,
        "instance_id": new.instance_id,
        "project_id": new.project_id,
        "kind": new.kind,
        "label": new.label,
        "source": new.source,
        "created_at": new.created_at,
        "claimed": relations.FOR_GOOD,
    }
