"""Reconciling: comparing the relations with what the registry has, and putting them right.

An image that the registry does not have is marked deleted. Whether it was made and deleted, or was
never made, cannot be told afterwards, and the mark is right for both: it shows in no image list,
keeps its place in the lineage, and comes off when the image comes back. A relation is removed in
one case: it was announced for an image that had been there before, and so was not made of it.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from related_images import failpoints
from related_images.db import (
    image_owners,
    latest_images,
    reconcile_rows,
    relations,
    state,
)
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.image_identity import CLOCKS_APART
from related_images.db.listing import RECONCILIATION
from related_images.db.reconcile_rows import KnownImage
from related_images.errors import RegistryDistrusted
from related_images.failpoints import Point
from related_images.model import Seen
from related_images.prefetch import ahead

BATCH: Final = 32
"""Images judged at once: as many IDs as the default buffer of uWSGI takes beside a token."""

POSITION: Final = "reconciliation-position"
"""The row of the state that remembers how far an unfinished reconciliation came."""

INSTANCES: Final = 500
"""Instances looked at together."""

PROOF: Final = 10
"""Of so many images the registry must know one, or it is taken for another cloud's."""


class Registry(Protocol):
    """What the registry has, as its administrator sees it. Anything unclear raises."""

    def created(self, image_ids: Collection[str]) -> Mapping[str, Seen]:
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
    replaced: dict[int, Seen]


def begin(database: Database, older_than: timedelta, dry_run: bool) -> Run:
    """The run that was interrupted, if one was, else a new one; a dry run is always new."""
    text = None if dry_run else database.read(state.get, POSITION)
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
    return database.read(reconcile_rows.highest)


def check_registry(database: Database, registry: Registry, until: datetime) -> None:
    """Make sure that the registry is the one whose images are related here.

    :raises RegistryDistrusted: if it has no image, or none of those that it should have
    """
    expected = database.read(reconcile_rows.latest_live, until, BATCH)
    if not expected or registry.created([image.image_id for image in expected]):
        return
    if registry.is_empty():
        raise _distrusted("lists no image at all", len(expected))
    if len(expected) >= PROOF:
        raise _distrusted("knows none of them", len(expected))


def _distrusted(said: str, expected: int) -> RegistryDistrusted:
    return RegistryDistrusted(
        f"{expected} images are related here and the registry {said}: nothing was changed. Check "
        "that the endpoint and the database belong together; if the images are really gone, say "
        "--trust-registry"
    )


def reconcile(
    database: Database, registry: Registry, run: Run, dry_run: bool, seen: Callable[[int], None]
) -> None:
    """Carry ``run`` to its end; ``seen`` is told the number of the last image of each batch.

    :raises StoreUnavailable: if the database fails on the way; the next run goes on there
    """
    carry_out = database.read if dry_run else database.write
    work = _count if dry_run else _settle
    batches = _batches(database, run.until, run.after)
    for findings in ahead(_judged(registry, run.until, batches)):
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
        images, last = database.read(reconcile_rows.batch, after, BATCH, until)
        if last is None:
            return
        yield images, last
        after = last


def _judged(
    registry: Registry, until: datetime, batches: Iterator[tuple[list[KnownImage], int]]
) -> Iterator[_Findings]:
    for images, last in ahead(batches):
        yield _judge(registry, until, images, last)


def _judge(registry: Registry, until: datetime, images: list[KnownImage], last: int) -> _Findings:
    found = registry.created([image.image_id for image in images]) if images else {}
    there = {
        image: seen
        for image in images
        if (seen := found.get(image.image_id)) and image.is_seen_as(seen)
    }
    missed = [image for image in images if image not in there and not image.deleted_at]
    absent = [image for image in missed if image.newest_at < until]
    made = {image: seen.created_at + CLOCKS_APART for image, seen in there.items()}
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
        counts.withdrawn += len(reconcile_rows.announcements(connection, ref, since, run.until))
    return counts


def _settle(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Put a batch right and remember how far that was, in one transaction."""
    counts = _counted(run.counts, findings)
    reconcile_rows.learn(connection, findings.learned)
    for ref, owner in sorted(findings.moved.items()):
        counts.moved += image_owners.move(
            connection, ref, relations.reach_project(connection, owner)
        )
    counts.restored += reconcile_rows.restore(connection, findings.restored)
    now = datetime.now(UTC)
    counts.marked_deleted += reconcile_rows.mark_deleted(
        connection, findings.deleted, now, run.until
    )
    for ref, seen in sorted(findings.replaced.items()):
        reconcile_rows.hand_over(connection, ref, seen, now)
    for ref, since in findings.void:
        counts.withdrawn += reconcile_rows.withdraw_announcements(connection, ref, since, run.until)
    reached = Run(run.until, run.started_at, findings.last, counts)
    state.put(connection, POSITION, reached.as_json())
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
        wrong, after = database.read(latest_images.wrong, after, INSTANCES)
        if wrong and not dry_run:
            database.write(latest_images.refresh, wrong)
        run.counts.corrected += len(wrong)


def _finish(connection: Connection, run: Run) -> None:
    state.drop(connection, POSITION)
    state.put(connection, RECONCILIATION, json.dumps(summary(run)))


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
