"""Reconciliation of resources: compare the recorded live ones with those of Nova or Cinder.

The service lists its resources of one type in the order of their IDs, and the unique key of the
instances has the same order. So both are read once, page by page:

* A recorded resource that is not listed is looked up in the service. If the service responds that
  it does not exist, its end is recorded. So is the end of a server whose creation failed.
* If the image of a listed server has no ``boot`` relation with it, the start is recorded.
* If the source of a listed volume, volume snapshot or volume backup is not recorded as its origin,
  the origin is recorded. If the service states no source, the resource is recorded without one.
* If a listed resource is recorded as deleted, its end is removed.
* If a listed resource has another owner, the owner is recorded.

Nothing is changed because of a response that is in doubt. A run with such responses corrects the
rest, and does not count as a complete comparison. A backfill is a run without ends.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from related_images import failpoints, validation
from related_images.db import clock, recorded_resources, relations, stored_state, witnesses
from related_images.db.database import Database
from related_images.db.recorded_resources import Known, NewOwner
from related_images.db.resource_service import Page, Presence, Resource, ResourceService
from related_images.failpoints import Point
from related_images.model import (
    BACKFILL,
    BOOT,
    CINDER_BUS,
    NOVA_API,
    NOVA_BUS,
    SERVER,
    VOLUME,
    InstanceRef,
    NewOrigin,
    NewRelation,
)
from related_images.prefetch import prefetch

POSITION: Final = "resources-position:"
"""The prefix of the name under which the position of an unfinished run is stored."""

BACKFILL_POSITION: Final = "backfill-resources-position:"
"""The same for a backfill."""

WITNESSES: Final = {SERVER: (NOVA_API, NOVA_BUS), VOLUME: (CINDER_BUS,)}
"""The witnesses whose gaps a complete comparison closes: it finds all that they report.

Only cinder-api reports the image of a volume. Cinder's API does not state it: users can change the
image metadata of a volume.
"""

LISTED: Final = 100
"""Listed resources that are compared at a time."""

CORRECTED: Final = 10
"""Corrections of each kind in one transaction, few enough for a slow database: each takes several
statements."""

SAMPLE: Final = 32
"""The number of recorded resources with which a service is recognized."""

PROOF: Final = 10
"""The number of resources listed last, one of which a service must still have."""


@dataclass
class Counts:
    """The counts of a run.

    :ivar listed: resources that the service listed
    :ivar checked: recorded live resources that were compared
    :ivar ended: resources whose end was recorded
    :ivar started: starts that were recorded: images and origins
    :ivar recorded: resources whose owner was recorded for the first time
    :ivar moved: resources whose owner was corrected
    :ivar restored: resources whose end was removed
    :ivar unknown: resources of Cinder of which neither an image nor an origin is known
    :ivar too_new: resources that are gone or failed, with a report that is too new to decide
    :ivar foreign: recorded live resources whose ID cannot be one of the service
    :ivar doubtful: responses that are in doubt
    """

    listed: int = 0
    checked: int = 0
    ended: int = 0
    started: int = 0
    recorded: int = 0
    moved: int = 0
    restored: int = 0
    unknown: int = 0
    too_new: int = 0
    foreign: int = 0
    doubtful: int = 0


@dataclass
class Run:
    """An unfinished run.

    :ivar until: resources with a newer report are not ended
    :ivar started_at: when it began, by the clock of the database
    :ivar is_backfill: whether nothing is ended
    :ivar resource_type: the type that is being compared; empty before the first one
    :ivar after: the ID of the last recorded resource that was compared
    :ivar listed_until: :attr:`Page.until` of the last page that was compared
    """

    installation_uuid: str
    until: datetime
    started_at: datetime
    is_backfill: bool = False
    resource_type: str = ""
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
    def position_name(self) -> str:
        """The name under which the run is stored."""
        return (BACKFILL_POSITION if self.is_backfill else POSITION) + self.installation_uuid

    @property
    def is_complete(self) -> bool:
        """Whether no response was in doubt."""
        return not self.counts.doubtful


@dataclass(frozen=True)
class Findings:
    """The result of a comparison, and the position after it.

    :ivar ended: primary keys of resources that are gone or failed
    :ivar restored: primary keys of resources that are recorded as deleted, and exist
    :ivar starts: the starts of servers that are not recorded
    :ivar origins: the origins that are not recorded
    :ivar owners: the owners that are not recorded
    :ivar rejected: resources whose image is only claimed, by what users can change
    :ivar others: the further counts
    """

    after: str
    listed_until: str
    ended: Collection[int] = ()
    restored: Collection[int] = ()
    starts: Sequence[NewRelation] = ()
    origins: Sequence[NewOrigin] = ()
    owners: Sequence[NewOwner] = ()
    rejected: Sequence[Resource] = ()
    others: Counts = field(default_factory=Counts)


def types_of(database: Database, installation_uuid: str) -> tuple[str, ...]:
    """Return the types of resources to compare: those of Nova, of Cinder, or of both.

    They are of Cinder if volumes, volume snapshots or volume backups are recorded, or if witnesses
    of Cinder report on the installation or are expected to.

    :raises InstallationNotFound: if the installation has no recorded resource and is not registered
    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(recorded_resources.types_of, installation_uuid)


def begin(
    database: Database,
    installation_uuid: str,
    older_than: timedelta,
    is_new: bool,
    *,
    is_backfill: bool = False,
) -> Run:
    """Return the run that was interrupted, or else a new one.

    :param older_than: the age at which reports are old enough for a new run
    :param is_new: always begin a new one
    :raises StoreUnavailable: if the database is unavailable
    """
    now = database.read(clock.now)
    run = Run(installation_uuid, now - older_than, now, is_backfill)
    if is_new:
        return run
    return database.read(stored_state.parsed, run.position_name, Run.from_json) or run


def check_service(database: Database, services: Sequence[ResourceService], run: Run) -> None:
    """Check that the service is the one whose resources are recorded for the installation.

    :param services: the resources of one service, by type
    :raises RelatedImagesError: if it has none of the first recorded resources, and lists no
        recorded resource first
    :raises StoreUnavailable: if the database is unavailable
    """
    gone = 0
    for service in services:
        for one in _sample(database, run, service.resource_type):
            presence = service.look_up(one)
            if presence in (Presence.PRESENT, Presence.DOUBTFUL):
                return
            gone += presence is Presence.GONE
    if not gone:
        return
    listed = {service.resource_type: next(service.pages("")).resources for service in services}
    if any(
        _look_up(database, run.installation_uuid, resource_type, found.values())
        for resource_type, found in listed.items()
        if found
    ):
        return
    raise _untrusted(services[0], gone, "others" if any(listed.values()) else "none")


def _untrusted(service: ResourceService, gone: int, listed: str) -> Exception:
    what, name = _plural(service.resource_type), service.service_name
    return service.untrusted(
        f"{gone} live {what} are recorded in the database, and {name} has none of them and lists "
        f"{listed}: nothing was changed. Check that the endpoint and the installation belong "
        f"together; if these {what} were really deleted, repeat the command with "
        f"--allow-empty-{name.lower()}"
    )


def _plural(resource_type: str) -> str:
    return f"{resource_type.replace('-', ' ')}s"


def reconcile(
    database: Database, services: Sequence[ResourceService], run: Run, dry_run: bool
) -> Iterator[Findings]:
    """Complete ``run``, and yield what was found after each step.

    The position and the counts of ``run`` are updated before.

    :param services: the resources of the installation, by type
    :param dry_run: count the corrections without making them
    :raises RelatedImagesError: if a service no longer has resources that it has just listed
    :raises StoreUnavailable: if the database fails; the next run continues there
    """
    types = [service.resource_type for service in services]
    begun = types.index(run.resource_type) if run.resource_type in types else 0
    for service in services[begun:]:
        if service.resource_type != run.resource_type:
            run.resource_type, run.after, run.listed_until = service.resource_type, "", ""
        yield from _reconcile_type(database, service, run, dry_run)
    if dry_run:
        return
    if run.is_complete and not run.is_backfill:
        # before the position is removed: the next run closes them if this one is interrupted here
        closed = [name for one in types for name in WITNESSES.get(one, ())]
        witnesses.close_gaps(database, run.installation_uuid, closed, run.started_at)
    database.write(stored_state.drop, run.position_name)
    failpoints.reach(Point.RESOURCES_FINISHED)


def _reconcile_type(
    database: Database, service: ResourceService, run: Run, dry_run: bool
) -> Iterator[Findings]:
    execute = database.read if dry_run else database.write
    task = _count if dry_run else _correct
    run.counts.doubtful += not service.is_whole()
    for findings in prefetch(_compare_all(database, service, replace(run))):
        failpoints.reach(Point.RESOURCES_COMPARED)
        run.counts = execute(task, run, findings)
        run.after, run.listed_until = findings.after, findings.listed_until
        failpoints.reach(Point.RESOURCES_SETTLED)
        yield findings
    run.counts.doubtful += not service.is_whole()


def _compare_all(database: Database, service: ResourceService, run: Run) -> Iterator[Findings]:
    """Yield the findings after the position of ``run``, in small parts."""
    position = Findings(run.after, run.listed_until)
    latest: Sequence[str] = ()
    for page in service.pages(run.listed_until):
        latest = _lasting(page) or latest
        while rows := _next_recorded(database, run, position.after, page.until):
            position = replace(position, after=rows[-1].instance_id)
            live = {row.instance_id: row.id for row in rows if row.ended_at is None}
            absent = {id: ref for id, ref in live.items() if id not in page.resources}
            found = _compare_absent(database, service, run.until, absent, position)
            if found.ended:
                found = _confirmed(service, latest, found)
            yield replace(found, others=_added(found.others, Counts(checked=len(live))))
        listed, others = list(page.resources.values()), Counts(listed=len(page.resources))
        for first in range(0, len(listed), LISTED):
            batch = listed[first : first + LISTED]
            found = _compare_listed(database, service, run, batch, position)
            others = _added(others, found.others)
            # counted with the position: an interrupted run compares the whole page again
            yield from _in_parts(replace(found, others=Counts()))
        if page.until is not None:
            position = Findings(max(position.after, page.until), page.until)
            yield replace(position, others=others)


def _in_parts(found: Findings) -> Iterator[Findings]:
    """Yield the findings with at most :data:`CORRECTED` starts, origins and owners in each part."""
    rest = found
    while (
        len(rest.starts) > CORRECTED
        or len(rest.origins) > CORRECTED
        or len(rest.owners) > CORRECTED
    ):
        yield replace(
            rest,
            starts=rest.starts[:CORRECTED],
            origins=rest.origins[:CORRECTED],
            owners=rest.owners[:CORRECTED],
        )
        rest = Findings(
            *(found.after, found.listed_until),
            starts=rest.starts[CORRECTED:],
            origins=rest.origins[CORRECTED:],
            owners=rest.owners[CORRECTED:],
        )
    yield rest


def _next_recorded(database: Database, run: Run, after: str, until: str | None) -> Sequence[Any]:
    """Return the next recorded resources to compare; none in a backfill, which ends nothing."""
    if run.is_backfill:
        return ()
    return database.read(
        recorded_resources.following, run.installation_uuid, run.resource_type, after, until
    )


def _lasting(page: Page) -> Sequence[str]:
    """Return some resources of the page that are not expected to be deleted soon."""
    lasting = [one.instance_id for one in page.resources.values() if one.launched_at is not None]
    return lasting[-PROOF:]


def _confirmed(service: ResourceService, latest: Sequence[str], found: Findings) -> Findings:
    """Return findings with the ends of resources that are gone, or without ends that are in doubt.

    :param latest: resources that the service listed last
    :raises RelatedImagesError: if it has none of them any more
    """
    if latest and all(service.look_up(one) is Presence.GONE for one in latest):
        what, name = _plural(service.resource_type), service.service_name
        raise service.untrusted(
            f"{name} no longer has the {what} that it has just listed, such as {latest[-1]}: "
            f"nothing more was changed; check the databases of {name}, then repeat the command"
        )
    if service.is_whole():
        return found
    # Nova says of servers that can be restored that they do not exist, if their cell is down
    others = _added(found.others, Counts(doubtful=len(found.ended)))
    return replace(found, ended=(), others=others)


def _compare_listed(
    database: Database,
    service: ResourceService,
    run: Run,
    listed: Sequence[Resource],
    position: Findings,
) -> Findings:
    """Compare listed resources with what is recorded of them."""
    known = _look_up(database, run.installation_uuid, run.resource_type, listed)
    failed = [
        known[one.instance_id].ref
        for one in listed
        if one.has_failed and one.instance_id in known and not known[one.instance_id].ended_at
    ]
    too_new = database.read(recorded_resources.reported_since, failed, run.until)
    there = [(one, known.get(one.instance_id)) for one in listed if not one.has_failed]
    starts, unsettled = _missing_starts(run, there)
    unknown = (
        [] if run.resource_type == SERVER else [one for one, it in there if _is_unknown(one, it)]
    )
    return replace(
        position,
        ended=set(failed) - too_new,
        restored=[it.ref for _, it in there if it and it.ended_at and it.ended_at < run.until],
        starts=starts,
        origins=_missing_origins(run, there),
        owners=_missing_owners(service, run, there),
        rejected=[one for one in unknown if one.claimed_image is not None],
        others=Counts(too_new=len(too_new), doubtful=unsettled, unknown=len(unknown)),
    )


def _look_up(
    database: Database, installation_uuid: str, resource_type: str, listed: Iterable[Resource]
) -> dict[str, Known]:
    ids = [one.instance_id for one in listed]
    return database.read(recorded_resources.look_up, installation_uuid, resource_type, ids)


_Pairs = Sequence[tuple[Resource, Known | None]]
"""Listed resources, and what is recorded of each."""


def _missing_starts(run: Run, there: _Pairs) -> tuple[list[NewRelation], int]:
    """Return the starts that are not recorded, and the number of those that are in doubt."""
    starts, unsettled = list[NewRelation](), 0
    for one, known in there:
        images = set[str]() if known is None else known.images
        if one.image_id is None or one.image_id in images:
            continue
        if one.is_image_settled:
            starts.append(_start(run.installation_uuid, one, one.image_id, is_first=not images))
        else:
            unsettled += 1
    return starts, unsettled


def _missing_origins(run: Run, there: _Pairs) -> list[NewOrigin]:
    """Return the origins that are not recorded. The resource keeps its recorded owner."""
    return [
        NewOrigin(
            InstanceRef(run.installation_uuid, one.instance_id, run.resource_type),
            InstanceRef(run.installation_uuid, one.source[1], one.source[0]),
            one.created_at,
            reported_by=BACKFILL,
        )
        for one, known in there
        if one.source is not None and (known is None or one.source not in known.origins)
    ]


def _missing_owners(service: ResourceService, run: Run, there: _Pairs) -> list[NewOwner]:
    """Return the owners that are not recorded.

    If another owner is recorded, the resource may have been transferred after it was listed.
    Therefore the service is asked again. The report of the start of a server names its owner.
    """
    owners = []
    for one, known in there:
        if known is None and run.resource_type == SERVER:
            continue
        before = None if known is None else known.project_id
        if before == one.project_id:
            continue
        if before is None or service.project_of(one.instance_id) == one.project_id:
            ref = InstanceRef(run.installation_uuid, one.instance_id, run.resource_type)
            owners.append(NewOwner(ref, before, one.project_id))
    return owners


def _is_unknown(one: Resource, known: Known | None) -> bool:
    """Return whether nothing is known of the start of a resource."""
    return one.source is None and (known is None or not (known.images or known.origins))


def _start(installation_uuid: str, one: Resource, image_id: str, *, is_first: bool) -> NewRelation:
    """Return the start of a resource.

    :param is_first: no start is recorded. Otherwise the resource was rebuilt from the image later
    """
    return NewRelation(
        InstanceRef(installation_uuid, one.instance_id),
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
    position: Findings,
) -> Findings:
    """Look up the recorded live resources that the service does not list.

    :param absent: their primary keys, by ID
    """
    too_new = database.read(recorded_resources.reported_since, absent.values(), until)
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


def _count(connection: Connection, run: Run, findings: Findings) -> Counts:
    """Return the counts that :func:`_correct` would return, without changes."""
    moved = sum(one.before is not None for one in findings.owners)
    return _added(
        run.counts,
        findings.others,
        ended=len(findings.ended),
        started=len(findings.starts) + len(findings.origins),
        restored=len(findings.restored),
        recorded=len(findings.owners) - moved,
        moved=moved,
    )


def _correct(connection: Connection, run: Run, findings: Findings) -> Counts:
    """Correct what was found and store the position, in one transaction."""
    # the origin of a resource is shown to its recorded owner
    owned = [one for one in findings.owners if recorded_resources.record_owner(connection, one)]
    moved = sum(one.before is not None for one in owned)
    starts = sum(relations.record_past(connection, new).created for new in findings.starts)
    counts = _added(
        run.counts,
        findings.others,
        started=starts
        + sum(recorded_resources.record_origin(connection, new) for new in findings.origins),
        ended=recorded_resources.end(connection, findings.ended, datetime.now(UTC), run.until),
        restored=recorded_resources.restore(connection, findings.restored, run.until),
        recorded=len(owned) - moved,
        moved=moved,
    )
    reached = replace(run, after=findings.after, listed_until=findings.listed_until, counts=counts)
    stored_state.put(connection, run.position_name, reached.as_json())
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


def _sample(database: Database, run: Run, resource_type: str) -> list[str]:
    """Return the IDs of some live resources without a report since ``run.until``.

    The IDs of a service are random, so the first ones are as good as any.
    """
    after, found = "", list[str]()
    of_type = run.installation_uuid, resource_type
    while len(found) < SAMPLE and (
        rows := database.read(recorded_resources.following, *of_type, after, None)
    ):
        live = {row.id: row.instance_id for row in rows if row.ended_at is None}
        too_new = database.read(recorded_resources.reported_since, live, run.until)
        found += [id for ref, id in live.items() if ref not in too_new]
        after = rows[-1].instance_id
    return found[:SAMPLE]
