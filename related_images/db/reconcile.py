"""Reconciling: comparing the relations with what the registry has, and putting them right.

An image that the registry does not have is marked deleted. Whether it was made and deleted, or was
never made, cannot be told afterwards, and the mark is right for both: it shows in no image list,
keeps its place in the lineage, and comes off when the image comes back. A relation is removed in
one case: it was announced for an image that had been there before, and so was not made of it.
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
"""Images judged at once: as many IDs as the default buffer of uWSGI takes beside a token."""

POSITION: Final = "reconciliation-position"
"""The row of the state that remembers how far an unfinished reconciliation came."""

INSTANCES: Final = 500
"""Instances looked at together."""

PROOF: Final = 10
"""Of so many images the registry must know one, or it is taken for another cloud's."""


class ImageService(Protocol):
    """What the registry has, as its administrator sees it. Anything unclear raises."""

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        """When those of the images were created that are there, and whose they are."""

    def is_gone(self, image_id: str) -> bool:
        """Whether the registry says of this one image that it has none."""

    def is_empty(self) -> bool:
        """Whether there is no image at all."""


@dataclass
class Counts:
    """Images: looked at, found there, newly marked deleted, unmarked, too new to judge.

    ``moved`` counts those whose relations were given to another project, which owns the image now.
    ``withdrawn`` counts the relations that were removed, ``corrected`` the instances whose latest
    image was not noted rightly.
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
    """A reconciliation under way: relations older than ``until`` are judged."""

    until: datetime
    started_at: datetime
    after: int = 0
    counts: Counts = field(default_factory=Counts)

    def as_json(self) -> str:
        times = {"until": self.until.isoformat(), "started_at": self.started_at.isoformat()}
        return json.dumps({**times, "after": self.after, "counts": asdict(self.counts)})

    @classmethod
    def from_json(cls, text: str) -> "Run":
        found = json.loads(text)
        until, started = (datetime.fromisoformat(found[name]) for name in ("until", "started_at"))
        return cls(until, started, found["after"], Counts(**found["counts"]))


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image in a relation, by its row number ``ref``; ``created_at`` is when Glance made it.

    ``oldest_at`` is :data:`image_identity.FIRST_RECORDED`, ``newest_at`` its latest relation.
    ``announced_at`` is the latest relation of before a time that nothing speaks for but an
    announcement before the image was to be made; ``None`` if there is no such one. ``owners`` are
    who owns the image, as those relations say that name an instance from which it was made.
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
        """Whether Glance has this image, and not another one under its ID."""
        times = self.created_at, self.deleted_at, self.oldest_at
        if not image_identity.is_same(*times, seen.created_at):
            return False
        # as image_identity.stands_for says
        return self.deleted_at is None or self.owners <= {None, seen.owner}


@dataclass(frozen=True)
class _Findings:
    """What was found of a batch, counted as in :class:`Counts`; what it needs; its ``last`` row.

    It needs row numbers, for withdrawals the time since which, and for those of which it is to be
    learned when they were made, and whose they are now, what that is. ``replaced`` are those of the
    ``deleted`` whose ID another image has now, and that one.
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


def begin(database: Database, older_than: timedelta, dry_run: bool) -> Run:
    """The run that was interrupted, if one was, else a new one; a dry run is always new."""
    text = None if dry_run else database.read(stored_state.get, POSITION)
    now = datetime.now(UTC)
    return _taken_up(text) or Run(now - older_than, now)


def _taken_up(text: str | None) -> Run | None:
    """The run that left this; ``None`` if none did, or one of a version that tells otherwise."""
    try:
        return Run.from_json(text) if text else None
    except (ValueError, KeyError, TypeError):
        return None


def images_known(database: Database) -> int:
    """The highest number of an image: where a run ends."""
    return database.read(_highest)


def check_registry(database: Database, registry: ImageService, until: datetime) -> None:
    """Make sure that the registry is the one whose images are related here.

    :raises UntrustedGlanceAnswer: if it has no image, or none of those that it should have
    """
    expected = database.read(_latest_live, until, BATCH)
    if not expected or registry.created([image.image_id for image in expected]):
        return
    if registry.is_empty():
        raise _distrusted("lists no image at all", len(expected))
    if len(expected) >= PROOF:
        raise _distrusted("knows none of them", len(expected))


def _distrusted(said: str, expected: int) -> UntrustedGlanceAnswer:
    return UntrustedGlanceAnswer(
        f"{expected} images are related here and the registry {said}: nothing was changed. Check "
        "that the endpoint and the database belong together; if the images are really gone, say "
        "--trust-registry"
    )


def reconcile(
    database: Database, registry: ImageService, run: Run, dry_run: bool, seen: Callable[[int], None]
) -> None:
    """Carry ``run`` to its end; ``seen`` is told the number of the last image of each batch.

    :raises StoreUnavailable: if the database fails on the way; the next run goes on there
    """
    carry_out = database.read if dry_run else database.write
    work = _count if dry_run else _settle
    batches = _batches(database, run.until, run.after)
    for findings in prefetch(_judged(registry, run.until, batches)):
        failpoints.reach(Point.RECONCILE_JUDGED)
        run.counts = carry_out(work, run, findings)
        run.after = findings.last
        failpoints.reach(Point.RECONCILE_SETTLED)
        seen(run.after)
    _correct(database, run, dry_run)
    if not dry_run:
        database.write(_finish, run)
        failpoints.reach(Point.RECONCILE_FINISHED)


def _batches(
    database: Database, until: datetime, after: int
) -> Iterator[tuple[list[KnownImage], int]]:
    """The images behind ``after``, batch by batch, each with the number of its last row."""
    while True:
        images, last = database.read(_batch, after, BATCH, until)
        if last is None:
            return
        yield images, last
        after = last


def _judged(
    registry: ImageService, until: datetime, batches: Iterator[tuple[list[KnownImage], int]]
) -> Iterator[_Findings]:
    for images, last in prefetch(batches):
        yield _judge(registry, until, images, last)


def _judge(
    registry: ImageService, until: datetime, images: list[KnownImage], last: int
) -> _Findings:
    found = registry.created([image.image_id for image in images]) if images else {}
    there = {
        image: seen
        for image in images
        if (seen := found.get(image.image_id)) and image.is_seen_as(seen)
    }
    missed = [image for image in images if image not in there and not image.deleted_at]
    absent = [image for image in missed if image.newest_at < until]
    made = {image: seen.created_at + image_identity.CLOCKS_APART for image, seen in there.items()}
    return _Findings(
        last=last,
        checked=len(images),
        present=len(there),
        too_new=len(missed) - len(absent),
        restored=[image.ref for image in there if image.deleted_at],
        deleted=[
            image.ref
            for image in absent
            # another image has the ID of one that is gone
            if image.image_id in found or registry.is_gone(image.image_id)
        ],
        void=[
            (image.ref, since)
            for image, since in made.items()
            if (image.announced_at or EPOCH) >= since
        ],
        learned={
            image.ref: seen.created_at for image, seen in there.items() if image.created_at == EPOCH
        },
        moved={
            image.ref: seen.owner
            for image, seen in there.items()
            if image.owners and image.owners != {seen.owner}
        },
        replaced={image.ref: found[image.image_id] for image in absent if image.image_id in found},
    )


def _count(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """What :func:`_settle` would do."""
    counts = _counted(run.counts, findings)
    counts.restored += len(findings.restored)
    counts.marked_deleted += len(findings.deleted)
    counts.moved += len(findings.moved)
    for ref, since in findings.void:
        counts.withdrawn += len(_announcements(connection, ref, since, run.until))
    return counts


def _settle(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Put a batch right and remember how far that was, in one transaction."""
    counts = _counted(run.counts, findings)
    _learn(connection, findings.learned)
    for ref, owner in sorted(findings.moved.items()):
        counts.moved += image_owners.move(connection, ref, get_or_create_project(connection, owner))
    counts.restored += _restore(connection, findings.restored)
    now = datetime.now(UTC)
    counts.marked_deleted += _mark_deleted(connection, findings.deleted, now, run.until)
    for ref, seen in sorted(findings.replaced.items()):
        _hand_over(connection, ref, seen, now)
    for ref, since in findings.void:
        counts.withdrawn += _withdraw_announcements(connection, ref, since, run.until)
    reached = Run(run.until, run.started_at, findings.last, counts)
    stored_state.put(connection, POSITION, reached.as_json())
    failpoints.reach(Point.RECONCILE_WRITTEN)
    return counts


def _counted(before: Counts, findings: _Findings) -> Counts:
    """The counts with what was found, but for what is put right."""
    return replace(
        before,
        checked=before.checked + findings.checked,
        present=before.present + findings.present,
        too_new=before.too_new + findings.too_new,
    )


def _correct(database: Database, run: Run, dry_run: bool) -> None:
    """Note the latest images anew where a filter of an earlier version did not."""
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
    """What a finished run reports: its times in UTC and its counts."""
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
    """The highest row number of an image; 0 if there is none."""
    return connection.execute(select(func.max(image.c.id))).scalar() or 0


def _batch(
    connection: Connection, after: int, size: int, before: datetime
) -> tuple[list[KnownImage], int | None]:
    """The related images among the next ``size`` rows behind ``after``, and the last row's number.

    The number is ``None`` where no row is left. Announcements count that are older than ``before``.
    """
    rows = select(image.c.id).where(image.c.id > after).order_by(image.c.id).limit(size)
    refs = list(connection.execute(rows).scalars())
    return (_known(connection, refs, before), refs[-1]) if refs else ([], None)


def _latest_live(connection: Connection, before: datetime, size: int) -> list[KnownImage]:
    """The images of the latest relations older than ``before``, but for those marked deleted."""
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
    """Note when Glance made these images, by their rows, where that is not known."""
    if times:
        told = case({ref: literal(at, UtcDateTime) for ref, at in times.items()}, value=image.c.id)
        unknown = image.c.id.in_(times), image.c.created_at == EPOCH, HAS_ID
        connection.execute(update(image).where(*unknown).values(created_at=told))


def _restore(connection: Connection, refs: Collection[int]) -> int:
    """Take the mark off images that are there again, and say off how many."""
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
    """Mark images deleted that have no relation since ``before``, and say how many."""
    if not refs:
        return 0
    lately = exists().where(relation.c.image_ref == image.c.id, relation.c.created_at >= before)
    live = update(image).where(image.c.id.in_(refs), image.c.deleted_at.is_(None), ~lately)
    deleted = connection.execute(live.values(deleted_at=at)).rowcount
    if deleted:
        latest_images.refresh_with(connection, image.c.id.in_(refs))
    return deleted


def _hand_over(connection: Connection, ref: int, seen: ImageState, at: datetime) -> None:
    """Give the relations that were announced for the image ``seen`` to it.

    They were recorded with the image ``ref``, which had the ID before: nobody had noted that Glance
    no longer had it, nor, when it had made the other one, which that was.
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
    """Of which instances the image was announced between these times."""
    void = _announced(ref, since, before)
    return connection.execute(select(relation.c.instance_ref).where(void)).scalars().all()


def _announced(ref: int, since: datetime, before: datetime) -> ColumnElement[bool]:
    at = relation.c.created_at
    return and_(relation.c.image_ref == ref, _is_announcement, at >= since, at < before)


def _withdraw_announcements(
    connection: Connection, ref: int, since: datetime, before: datetime
) -> int:
    """Remove announcements of the image between these times, and say how many.

    What nothing refers to then goes with them. An image that had given up its ID to an image which
    was never made has it again.
    """
    instances = _announcements(connection, ref, since, before)
    image_id = connection.execute(select(image.c.uuid).where(image.c.id == ref)).scalar()
    gone = connection.execute(delete(relation).where(_announced(ref, since, before))).rowcount
    latest_images.refresh(connection, instances)
    orphans.forget_image(connection, ref)
    if image_id is not None:
        image_identity.give_back(connection, image_id)
    orphans.forget_instances(connection, instances)
    return gone
