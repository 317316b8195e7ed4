"""The parent of each image, in the table :data:`related_images.db.tables.descent`.

The parent of an image is the image from which its instance was last started before the image was
made; if no such start is recorded, it is the image of the first start. The parent of an image whose
instance has no start of its own is found through the origins of the instance, at most
:data:`STEPS` of them: it is the image from which the source was last started before the instance
was made from the source. A server shares the content of its root volume, so the starts of that
volume until the image was made count.

The links are derived from the relations and origins. They are stored when a relation or an origin
is recorded or removed, so that the cost of a query grows with its result.

A transaction that records an image shares a lock on the row of the instance, through its foreign
key. A transaction that records a start or an origin locks that row exclusively, and then the rows
of all instances that come from it, level by level. So the later of two concurrent transactions
sees the changes of the other one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    case,
    delete,
    exists,
    insert,
    literal_column,
    select,
    union_all,
    update,
)

from related_images.db.tables import (
    descent,
    installation,
    instance,
    origin,
    rebuild,
    relation,
)
from related_images.model import BOOT, MADE_FROM, NOTIFICATION, SERVER, NewRelation, Recorded

TIMELY: Final = NOTIFICATION
"""The source that reports the time of a start; other sources report a start at a later time."""


STEPS: Final = 100
"""The largest number of origins between a resource and a resource that was made from an image."""

BATCH: Final = 1000
"""The number of instances in one statement."""


@dataclass(frozen=True, order=True, slots=True)
class Start:
    """A start of an instance from an image; starts sort by time.

    :ivar project_ref: the project that sees the start
    """

    at: datetime
    relation_ref: int
    image_ref: int
    project_ref: int | None = field(default=None, compare=False)


@dataclass(frozen=True, order=True, slots=True)
class Origin:
    """An origin of an instance; origins of an instance sort by time.

    :ivar source_ref: ``None`` if the instance has no source
    :ivar project_ref: the project that sees the origin
    """

    at: datetime
    source_ref: int | None = field(compare=False)
    project_ref: int | None = field(compare=False)


Event = TypeVar("Event", Start, Origin)


@dataclass(frozen=True, slots=True)
class History:
    """What an instance was made from: its starts and its origins."""

    starts: list[Start] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    def add(self, row: Any) -> None:
        """Add a row of :func:`events`."""
        if row.relation_ref:
            self.starts.append(Start(row.at, row.relation_ref, row.image_ref, row.project_ref))
        else:
            self.origins.append(Origin(row.at, row.source_ref, row.project_ref))


@dataclass(frozen=True, slots=True)
class Trace:
    """The way from an instance through its origins to the start that made its content.

    :ivar passed: the primary keys of the instances on the way, the instance itself first
    :ivar viewers: the projects that see the start and the origins
    """

    start: Start
    passed: Sequence[int]
    viewers: Collection[int | None]


_INSTANCE: Final = bindparam("instance", type_=relation.c.instance_ref.type)
_NOTHING: Final[Any] = literal_column("0")
"""Stands for a primary key in a row of another table."""


def events(of: Callable[[Select[Any], Any], Select[Any]]) -> CompoundSelect[Any]:
    """Return the query for what some instances were made from, for :meth:`History.add`.

    :param of: takes a query and its column with the primary keys of instances, and restricts the
        query to the instances
    """
    shown = (relation.c.id.label("relation_ref"), relation.c.image_ref)
    start = (relation.c.instance_ref, *shown, _NOTHING.label("source_ref"), relation.c.project_ref)
    is_boot = relation.c.kind == BOOT
    at = relation.c.created_at.label("at")
    rebuilt = select(rebuild.c.started_at, *start).where(rebuild.c.relation_ref == relation.c.id)
    nothing = (_NOTHING.label("relation_ref"), _NOTHING.label("image_ref"))
    come = (origin.c.instance_ref, *nothing, origin.c.source_ref, origin.c.project_ref)
    return union_all(
        of(select(at, *start).where(is_boot), relation.c.instance_ref),
        of(rebuilt.where(is_boot), relation.c.instance_ref),
        of(select(origin.c.since, *come), origin.c.instance_ref),
    )


_history: Final = events(lambda query, ref: query.where(ref == _INSTANCE))
_is_server: Final = (
    select(installation.c.resource_type == SERVER)
    .join(instance, instance.c.installation_ref == installation.c.id)
    .where(instance.c.id == _INSTANCE)
)
_viewer: Final = case((relation.c.project_ref == instance.c.project_ref, relation.c.project_ref))
"""The project that owns both the image and the instance, and so sees the link; else null."""
_with_instance: Final = relation.join(instance, instance.c.id == relation.c.instance_ref)
_made: Final[Select[Any]] = (
    select(
        relation.c.id,
        relation.c.image_ref,
        _viewer.label("project_ref"),
        relation.c.kind,
        relation.c.created_at,
    )
    .select_from(_with_instance)
    .where(relation.c.instance_ref == _INSTANCE, relation.c.kind.in_(MADE_FROM))
)
_instance_locked: Final = (
    select(instance.c.project_ref).where(instance.c.id == _INSTANCE).with_for_update()
)


def in_force(events: Sequence[Event], at: datetime) -> Event | None:
    """Return the last of the ``events`` up to the time ``at``, or else the first one."""
    before = [event for event in events if event.at <= at]
    return max(before) if before else min(events, default=None)


def is_rebuild(starts: Sequence[Start], start: Start, source: str) -> bool:
    """Return whether ``start`` is a rebuild, if the instance was started from its image before.

    If the source reports the time of its report instead, it is a rebuild only if the instance was
    started from another image in between.

    :param starts: the other starts of the instance
    """
    before = in_force(starts, start.at)
    return source == TIMELY or (before is not None and before.image_ref != start.image_ref)


def lock_instance(connection: Connection, instance_ref: int) -> int | None:
    """Lock the row of the instance exclusively until the transaction ends.

    :returns: the primary key of the project that owns the instance, if that is known
    """
    return connection.execute(_instance_locked, {"instance": instance_ref}).scalar()


def follow(connection: Connection, new: NewRelation, recorded: Recorded) -> None:
    """Update the links after the relation ``new`` was recorded in this transaction."""
    if new.kind == BOOT:
        if recorded.created or _record_rebuild(connection, new, recorded):
            refresh(connection, recorded.instance_ref)
            if new.instance.resource_type != SERVER:  # nothing comes from a server
                refresh_below(connection, recorded.instance_ref)
    elif recorded.created and not recorded.instance_created:
        history = _history_of(connection, recorded.instance_ref)
        if history.starts or history.origins:
            made = _made.where(relation.c.id == recorded.relation_ref)
            image = connection.execute(made, {"instance": recorded.instance_ref}).all()
            _insert_links(connection, recorded.instance_ref, history, image)


def refresh(connection: Connection, instance_ref: int) -> None:
    """Compute the links of all images of an instance again."""
    made = connection.execute(_made, {"instance": instance_ref}).all()
    if not made:
        return
    # not with a subquery: for a deletion or an update, MariaDB would read the whole table
    for some in in_batches([image.id for image in made]):
        connection.execute(delete(descent).where(descent.c.relation_ref.in_(some)))
    _insert_links(connection, instance_ref, _history_of(connection, instance_ref), made)


def refresh_below(connection: Connection, instance_ref: int) -> None:
    """Compute the links again for all instances that come from an instance.

    :param instance_ref: the instance, whose row the caller has locked
    """
    for some in in_batches(_lock_below(connection, instance_ref)):
        made = relation.c.instance_ref.in_(some), relation.c.kind.in_(MADE_FROM)
        with_images = select(relation.c.instance_ref).where(*made).distinct()
        for ref in connection.execute(with_images).scalars().all():
            refresh(connection, ref)


def _lock_below(connection: Connection, instance_ref: int) -> Collection[int]:
    """Lock all instances that come from an instance in at most :data:`STEPS` steps.

    Each level is read after the level above is locked: a concurrent transaction that records an
    origin shares a lock on the row of the source, through its foreign key.

    :returns: their primary keys
    """
    found, level = {instance_ref}, {instance_ref}
    for _ in range(STEPS):
        below: set[int] = set()
        for some in in_batches(level):
            come = select(origin.c.instance_ref).where(origin.c.source_ref.in_(some))
            below.update(connection.execute(come).scalars())
        level = below - found
        for some in in_batches(level):
            rows = select(instance.c.id).where(instance.c.id.in_(some)).order_by(instance.c.id)
            connection.execute(rows.with_for_update())
        found |= level
        if not level:
            break
    return found - {instance_ref}


def in_batches(refs: Collection[int]) -> Iterator[Sequence[int]]:
    """Yield primary keys in order, :data:`BATCH` at a time."""
    ordered = sorted(refs)
    for first in range(0, len(ordered), BATCH):
        yield ordered[first : first + BATCH]


def review(connection: Connection, relations: ColumnElement[bool]) -> None:
    """Update who sees the links of the relations that match, after an owner changed.

    Who sees a link through origins depends on the owners of all instances between.
    """
    refs = select(relation.c.id).where(relations, relation.c.kind.in_(MADE_FROM))
    viewer = select(_viewer).select_from(_with_instance)
    own = viewer.where(relation.c.id == descent.c.relation_ref).correlate(descent)
    for some in in_batches(connection.execute(refs).scalars().all()):
        links = update(descent).where(descent.c.relation_ref.in_(some))
        connection.execute(links.values(project_ref=own.scalar_subquery()))
    has_origin = exists().where(origin.c.instance_ref == relation.c.instance_ref)
    made = select(relation.c.instance_ref).where(relations, relation.c.kind.in_(MADE_FROM))
    for ref in connection.execute(made.where(has_origin).distinct()).scalars().all():
        lock_instance(connection, ref)
        refresh(connection, ref)


def _record_rebuild(connection: Connection, new: NewRelation, recorded: Recorded) -> bool:
    """Record a rebuild if a recorded start is reported again with another time.

    :returns: whether a rebuild was recorded
    """
    starts = starts_of(connection, recorded.instance_ref)
    start = Start(new.created_at, recorded.relation_ref, recorded.image_ref)
    if start in starts or not is_rebuild(starts, start, new.source):
        return False
    values = {"relation_ref": recorded.relation_ref, "started_at": new.created_at}
    connection.execute(insert(rebuild), values)
    return True


def _insert_links(
    connection: Connection, instance_ref: int, history: History, made: Sequence[Any]
) -> None:
    """Insert the links of some images of an instance, which are rows of :data:`_made`."""
    if history.starts:
        rows = [_row(image, in_force(history.starts, image.created_at)) for image in made]
    elif history.origins:
        origins = _Origins(connection, instance_ref, history)
        rows = [row for image in made if (row := origins.link(image)) is not None]
    else:
        rows = []
    if rows:
        connection.execute(insert(descent), rows)


def starts_of(connection: Connection, instance_ref: int) -> Sequence[Start]:
    """Return the starts of the instance itself, rebuilds included."""
    return _history_of(connection, instance_ref).starts


def _history_of(connection: Connection, instance_ref: int) -> History:
    history = History()
    for row in connection.execute(_history, {"instance": instance_ref}):
        history.add(row)
    return history


def trace(
    instance_ref: int, at: datetime, history_of: Callable[[int], History], *, is_server: bool
) -> Trace | None:
    """Follow the origins of an instance to the start that made its content at a time.

    :param history_of: returns the history of an instance
    :returns: ``None`` if no start is known
    """
    ref, passed, viewers = instance_ref, [instance_ref], set[int | None]()
    for step in range(STEPS + 1):
        history = history_of(ref)
        if start := in_force(history.starts, at):
            return Trace(start, passed, viewers | {start.project_ref})
        origin = in_force(history.origins, at)
        if origin is None or origin.source_ref is None or origin.source_ref in passed:
            return None
        if not (is_server and step == 0):
            at = origin.at
        viewers.add(origin.project_ref)
        ref = origin.source_ref
        passed.append(ref)
    return None


class _Origins:
    """Finds the parents of the images of an instance through its origins.

    :param history: the history of the instance, which has no start
    """

    def __init__(self, connection: Connection, instance_ref: int, history: History) -> None:
        self._connection = connection
        self._instance_ref = instance_ref
        self._histories = {instance_ref: history}
        asked = connection.execute(_is_server, {"instance": instance_ref})
        self._is_server = bool(asked.scalar_one())

    def link(self, image: Any) -> dict[str, Any] | None:
        """Return the row of the link of an image; ``None`` if it has no parent.

        A project sees the link if it owns the image and all instances on the path.
        """
        found = trace(
            self._instance_ref, image.created_at, self._history, is_server=self._is_server
        )
        if found is None:
            return None
        is_seen = {image.project_ref, *found.viewers} == {image.project_ref}
        return {**_row(image, found.start), "project_ref": image.project_ref if is_seen else None}

    def _history(self, ref: int) -> History:
        if ref not in self._histories:
            self._histories[ref] = _history_of(self._connection, ref)
        return self._histories[ref]


def _row(image: Any, start: Start | None) -> dict[str, Any]:
    return {
        "relation_ref": image.id,
        "image_ref": image.image_ref,
        "parent_ref": start and start.image_ref,
        "project_ref": image.project_ref,
        "kind": image.kind,
    }
