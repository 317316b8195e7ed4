"""Reconciliation: compare the relations with the images in Glance, and correct them.

An image that Glance does not have is marked deleted. It may have been deleted, or it was never
created; the mark is right in both cases. A marked image is in no image list, remains in the
lineage, and loses the mark if Glance has the image again.

A relation is removed in one case only: a service announced it before a request to create an image,
but the image had existed before, so that this request did not create it.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)

from related_images import failpoints
from related_images.db import image_identity, image_owners, latest_images, orphans, stored_state
from related_images.db.column_types import EPOCH, UtcDateTime
from related_images.db.database import Database
from related_images.db.image_identity import CLOCKS_APART, HAS_ID
from related_images.db.relations import NO_CREATOR
from related_images.db.row_ids import get_or_create, get_or_create_project
from related_images.db.tables import descent, image, project, relation
from related_images.errors import UntrustedGlanceAnswer
from related_images.failpoints import Point
from related_images.model import MADE_FROM, SERVICE, ImageState
from related_images.prefetch import prefetch

BATCH: Final = 32
"""The number of images in one request to Glance: the URL and a token must fit into uWSGI's default
request buffer of 4 KiB."""

POSITION: Final = "reconciliation-position"
"""The name under which the position of an unfinished reconciliation is stored."""

INSTANCES: Final = 500
"""The number of instances that one statement checks."""

PROOF: Final = 10
"""If Glance has none of at least this number of recorded images, it may belong to another cloud."""


class ImageService(Protocol):
    """The images of Glance, as an administrator sees them.

    Every method raises if the response is not conclusive.
    """

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        """Return the creation time and owner of those images that exist, by image ID."""

    def is_gone(self, image_id: str) -> bool:
        """Return whether Glance responds that this image does not exist."""

    def is_empty(self) -> bool:
        """Return whether Glance has no images."""


@dataclass
class Counts:
    """The counts of a reconciliation.

    :ivar checked: images that were compared with Glance
    :ivar present: images that Glance has
    :ivar marked_deleted: images that were marked deleted
    :ivar restored: images whose mark was removed
    :ivar too_new: images that Glance does not have, with a relation that is too new to decide
    :ivar withdrawn: relations that were removed
    :ivar corrected: instances whose time of the latest image was corrected
    :ivar moved: images whose owner was updated
    """

    checked: int = 0
    present: int = 0
    marked_deleted: int = 0
    restored: int = 0
    too_new: int = 0
    withdrawn: int = 0
    corrected: int = 0
    moved: int = 0


@dataclass
class Run:
    """An unfinished reconciliation.

    :ivar until: only images without a newer relation are marked deleted
    :ivar after: the primary key of the last image that was examined
    """

    until: datetime
    started_at: datetime
    after: int = 0
    counts: Counts = field(default_factory=Counts)

    def as_json(self) -> str:
        """Return the text that :meth:`from_json` reads."""
        times = {"until": self.until.isoformat(), "started_at": self.started_at.isoformat()}
        return json.dumps({**times, "after": self.after, "counts": asdict(self.counts)})

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """Return the reconciliation that was stored as ``text``.

        :raises ValueError: if the text is no JSON or a time is malformed
        :raises KeyError: if an attribute is missing
        :raises TypeError: if a count is unknown
        """
        found = json.loads(text)
        until, started = (datetime.fromisoformat(found[name]) for name in ("until", "started_at"))
        return cls(until, started, found["after"], Counts(**found["counts"]))


@dataclass(frozen=True, slots=True)
class KnownImage:
    """A recorded image.

    :ivar ref: the primary key of its row
    :ivar created_at: when Glance created it; the epoch if that is unknown
    :ivar oldest_at: :data:`image_identity.FIRST_RECORDED`
    :ivar newest_at: the time of its newest relation
    :ivar announced_at: the time of its newest announcement, without too new ones: a relation that
        only the service reported, before its request to create the image; ``None`` without one
    :ivar owners: the owners of the image according to its relations
    """

    ref: int
    image_id: str
    deleted_at: datetime | None
    created_at: datetime
    oldest_at: datetime | None
    newest_at: datetime
    announced_at: datetime | None
    owners: frozenset[str | None] = frozenset()

    def is_seen_as(self, seen: ImageState) -> bool:
        """Return whether ``seen`` is this image, not another one with the same ID."""
        times = self.created_at, self.deleted_at, self.oldest_at
        if not image_identity.is_same(*times, seen.created_at):
            return False
        # image_identity.stands_for explains this condition
        return self.deleted_at is None or self.owners <= {None, seen.owner}


@dataclass(frozen=True)
class _Findings:
    """The result of comparing a batch with Glance, by the primary keys of the images.

    The first attributes are described at :class:`Counts`.

    :ivar last: the last image of the batch
    :ivar void: images whose announcements since a time must be removed, with that time
    :ivar learned: images whose creation time was unknown, with that time
    :ivar moved: images with another owner, with that owner
    :ivar replaced: images, among the deleted ones, whose ID another image has now, with that image
    """

    last: int
    checked: int
    present: int
    too_new: int
    restored: list[int]
    deleted: list[int]
    void: list[tuple[int, datetime]]
    learned: dict[int, datetime]
    moved: dict[int, str | None]
    replaced: dict[int, ImageState]


def begin(database: Database, older_than: timedelta, is_new: bool) -> Run:
    """Return the reconciliation that was interrupted, or else a new one.

    :param older_than: the age at which relations are old enough for a new reconciliation
    :param is_new: always begin a new one
    :raises StoreUnavailable: if the database is unavailable
    """
    stored = None if is_new else database.read(stored_state.parsed, POSITION, Run.from_json)
    now = datetime.now(UTC)
    return stored or Run(now - older_than, now)


def images_known(database: Database) -> int:
    """Return the highest primary key of an image, at which a reconciliation ends.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(_highest)


def check_glance(database: Database, glance: ImageService, until: datetime) -> None:
    """Check that ``glance`` is the Glance whose images are recorded in the database.

    :param until: only images with relations older than this are expected
    :raises UntrustedGlanceAnswer: if Glance has no image, or none of the expected ones
    :raises StoreUnavailable: if the database is unavailable
    """
    expected = database.read(_latest_live, until, BATCH)
    if not expected or glance.created([image.image_id for image in expected]):
        return
    if glance.is_empty():
        raise _untrusted("lists no images", len(expected))
    if len(expected) >= PROOF:
        raise _untrusted("has none of them", len(expected))


def _untrusted(reason: str, expected: int) -> UntrustedGlanceAnswer:
    return UntrustedGlanceAnswer(
        f"{expected} images are recorded in the database and Glance {reason}: nothing was changed. "
        "Check that the endpoint and the database belong together; if Glance really lost the "
        "images, repeat the command with --allow-empty-glance"
    )


def reconcile(
    database: Database, glance: ImageService, run: Run, dry_run: bool, seen: Callable[[int], None]
) -> None:
    """Complete the reconciliation ``run`` and update its position and counts.

    :param dry_run: count the corrections without making them
    :param seen: called with the primary key of the last image of each batch
    :raises StoreUnavailable: if the database fails; the next reconciliation continues there
    """
    execute = database.read if dry_run else database.write
    task = _count if dry_run else _correct
    batches = _batches(database, run.until, run.after)
    for findings in prefetch(_compare_all(glance, run.until, batches)):
        failpoints.reach(Point.RECONCILE_JUDGED)
        run.counts = execute(task, run, findings)
        run.after = findings.last
        failpoints.reach(Point.RECONCILE_SETTLED)
        seen(run.after)
    _correct_latest(database, run, dry_run)
    if not dry_run:
        database.write(_finish, run)
        failpoints.reach(Point.RECONCILE_FINISHED)


def _batches(
    database: Database, until: datetime, after: int
) -> Iterator[tuple[list[KnownImage], int]]:
    """Yield the recorded images after the row ``after`` in batches, each with its last row."""
    while True:
        images, last = database.read(_batch, after, BATCH, until)
        if last is None:
            return
        yield images, last
        after = last


def _compare_all(
    glance: ImageService, until: datetime, batches: Iterator[tuple[list[KnownImage], int]]
) -> Iterator[_Findings]:
    for images, last in prefetch(batches):
        yield _compare(glance, until, images, last)


def _compare(
    glance: ImageService, until: datetime, images: list[KnownImage], last: int
) -> _Findings:
    found = glance.created([image.image_id for image in images]) if images else {}
    live = {
        image: seen
        for image in images
        if (seen := found.get(image.image_id)) and image.is_seen_as(seen)
    }
    missing = [image for image in images if image not in live and not image.deleted_at]
    absent = [image for image in missing if image.newest_at < until]
    # an announcement after this time was not for the creation of the image
    created = {image: seen.created_at + CLOCKS_APART for image, seen in live.items()}
    return _Findings(
        last=last,
        checked=len(images),
        present=len(live),
        too_new=len(missing) - len(absent),
        restored=[image.ref for image in live if image.deleted_at],
        deleted=[
            image.ref
            for image in absent
            # if Glance has another image with the ID, this one was deleted
            if image.image_id in found or glance.is_gone(image.image_id)
        ],
        void=[
            (image.ref, since)
            for image, since in created.items()
            if (image.announced_at or EPOCH) >= since
        ],
        learned={
            image.ref: seen.created_at for image, seen in live.items() if image.created_at == EPOCH
        },
        moved={
            image.ref: seen.owner
            for image, seen in live.items()
            if image.owners and image.owners != {seen.owner}
        },
        replaced={image.ref: found[image.image_id] for image in absent if image.image_id in found},
    )


def _count(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Return the counts that :func:`_correct` would return, without changes."""
    counts = _counted(run.counts, findings)
    counts.restored += len(findings.restored)
    counts.marked_deleted += len(findings.deleted)
    counts.moved += len(findings.moved)
    for ref, since in findings.void:
        counts.withdrawn += len(_announcements(connection, ref, since, run.until))
    return counts


def _correct(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Correct a batch and store the position, in one transaction."""
    counts = _counted(run.counts, findings)
    _learn(connection, findings.learned)
    for ref, owner in sorted(findings.moved.items()):
        counts.moved += image_owners.move(connection, ref, get_or_create_project(connection, owner))
    counts.restored += _restore(connection, findings.restored)
    now = datetime.now(UTC)
    counts.marked_deleted += _mark_deleted(connection, findings.deleted, now, run.until)
    for ref, seen in sorted(findings.replaced.items()):
        _move_announcements(connection, ref, seen, now)
    for ref, since in findings.void:
        counts.withdrawn += _remove_announcements(connection, ref, since, run.until)
    reached = Run(run.until, run.started_at, findings.last, counts)
    stored_state.put(connection, POSITION, reached.as_json())
    failpoints.reach(Point.RECONCILE_WRITTEN)
    return counts


def _counted(before: Counts, findings: _Findings) -> Counts:
    """Return the counts with the findings added, without the corrections."""
    return replace(
        before,
        checked=before.checked + findings.checked,
        present=before.present + findings.present,
        too_new=before.too_new + findings.too_new,
    )


def _correct_latest(database: Database, run: Run, dry_run: bool) -> None:
    """Correct the times of the latest images, which older versions of the filter do not update."""
    after: int | None = 0
    while after is not None:
        wrong, after = database.read(latest_images.find_wrong, after, INSTANCES)
        if wrong and not dry_run:
            database.write(latest_images.refresh, wrong)
        run.counts.corrected += len(wrong)


def _finish(connection: Connection, run: Run) -> None:
    stored_state.drop(connection, POSITION)
    stored_state.put(connection, stored_state.RECONCILIATION, json.dumps(summary(run)))


def summary(run: Run) -> dict[str, Any]:
    """Return the report of a finished reconciliation: its counts, and times in UTC as text."""
    times = {
        "until": run.until,
        "started_at": run.started_at,
        "finished_at": datetime.now(UTC),
    }
    return {name: f"{time:%Y-%m-%dT%H:%M:%S.%fZ}" for name, time in times.items()} | asdict(
        run.counts
    )


_is_announcement: Final = and_(
    relation.c.claimed == 0, relation.c.source == SERVICE, relation.c.kind.in_(MADE_FROM)
)


def _highest(connection: Connection) -> int:
    """Return the highest primary key of an image; 0 without images."""
    return connection.execute(select(func.max(image.c.id))).scalar() or 0


def _batch(
    connection: Connection, after: int, size: int, before: datetime
) -> tuple[list[KnownImage], int | None]:
    """Return the images with relations among the next ``size`` rows, and the last row.

    :param after: the row before the batch
    :param before: announcements count only if they are older than this
    :returns: the images, and the primary key of the last row; ``None`` if no row is left
    """
    rows = select(image.c.id).where(image.c.id > after).order_by(image.c.id).limit(size)
    refs = list(connection.execute(rows).scalars())
    return (_known(connection, refs, before), refs[-1]) if refs else ([], None)


def _latest_live(connection: Connection, before: datetime, size: int) -> list[KnownImage]:
    """Return the images of the newest relations before a time, without images marked deleted."""
    rows = (
        select(relation.c.image_ref)
        .join(image, relation.c.image_ref == image.c.id)
        .where(relation.c.created_at < before, image.c.deleted_at.is_(None))
        .order_by(relation.c.created_at.desc())
        .limit(size)
    )
    return _known(connection, set(connection.execute(rows).scalars()), before)


def _known(connection: Connection, refs: Collection[int], before: datetime) -> list[KnownImage]:
    if not refs:
        return []
    is_old = _is_announcement & (relation.c.created_at < before)
    announced_at = case((is_old, relation.c.created_at))
    rows = connection.execute(
        select(
            image.c.id,
            image.c.uuid,
            image.c.deleted_at,
            image.c.created_at,
            image_identity.FIRST_RECORDED,
            func.max(relation.c.created_at),
            func.max(announced_at),
        )
        .join(relation, relation.c.image_ref == image.c.id)
        .where(image.c.id.in_(refs), HAS_ID)
        .group_by(image.c.id, image.c.uuid, image.c.deleted_at, image.c.created_at)
        .order_by(image.c.id)
    )
    known, owners = [KnownImage(*row) for row in rows], _owners(connection, refs)
    return [replace(one, owners=frozenset(owners.get(one.ref, ()))) for one in known]


def _owners(connection: Connection, refs: Collection[int]) -> dict[int, set[str | None]]:
    query = (
        select(relation.c.image_ref, project.c.project_id)
        .outerjoin_from(relation, project, project.c.id == relation.c.project_ref)
        .where(relation.c.image_ref.in_(refs), relation.c.kind.in_(MADE_FROM))
        .distinct()
    )
    found: dict[int, set[str | None]] = {}
    for ref, owner in connection.execute(query):
        found.setdefault(ref, set()).add(owner)
    return found


def _learn(connection: Connection, times: Mapping[int, datetime]) -> None:
    """Record when Glance created these images, if that is unknown."""
    if times:
        created_at = case(
            {ref: literal(at, UtcDateTime) for ref, at in times.items()}, value=image.c.id
        )
        unknown = image.c.id.in_(times), image.c.created_at == EPOCH, HAS_ID
        connection.execute(update(image).where(*unknown).values(created_at=created_at))


def _restore(connection: Connection, refs: Collection[int]) -> int:
    """Remove the mark from images that exist again, and return the number of these."""
    if not refs:
        return 0
    marked = update(image).where(image.c.id.in_(refs), image.c.deleted_at.is_not(None), HAS_ID)
    restored = connection.execute(marked.values(deleted_at=None)).rowcount
    if restored:
        latest_images.refresh_with(connection, image.c.id.in_(refs))
    return restored


def _mark_deleted(
    connection: Connection, refs: Collection[int], at: datetime, before: datetime
) -> int:
    """Mark images deleted, unless they have a relation since ``before``; return their number."""
    if not refs:
        return 0
    lately = exists().where(relation.c.image_ref == image.c.id, relation.c.created_at >= before)
    live = update(image).where(image.c.id.in_(refs), image.c.deleted_at.is_(None), ~lately)
    deleted = connection.execute(live.values(deleted_at=at)).rowcount
    if deleted:
        latest_images.refresh_with(connection, image.c.id.in_(refs))
    return deleted


def _move_announcements(connection: Connection, ref: int, seen: ImageState, at: datetime) -> None:
    """Move the announcements of the image ``seen`` to a row of its own.

    They refer to the row ``ref`` of a former image with the same ID: neither the deletion of the
    former image nor the creation of ``seen`` was recorded.
    """
    is_marked = image.c.id == ref, image.c.deleted_at.is_not(None), HAS_ID
    former = connection.execute(
        select(image.c.uuid, image.c.created_at).where(*is_marked).with_for_update()
    ).first()
    if former is None:
        return
    around = seen.created_at - CLOCKS_APART, seen.created_at + CLOCKS_APART
    announced = select(relation.c.id, relation.c.instance_ref).where(
        relation.c.image_ref == ref,
        relation.c.source == SERVICE,
        relation.c.kind.in_(MADE_FROM),
        relation.c.claimed < NO_CREATOR,
        relation.c.created_at.between(*around),
        relation.c.created_at >= former.created_at + CLOCKS_APART,
    )
    found = connection.execute(announced).all()
    if not found:
        return
    image_identity.retire(connection, ref, at)
    refs = [row.id for row in found]
    own, _ = get_or_create(connection, image, {"uuid": former.uuid}, created_at=seen.created_at)
    for table, column in ((relation, relation.c.id), (descent, descent.c.relation_ref)):
        connection.execute(update(table).where(column.in_(refs)).values(image_ref=own))
    latest_images.refresh(connection, [row.instance_ref for row in found])


def _announcements(
    connection: Connection, ref: int, since: datetime, before: datetime
) -> Sequence[int]:
    """Return the instances of the announcements of the image between these times."""
    void = _announced(ref, since, before)
    return connection.execute(select(relation.c.instance_ref).where(void)).scalars().all()


def _announced(ref: int, since: datetime, before: datetime) -> ColumnElement[bool]:
    at = relation.c.created_at
    return and_(relation.c.image_ref == ref, _is_announcement, at >= since, at < before)


def _remove_announcements(
    connection: Connection, ref: int, since: datetime, before: datetime
) -> int:
    """Remove the announcements of the image between these times, and return their number.

    Rows to which no other row refers then are removed too. A former image that had lost its ID to
    this one gets it back.
    """
    instances = _announcements(connection, ref, since, before)
    image_id = connection.execute(select(image.c.uuid).where(image.c.id == ref)).scalar()
    removed = connection.execute(delete(relation).where(_announced(ref, since, before))).rowcount
    latest_images.refresh(connection, instances)
    orphans.forget_image(connection, ref)
    if image_id is not None:
        image_identity.give_back(connection, image_id)
    orphans.forget_instances(connection, instances)
    return removed
