"""Which relations and images a question is about, for the use cases that ask.

Each function takes a connection and runs one statement. A condition on something that bears a name
outside is put as a subquery for its row number, so that the index of the relations is used whatever
the database makes of joins.
"""

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)

from related_images.db import image_identity
from related_images.db.column_types import EPOCH, KIND_CODES, SOURCE_CODES, is_known
from related_images.db.row_ids import (
    former_images,
    installation_ref,
    instance_ref,
    is_instance,
    project_ref,
    shown_id,
)
from related_images.db.tables import image, installation, instance, project, relation
from related_images.model import BOOT, MADE_FROM, Filters, ListedImage, Relation, RelationPosition

_VISIBLE_TO: Final = project_ref(bindparam("visible_to"))
OWNER: Final = "owner"
OWNER_OF_EITHER: Final = "owner of either"
_SEEN_BY: Final = {
    OWNER: relation.c.project_ref == _VISIBLE_TO,
    # the instance is one row, which is asked once
    OWNER_OF_EITHER: or_(
        relation.c.project_ref == _VISIBLE_TO,
        exists().where(
            *is_instance(bindparam("installation_uuid"), bindparam("instance_id")),
            instance.c.project_ref == _VISIBLE_TO,
        ),
    ),
}
"""Which relations a project sees: its own, or besides all those of an instance that it owns."""


def image_ids(
    connection: Connection,
    installation_uuid: str,
    instance_id: str,
    kinds: Collection[str],
    label: str | None,
    limit: int,
    *,
    or_unlabelled: bool = False,
    visible_to: str | None = None,
    seen_by: str = OWNER,
) -> list[ListedImage]:
    """The images of the instance, of one of the ``kinds`` and not deleted, ``limit`` at most.

    :param or_unlabelled: whether those without a label count as if they had the ``label``
    :param visible_to: the project by whose relations alone images are found; ``None`` takes all
    :param seen_by: which relations these are: :data:`OWNER` or :data:`OWNER_OF_EITHER`
    """
    values = {
        "installation_uuid": installation_uuid,
        "instance_id": instance_id,
        "label": label,
        "limit": limit,
        "visible_to": visible_to,
    }
    asked = _listed(
        tuple(kinds),
        labelled=label is not None,
        or_unlabelled=or_unlabelled,
        seen_by=None if visible_to is None else seen_by,
    )
    return [ListedImage(*row) for row in connection.execute(asked, values).all()]


@cache
def _listed(
    kinds: tuple[str, ...], *, labelled: bool, or_unlabelled: bool, seen_by: str | None
) -> Select[Any]:
    asked = (
        select(image.c.uuid, image.c.created_at, image_identity.FIRST_RECORDED)
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(
            relation.c.instance_ref
            == instance_ref(bindparam("installation_uuid"), bindparam("instance_id"))
        )
        # each spelled out: a list of values is put into the statement anew at each execution
        .where(relation.c.kind.in_([literal(kind, relation.c.kind.type) for kind in kinds]))
        .where(image.c.deleted_at.is_(None))
    )
    if labelled:
        has_label = relation.c.label == bindparam("label")
        asked = asked.where(
            or_(has_label, relation.c.label.is_(None)) if or_unlabelled else has_label
        )
    if seen_by is not None:
        asked = asked.where(_SEEN_BY[seen_by])
    return asked.group_by(image.c.uuid, image.c.created_at).limit(bindparam("limit"))


def find(
    connection: Connection,
    filters: Filters,
    limit: int,
    after: RelationPosition | None = None,
    *,
    of_any_source: bool = False,
) -> list[Relation]:
    """At most ``limit`` relations, newest first, from behind the position ``after``.

    :param of_any_source: give those too whose source this version does not know; it is then
        :data:`related_images.db.column_types.UNKNOWN`
    """
    given = {
        it.name: getattr(filters, it.name)
        for it in fields(filters)
        if it.name != "in_use" and getattr(filters, it.name) is not None
    }
    asked = _page(frozenset(given), filters.in_use, of_any_source, after is not None)
    place = {_AFTER + it.name: getattr(after, it.name) for it in fields(after)} if after else {}
    values = {**given, **place, "limit": limit}
    return [_relation(row) for row in connection.execute(asked, values)]


_AFTER: Final = "after_"
"""Begins the names of the parameters that say where a page begins."""


@lru_cache(maxsize=256)
def _page(
    names: frozenset[str], in_use: bool | None, of_any_source: bool, is_later: bool
) -> Select[Any]:
    """The statement for a page, made once for the ``names`` of the filters that have a value."""
    parameters: Any = {name: bindparam(name) for name in names}
    filters = Filters(**parameters, in_use=in_use)
    asked = select(relation).where(*conditions(filters, of_any_source=of_any_source))
    if is_later:
        place: Any = {it.name: bindparam(_AFTER + it.name) for it in fields(RelationPosition)}
        asked = asked.where(_behind(RelationPosition(**place), filters.visible_to))
    newest_first = asked.order_by(*_newest_first(relation.c))
    return _named(newest_first.limit(bindparam("limit")).subquery())


def at(connection: Connection, ref: int) -> Relation:
    """The relation that has this row."""
    page = select(relation).where(relation.c.id == ref).subquery()
    return _relation(connection.execute(_named(page)).one())


def _relation(row: Any) -> Relation:
    found = Relation(*row)
    return replace(found, image_created_at=None) if found.image_created_at == EPOCH else found


def _newest_first(columns: Any) -> tuple[Any, ...]:
    return columns.created_at.desc(), columns.id.desc()


def _named(page: Subquery) -> Select[Any]:
    """The relations of a page with the names of what they refer to.

    A page is made before it is joined, or MariaDB begins with the installations, which are few.
    """
    return (
        select(
            installation.c.uuid,
            instance.c.instance_id,
            shown_id(),
            page.c.kind,
            page.c.label,
            page.c.source,
            project.c.project_id,
            page.c.created_at,
            image.c.created_at,
            image.c.deleted_at,
        )
        .select_from(
            page.join(instance, page.c.instance_ref == instance.c.id)
            .join(installation, instance.c.installation_ref == installation.c.id)
            .join(image, page.c.image_ref == image.c.id)
            .outerjoin(project, page.c.project_ref == project.c.id)
        )
        .order_by(*_newest_first(page.c))
    )


_made: Final = _named(
    select(relation)
    .where(
        relation.c.image_ref.in_(
            select(image.c.id).where(image.c.uuid.in_(bindparam("image_ids", expanding=True)))
        )
    )
    .where(relation.c.kind.in_(MADE_FROM))
    .subquery()
)


def made(connection: Connection, image_ids: Collection[str]) -> list[Relation]:
    """From which instances the images were made, the newest relation first."""
    found = connection.execute(_made, {"image_ids": list(image_ids)})
    return [_relation(row) for row in found]


def _behind(last: RelationPosition, visible_to: str | None) -> ColumnElement[bool]:
    """Older than the ``last``, or as old and numbered before it.

    If that relation is gone by now, all that are as old come again: rather twice than never. One
    that ``visible_to`` may not see is as good as gone, or a made-up position would tell of it.
    """
    ref = (
        select(func.max(relation.c.id))
        .where(_is_of_image(last.image_id))
        .where(relation.c.instance_ref == instance_ref(last.installation_uuid, last.instance_id))
        .where(relation.c.kind == last.kind, relation.c.created_at == last.created_at)
    )
    if visible_to is not None:
        ref = ref.where(relation.c.project_ref == project_ref(visible_to))
    at, beyond_all = relation.c.created_at, 2**62
    return (at <= last.created_at) & or_(
        at < last.created_at, relation.c.id < func.coalesce(ref.scalar_subquery(), beyond_all)
    )


def conditions(filters: Filters, *, of_any_source: bool) -> list[ColumnElement[bool]]:
    """What a relation must fulfil, among that to be of a kind that this version knows.

    :param of_any_source: whether its source may be one that this version does not know
    :returns: conditions on the columns of the relations
    """
    at = relation.c.created_at
    given: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (filters.image_id, _is_of_image),
        (filters.label, lambda label: relation.c.label == label),
        (filters.project_id, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.visible_to, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.created_after, lambda time: at > time),
        (filters.created_before, lambda time: at < time),
        (filters.in_use, lambda wanted: _is_use() if wanted else ~_is_use()),
    ]
    conditions = [condition(value) for value, condition in given if value is not None]
    conditions.append(_is(filters.kind, relation.c.kind, KIND_CODES))
    if filters.source is not None or not of_any_source:
        conditions.append(_is(filters.source, relation.c.source, SOURCE_CODES))
    return conditions + of_instance(filters, relation.c.instance_ref)


def _is(word: str | None, column: ColumnElement[str], codes: dict[str, int]) -> ColumnElement[bool]:
    """Whether the column holds the word; any known word if ``word`` is ``None``."""
    return is_known(column, codes) if word is None else column == word


def _is_of_image(image_id: str) -> ColumnElement[bool]:
    """Whether a relation is of an image that has the ID, or had it before."""
    has_it = select(image.c.id).where(image.c.uuid == image_id)
    return relation.c.image_ref.in_(union_all(has_it, former_images(image_id)))


def _is_use() -> ColumnElement[bool]:
    """Whether a live instance was started from the image.

    The instance is asked for one by one, or MariaDB begins with all that live.
    """
    ended_at = select(instance.c.ended_at).where(instance.c.id == relation.c.instance_ref)
    return and_(relation.c.kind == BOOT, ended_at.scalar_subquery().is_(None))


def of_instance(filters: Filters, ref: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """What the instance that ``ref`` numbers must fulfil."""
    uuid, id = filters.installation_uuid, filters.instance_id
    if uuid is not None and id is not None:
        return [ref == instance_ref(uuid, id)]
    if id is not None:
        return [ref.in_(select(instance.c.id).where(instance.c.instance_id == id))]
    if uuid is not None:
        ours = select(instance.c.id).where(instance.c.installation_ref == installation_ref(uuid))
        return [ref.in_(ours)]
    return []
