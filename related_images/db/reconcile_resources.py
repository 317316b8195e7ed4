"""Reconciliation of resources: compare the recorded live servers with those of Nova.

Nova lists its servers in the order of their IDs, and the unique key of the instances has the same
order. So both are read once, page by page:

* A recorded server that Nova does not list is looked up in Nova. If Nova responds that it does not
  exist, its end is recorded. So is the end of a server whose creation failed.
* If the image of a listed server has no ``boot`` relation with it, the start is recorded.
* If a listed server is recorded as deleted, its end is removed.

Nothing is changed because of a response that is in doubt. A run with such responses corrects the
rest, and does not count as a complete comparison.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    func,
    literal,
    or_,
    select,
    update,
)

from related_images import failpoints, validation
from related_images.db import clock, relations, shelving, stored_state, witnesses
from related_images.db.column_types import EPOCH, UtcDateTime
from related_images.db.database import Database
from related_images.db.row_ids import installation_refs, shown_id
from related_images.db.tables import image, instance, origin, relation
from related_images.errors import InstallationNotFound, UntrustedNovaAnswer
from related_images.failpoints import Point
from related_images.model import BACKFILL, BOOT, SERVER, NewRelation
from related_images.prefetch import prefetch

POSITION: Final = "resources-position:"
"""The prefix of the name under which the position of an unfinished run is stored."""

LISTED: Final = 100
"""Listed resources that one transaction corrects: each missing start takes several statements."""

RECORDED: Final = 500
"""Recorded resources that one statement reads."""

SAMPLE: Final = 32
"""The number of recorded resources with which a service is recognized."""

PROOF: Final = 10
"""If a service has none of this many recorded resources, it is taken for that of another cloud."""


class Presence(Enum):
    """What a service responds about one resource."""

    GONE = "it does not exist"
    PRESENT = "it exists, and is in a state in which it is not listed, or not in order"
    DOUBTFUL = "it exists and should have been listed, or the service does not know its state"
    FOREIGN = "its ID is not one of this service"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a service lists.

    :ivar image_id: the image that it was made from; ``None`` if there is none
    :ivar is_image_settled: whether the image is the lasting one; Nova gives a server another image
        during some actions
    :ivar created_at: when its creation was requested
    :ivar launched_at: when it was last made from the image; ``None`` if that has not succeeded yet
    :ivar has_failed: whether its creation failed: it does not hold its image
    """

    instance_id: str
    project_id: str
    image_id: str | None
    is_image_settled: bool
    created_at: datetime
    launched_at: datetime | None
    has_failed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some resources of a service.

    :ivar resources: by ID
    :ivar until: this page and those before it have all resources up to this ID; ``None`` if no
        page follows
    """

    resources: Mapping[str, Resource]
    until: str | None


class ResourceService(Protocol):
    """The resources of a service, as an administrator sees them.

    Every method raises if a response is not conclusive.
    """

    def pages(self, after: str) -> Iterator[Page]:
        """Yield all resources after this ID in the order of their IDs, and maybe others."""

    def look_up(self, instance_id: str) -> Presence:
        """Return whether a resource exists that was not listed."""

    def is_whole(self) -> bool:
        """Return whether no part of the service is down, so that it lists all resources."""


@dataclass
class Counts:
    """The counts of a run.

    :ivar listed: resources that the service listed
    :ivar checked: recorded live resources that were compared
    :ivar ended: resources whose end was recorded
    :ivar started: starts that were recorded
    :ivar restored: resources whose end was removed
    :ivar too_new: resources that are gone or failed, with a report that is too new to decide
    :ivar foreign: recorded live resources whose ID cannot be one of the service
    :ivar doubtful: responses that are in doubt
    """

    listed: int = 0
    checked: int = 0
    ended: int = 0
    started: int = 0
    restored: int = 0
    too_new: int = 0
    foreign: int = 0
    doubtful: int = 0


@dataclass
class Run:
    """An unfinished run.

    :ivar until: resources with a newer report are not ended
    :ivar started_at: when it began, by the clock of the database
    :ivar after: the ID of the last recorded resource that was compared
    :ivar listed_until: :attr:`Page.until` of the last page that was compared
    """

    installation_uuid: str
    until: datetime
    started_at: datetime
    after: str = ""
    listed_until: str = ""
    counts: Counts = field(default_factory=Counts)

    def as_json(self) -> str:
        """Return the text that :meth:`from_json` reads."""
        times = {"until": self.until.isoformat(), "started_at": self.started_at.isoformat()}
        return json.dumps({**asdict(self), **times})

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """Return the run that was stored as ``text``.

        :raises ValueError: if the text is no JSON or a time is malformed
        :raises KeyError: if an attribute is missing
        :raises TypeError: if an attribute is unknown
        """
        found = json.loads(text)
        times = {name: datetime.fromisoformat(found[name]) for name in ("until", "started_at")}
        return cls(**{**found, **times, "counts": Counts(**found["counts"])})

    @property
    def is_complete(self) -> bool:
        """Whether no response was in doubt."""
        return not self.counts.doubtful


@dataclass(frozen=True, slots=True)
class _Known:
    """A recorded resource.

    :ivar images: the images of its ``boot`` relations
    """

    ref: int
    ended_at: datetime | None
    images: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Findings:
    """The result of a comparison, and the position after it.

    :ivar ended: primary keys of resources that are gone or failed
    :ivar restored: primary keys of resources that are recorded as deleted, and exist
    :ivar starts: the starts that are not recorded
    :ivar others: the further counts
    """

    after: str
    listed_until: str
    ended: Collection[int] = ()
    restored: Collection[int] = ()
    starts: Sequence[NewRelation] = ()
    others: Counts = field(default_factory=Counts)


def begin(database: Database, installation_uuid: str, older_than: timedelta, is_new: bool) -> Run:
    """Return the run that was interrupted, or else a new one.

    :param older_than: the age at which reports are old enough for a new run
    :param is_new: always begin a new one
    :raises InstallationNotFound: if the installation has no recorded server and is not registered
    :raises StoreUnavailable: if the database is unavailable
    """
    database.read(_home, installation_uuid)
    stored = (
        None
        if is_new
        else database.read(stored_state.parsed, POSITION + installation_uuid, Run.from_json)
    )
    now = database.read(clock.now)
    return stored or Run(installation_uuid, now - older_than, now)


def check_service(database: Database, service: ResourceService, run: Run) -> None:
    """Check that ``service`` is the one whose resources are recorded for the installation.

    :raises UntrustedNovaAnswer: if it has no resource, or none of the recorded ones
    :raises StoreUnavailable: if the database is unavailable
    """
    gone = 0
    for one in _sample(database, run):
        presence = service.look_up(one)
        if presence in (Presence.PRESENT, Presence.DOUBTFUL):
            return
        gone += presence is Presence.GONE
    if gone and not next(service.pages("")).resources:
        raise _untrusted("lists no servers", gone)
    if gone >= PROOF:
        raise _untrusted("has none of them", gone)


def _untrusted(reason: str, gone: int) -> UntrustedNovaAnswer:
    return UntrustedNovaAnswer(
        f"{gone} live servers are recorded in the database and Nova {reason}: nothing was "
        "changed. Check that the endpoint and the installation belong together; if these servers "
        "were really deleted, repeat the command with --allow-empty-nova"
    )


def reconcile(
    database: Database, service: ResourceService, run: Run, dry_run: bool
) -> Iterator[Counts]:
    """Complete ``run``, update its position and counts, and yield the counts after each step.

    :param dry_run: count the corrections without making them
    :raises UntrustedNovaAnswer: if the service no longer has resources that it has just listed
    :raises StoreUnavailable: if the database fails; the next run continues there
    """
    execute = database.read if dry_run else database.write
    task = _count if dry_run else _correct
    run.counts.doubtful += not service.is_whole()
    for findings in prefetch(_compare_all(database, service, replace(run))):
        failpoints.reach(Point.RESOURCES_COMPARED)
        run.counts = execute(task, run, findings)
        run.after, run.listed_until = findings.after, findings.listed_until
        failpoints.reach(Point.RESOURCES_SETTLED)
        yield run.counts
    run.counts.doubtful += not service.is_whole()
    if dry_run:
        return
    if run.is_complete:
        # before the position is removed: the next run closes them if this one is interrupted here
        witnesses.close_gaps(database, run.installation_uuid, run.started_at)
    database.write(stored_state.drop, POSITION + run.installation_uuid)
    failpoints.reach(Point.RESOURCES_FINISHED)


def _compare_all(database: Database, service: ResourceService, run: Run) -> Iterator[_Findings]:
    """Yield the findings after the position of ``run``, in small parts."""
    home = database.read(_home, run.installation_uuid)
    position = _Findings(run.after, run.listed_until)
    latest: Sequence[str] = ()
    for page in service.pages(run.listed_until):
        latest = _lasting(page) or latest
        while rows := database.read(_recorded, home, position.after, page.until):
            position = replace(position, after=rows[-1].instance_id)
            live = {row.instance_id: row.id for row in rows if row.ended_at is None}
            absent = {id: ref for id, ref in live.items() if id not in page.resources}
            found = _compare_absent(database, service, run.until, absent, position)
            if found.ended:
                found = _confirmed(service, latest, found)
            yield replace(found, others=_added(found.others, Counts(checked=len(live))))
        listed, others = list(page.resources.values()), Counts(listed=len(page.resources))
        for first in range(0, len(listed), LISTED):
            found = _compare_listed(database, run, home, listed[first : first + LISTED], position)
            others = _added(others, found.others)
            # counted with the position: an interrupted run compares the whole page again
            yield replace(found, others=Counts())
        if page.until is not None:
            position = _Findings(max(position.after, page.until), page.until)
            yield replace(position, others=others)


def _lasting(page: Page) -> Sequence[str]:
    """Return some resources of the page that are not expected to be deleted soon."""
    lasting = [one.instance_id for one in page.resources.values() if one.launched_at is not None]
    return lasting[-PROOF:]


def _confirmed(service: ResourceService, latest: Sequence[str], found: _Findings) -> _Findings:
    """Return findings with the ends of resources that are gone, or without if that is in doubt.

    :param latest: resources that the service listed last
    :raises UntrustedNovaAnswer: if it has none of them any more
    """
    if latest and all(service.look_up(one) is Presence.GONE for one in latest):
        raise UntrustedNovaAnswer(
            f"Nova no longer has the servers that it has just listed, such as {latest[-1]}: "
            "nothing more was changed; check the databases of Nova, then repeat the command"
        )
    if service.is_whole():
        return found
    # Nova says of servers that can be restored that they do not exist, if their cell is down
    others = _added(found.others, Counts(doubtful=len(found.ended)))
    return replace(found, ended=(), others=others)


def _compare_listed(
    database: Database, run: Run, home: int, listed: Sequence[Resource], position: _Findings
) -> _Findings:
    """Compare listed resources with what is recorded of them."""
    known = database.read(_look_up, home, [one.instance_id for one in listed])
    failed, restored, starts, doubtful = list[int](), list[int](), list[NewRelation](), 0
    for one in listed:
        found = known.get(one.instance_id)
        if one.has_failed:
            if found is not None and found.ended_at is None:
                failed.append(found.ref)
            continue
        if found is not None and found.ended_at is not None and found.ended_at < run.until:
            restored.append(found.ref)
        images = set[str]() if found is None else found.images
        if one.image_id is None or one.image_id in images:
            continue
        if one.is_image_settled:
            starts.append(_start(run.installation_uuid, one, one.image_id, is_first=not images))
        else:
            doubtful += 1
    too_new = database.read(_reported_since, failed, run.until)
    return replace(
        position,
        ended=set(failed) - too_new,
        restored=restored,
        starts=starts,
        others=Counts(too_new=len(too_new), doubtful=doubtful),
    )


def _start(installation_uuid: str, one: Resource, image_id: str, *, is_first: bool) -> NewRelation:
    """Return the start of a resource.

    :param is_first: no start is recorded. Otherwise the resource was rebuilt from the image later
    """
    return NewRelation(
        installation_uuid,
        one.instance_id,
        image_id,
        BOOT,
        None,
        BACKFILL,
        one.project_id,
        one.created_at if is_first else one.launched_at or one.created_at,
        instance_project_id=one.project_id,
    )


def _compare_absent(
    database: Database,
    service: ResourceService,
    until: datetime,
    absent: Mapping[str, int],
    position: _Findings,
) -> _Findings:
    """Look up the recorded live resources that the service does not list.

    :param absent: their primary keys, by ID
    """
    too_new = database.read(_reported_since, absent.values(), until)
    old = {id: ref for id, ref in absent.items() if ref not in too_new}
    presences = {id: service.look_up(id) for id in old}
    states = list(presences.values())
    return replace(
        position,
        ended=[old[id] for id, presence in presences.items() if presence is Presence.GONE],
        others=Counts(
            too_new=len(too_new),
            foreign=states.count(Presence.FOREIGN),
            doubtful=states.count(Presence.DOUBTFUL),
        ),
    )


def _count(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Return the counts that :func:`_correct` would return, without changes."""
    return _added(
        run.counts,
        findings.others,
        ended=len(findings.ended),
        started=len(findings.starts),
        restored=len(findings.restored),
    )


def _correct(connection: Connection, run: Run, findings: _Findings) -> Counts:
    """Correct what was found and store the position, in one transaction."""
    counts = _added(
        run.counts,
        findings.others,
        started=sum(relations.record_past(connection, new).created for new in findings.starts),
        ended=_end(connection, findings.ended, datetime.now(UTC), run.until),
        restored=_restore(connection, findings.restored, run.until),
    )
    reached = replace(run, after=findings.after, listed_until=findings.listed_until, counts=counts)
    stored_state.put(connection, POSITION + run.installation_uuid, reached.as_json())
    failpoints.reach(Point.RESOURCES_WRITTEN)
    return counts


def _added(before: Counts, others: Counts, **corrections: int) -> Counts:
    sums = {name: number + getattr(others, name) for name, number in asdict(before).items()}
    return Counts(**{name: number + corrections.get(name, 0) for name, number in sums.items()})


def summary(run: Run) -> dict[str, Any]:
    """Return the report of a finished run: its counts, and times in UTC as text."""
    times = {
        "until": run.until,
        "started_at": run.started_at,
        "finished_at": datetime.now(UTC),
    }
    return {
        "installation_uuid": run.installation_uuid,
        **{name: validation.format_time(time) for name, time in times.items()},
        **asdict(run.counts),
        "complete": run.is_complete,
    }


def _home(connection: Connection, installation_uuid: str) -> int:
    """Return the row of the installation for servers.

    :raises InstallationNotFound: if there is none
    """
    found = connection.execute(installation_refs(installation_uuid, SERVER)).scalar()
    if found is None:
        raise InstallationNotFound(
            f"the installation {installation_uuid} is unknown: no server of it is recorded; "
            "correct the UUID, or register it with `related-images installation add`"
        )
    return int(found)


def _recorded(connection: Connection, home: int, after: str, until: str | None) -> Sequence[Any]:
    """Return the next recorded resources, ended ones included, in the order of their IDs.

    Ended ones count for the size of the result, so that a statement does not read all of them.

    :param until: the last ID; ``None`` for no restriction
    """
    rows = select(instance.c.id, instance.c.instance_id, instance.c.ended_at).where(
        instance.c.installation_ref == home, instance.c.instance_id > after
    )
    if until is not None:
        rows = rows.where(instance.c.instance_id <= until)
    return connection.execute(rows.order_by(instance.c.instance_id).limit(RECORDED)).all()


def _sample(database: Database, run: Run) -> list[str]:
    """Return the IDs of some live resources without a report since ``run.until``.

    The IDs of servers are random, so the first ones are as good as any.
    """
    home, after, found = database.read(_home, run.installation_uuid), "", list[str]()
    while len(found) < SAMPLE and (rows := database.read(_recorded, home, after, None)):
        live = {row.id: row.instance_id for row in rows if row.ended_at is None}
        too_new = database.read(_reported_since, live, run.until)
        found += [id for ref, id in live.items() if ref not in too_new]
        after = rows[-1].instance_id
    return found[:SAMPLE]


def _look_up(connection: Connection, home: int, ids: Collection[str]) -> dict[str, _Known]:
    """Return the recorded ones of these resources, by ID."""
    is_start = and_(relation.c.instance_ref == instance.c.id, relation.c.kind == BOOT)
    rows = (
        select(instance.c.instance_id, instance.c.id, instance.c.ended_at, shown_id())
        .select_from(
            instance.outerjoin(relation, is_start).outerjoin(
                image, image.c.id == relation.c.image_ref
            )
        )
        .where(instance.c.installation_ref == home, instance.c.instance_id.in_(ids))
    )
    found: dict[str, _Known] = {}
    for instance_id, ref, ended_at, image_id in connection.execute(rows):
        known = found.setdefault(instance_id, _Known(ref, ended_at))
        if image_id is not None:
            known.images.add(image_id)
    return found


def _newest(times: ColumnElement[datetime], ref: ColumnElement[int]) -> ColumnElement[datetime]:
    """Return the newest of the ``times`` of an instance.

    A condition with EXISTS has the same meaning; but some planners would first collect the rows of
    all instances.
    """
    newest = select(func.max(times)).where(ref == instance.c.id).correlate(instance)
    return func.coalesce(newest.scalar_subquery(), literal(EPOCH, UtcDateTime))


_newest_relation: Final = _newest(relation.c.created_at, relation.c.instance_ref)
_newest_origin: Final = _newest(origin.c.since, origin.c.instance_ref)


def _is_reported_since(since: datetime) -> ColumnElement[bool]:
    """Return the condition that an instance has a relation or an origin since then."""
    return or_(_newest_relation >= since, _newest_origin >= since)


def _reported_since(connection: Connection, refs: Collection[int], since: datetime) -> set[int]:
    """Return those of the instances that have a report since then."""
    if not refs:
        return set()
    rows = select(instance.c.id).where(instance.c.id.in_(refs), _is_reported_since(since))
    return set(connection.execute(rows).scalars())


def _end(connection: Connection, refs: Collection[int], at: datetime, before: datetime) -> int:
    """Record the end of live instances without a report since ``before``; return their number."""
    if not refs:
        return 0
    # a transaction that reports a start holds this lock; its relation is then visible below
    locked = select(instance.c.id).where(instance.c.id.in_(refs)).order_by(instance.c.id)
    connection.execute(locked.with_for_update()).all()
    is_ended = instance.c.id.in_(refs), instance.c.ended_at.is_(None), ~_is_reported_since(before)
    ended = connection.execute(select(instance.c.id).where(*is_ended)).scalars().all()
    if ended:
        these = update(instance).where(instance.c.id.in_(ended))
        connection.execute(these.values(ended_at=at))
    for ref in ended:
        shelving.end_of(connection, ref, at)
    return len(ended)


def _restore(connection: Connection, refs: Collection[int], before: datetime) -> int:
    """Remove the ends that were recorded before a time, and return their number."""
    if not refs:
        return 0
    is_wrong = instance.c.id.in_(refs), instance.c.ended_at < before
    locked = select(instance.c.id).where(*is_wrong).order_by(instance.c.id).with_for_update()
    wrong = connection.execute(locked).scalars().all()
    if wrong:
        shelving.resume(connection, wrong)
        restored = update(instance).where(instance.c.id.in_(wrong))
        connection.execute(restored.values(ended_at=None))
    return len(wrong)
