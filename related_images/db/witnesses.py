"""Record what the witnesses of an installation covered, and what they lost.

Heartbeats may arrive repeatedly, late and in any order: a process's intervals that overlap or touch
are joined, so that the result is the same. The number of rows of a witness stays small: see
:func:`_join_former`. A transaction that writes locks the row of the witness first.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from related_images import validation
from related_images.db import clock, coverage, installations, intervals
from related_images.db.column_types import EPOCH, MICROSECOND
from related_images.db.coverage import FORMER, SILENCE, Witness
from related_images.db.database import Database
from related_images.db.intervals import Span
from related_images.db.row_ids import (
    get_or_create,
    get_or_create_installation,
)
from related_images.db.tables import coverage as stretch
from related_images.db.tables import gap, installation, witness
from related_images.errors import FieldInvalid
from related_images.model import (
    BUSES,
    SERVER,
    Coverage,
    Gap,
    Heartbeat,
    Reporter,
)

SKEW: Final = timedelta(minutes=1)
"""How far the clock of a process may be ahead of that of the database."""

KEPT: Final = timedelta(days=1)
"""A process that is silent for longer than this is a former one."""

STRETCHES_KEPT: Final = 500
"""The largest number of intervals of the processes of a witness that are not joined."""

INTERVALS_KEPT: Final = 100
"""The largest number of joined intervals of former processes, and of those that are shown."""

LOSSES_KEPT: Final = 100
"""The largest number of losses of a witness; the oldest ones are joined."""


def record(database: Database, heartbeat: Heartbeat, reporter: Reporter | None = None) -> Heartbeat:
    """Record that a process lost nothing for a time.

    :param reporter: who reports it; ``None`` for a command
    :returns: the whole interval that the process covers, which may be longer
    :raises FieldInvalid: if the time ends before it begins, or in the future
    :raises Forbidden: if the reporter may not report on the installation
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_record, heartbeat, reporter)


def lose(database: Database, installation_uuid: str, witness: str, name: str, span: Span) -> None:
    """Record that a witness may have missed something.

    :param name: the name of the loss, for :func:`find_again`; a repetition extends it
    :param span: when the lost event may have happened
    :raises StoreUnavailable: if it could not be committed
    """
    database.write(_lose, installation_uuid, witness, name, span)


def find_again(database: Database, installation_uuid: str, witness: str, name: str) -> bool:
    """Record that what a witness missed was recorded after all.

    :param name: the name that :func:`lose` got
    :returns: whether that loss was recorded
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_find_again, installation_uuid, witness, name)


def lose_since(database: Database, since: datetime) -> list[Gap]:
    """Record that every expected witness may have lost everything from ``since`` until now.

    This is necessary after an older copy of the database was restored: a process that continues its
    interval seems to cover the lost time.

    :returns: the new gap of each expected witness
    :raises FieldInvalid: if ``since`` is in the future
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_lose_since, since)


def close_gaps(
    database: Database, installation_uuid: str, names: Collection[str], until: datetime
) -> None:
    """Record that the state of all live resources was compared with the service.

    The gaps before that do not matter any more: what is live is known.

    :param names: the witnesses
    :param until: the time of the database at which the comparison began
    :raises StoreUnavailable: if it could not be committed
    """
    database.write(_close_gaps, installation_uuid, names, until)


def move(database: Database, old: str, new: str) -> None:
    """Record for the installation ``new`` what the witnesses of ``old`` covered and lost.

    The gaps before a comparison of ``new`` alone count again, because it did not compare the
    resources of ``old``.

    :raises StoreUnavailable: if it could not be committed
    """
    database.write(_move, old, new)


def coverages(database: Database) -> list[Coverage]:
    """Return what each witness covered, with its newest intervals.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.explore(_coverages)


def _record(connection: Connection, new: Heartbeat, reporter: Reporter | None) -> Heartbeat:
    _check_times(connection, new)
    if reporter is not None:
        installations.check_reporter(connection, new, reporter)
    ref = _lock(connection, new.installation_uuid, new.witness)
    since, until = _extend(connection, ref, new.process, (new.since, new.until))
    return Heartbeat(new.installation_uuid, new.witness, new.process, since, until)


def _check_times(connection: Connection, new: Heartbeat) -> None:
    if new.until < new.since:
        raise FieldInvalid("the field until is before the field from; exchange them")
    now = clock.now(connection)
    if new.until > now + SKEW:
        raise FieldInvalid(
            f"the field until is {validation.format_time(new.until)}, and it is "
            f"{validation.format_time(now)} now; send no time in the future, and synchronize the "
            "clock of the sender"
        )


def _lock(connection: Connection, installation_uuid: str, name: str) -> int:
    """Lock the row of a witness, after creating it if needed, and return its primary key."""
    home = get_or_create_installation(connection, installation_uuid)
    key = {"installation_ref": home, "witness": name}
    is_named = witness.c.installation_ref == home, witness.c.witness == name
    locked = select(witness.c.id).where(*is_named).with_for_update()
    known = connection.execute(locked).scalar()
    if known is not None:
        return int(known)
    get_or_create(connection, witness, key)
    return int(connection.execute(locked).scalar_one())


def _of_process(ref: int, process: str) -> list[ColumnElement[bool]]:
    return [stretch.c.witness_ref == ref, stretch.c.process == process]


def _extend(connection: Connection, ref: int, process: str, new: Span) -> Span:
    """Join an interval with those of the process that it overlaps or touches; return the result."""
    near = [*_of_process(ref, process), stretch.c.covered_from <= new[1]]
    near.append(stretch.c.covered_until >= new[0])
    query = select(stretch.c.covered_from, stretch.c.covered_until).where(*near)
    known = [(row[0], row[1]) for row in connection.execute(query)]
    (whole,) = intervals.joined([*known, new])
    if known == [whole]:
        return whole
    if len(known) == 1 and known[0][0] == whole[0]:
        connection.execute(update(stretch).where(*near).values(covered_until=whole[1]))
        return whole
    connection.execute(delete(stretch).where(*near))
    _insert(connection, ref, process, [whole])
    if not known:
        _join_former(connection, ref)
    return whole


def _insert(connection: Connection, ref: int, process: str, spans: Iterable[Span]) -> None:
    rows = [
        {"witness_ref": ref, "process": process, "covered_from": begin, "covered_until": end}
        for begin, end in spans
    ]
    if rows:
        connection.execute(insert(stretch), rows)


def _join_former(connection: Connection, ref: int) -> None:
    """Join the intervals of former processes into a few, and store their holes as losses.

    On a bus, the last interval of each queue remains: the silence of one queue is a gap.
    """
    found = coverage.load(connection, witness.c.id == ref)[ref]
    former = _former(found)
    if not former:
        return
    holes = [
        (one[1], next[0])
        for process, spans in found.stretches.items()
        for one, next in pairwise(spans)
        if (process, one) in former
    ]
    for process, (begin, _) in former:
        is_one = [*_of_process(ref, process), stretch.c.covered_from == begin]
        connection.execute(delete(stretch).where(*is_one))
    before = found.stretches.get(FORMER, [])
    together = intervals.joined([*before, *(span for _, span in former)], SILENCE)
    connection.execute(delete(stretch).where(*_of_process(ref, FORMER)))
    _insert(connection, ref, FORMER, together[-INTERVALS_KEPT:])
    for hole in holes:
        _store_loss(connection, ref, _name(hole), hole)
    _join_losses(connection, ref)


def _name(span: Span) -> str:
    """Return the name of a loss that has no other one."""
    return "-".join(str((end - EPOCH) // MICROSECOND) for end in span)


def _former(found: Witness) -> list[tuple[str, Span]]:
    """Return the intervals to join, each with its process."""
    current = {name: spans for name, spans in found.stretches.items() if name != FORMER}
    last = {(name, spans[-1]) for name, spans in current.items()} if found.name in BUSES else set()
    every = [(name, span) for name, spans in current.items() for span in spans]
    every.sort(key=lambda one: one[1][1], reverse=True)
    newest = every[0][1][1]
    return [
        one
        for number, one in enumerate(every)
        if (number >= STRETCHES_KEPT or newest - one[1][1] > KEPT) and one not in last
    ]


def _lose(
    connection: Connection, installation_uuid: str, name_of_witness: str, name: str, span: Span
) -> None:
    ref = _lock(connection, installation_uuid, name_of_witness)
    _store_loss(connection, ref, name, span)
    _join_losses(connection, ref)


def _lose_since(connection: Connection, since: datetime) -> list[Gap]:
    span = since, now = since, clock.now(connection)
    if since > now:
        raise FieldInvalid(
            f"the time {validation.format_time(since)} is in the future, and it is "
            f"{validation.format_time(now)} now; give the time at which the copy began"
        )
    found = []
    for one in coverage.load(connection, *coverage.EXPECTED).values():
        _lose(connection, one.installation_uuid, one.name, _name(span), span)
        begin = None if since == EPOCH else since
        found.append(Gap(one.installation_uuid, one.name, begin, now))
    return found


def _find_again(
    connection: Connection, installation_uuid: str, name_of_witness: str, name: str
) -> bool:
    ref = _lock(connection, installation_uuid, name_of_witness)
    return bool(connection.execute(delete(gap).where(*_is_loss(ref, name))).rowcount)


def _is_loss(ref: int, name: str) -> list[ColumnElement[bool]]:
    return [gap.c.witness_ref == ref, gap.c.name == name]


def _store_loss(connection: Connection, ref: int, name: str, span: Span) -> None:
    """Store a loss, or extend that with the same name."""
    known = connection.execute(
        select(gap.c.lost_from, gap.c.lost_until).where(*_is_loss(ref, name))
    ).first()
    if known is None:
        values = {"lost_from": span[0], "lost_until": span[1]}
        connection.execute(insert(gap).values(witness_ref=ref, name=name, **values))
        return
    values = {"lost_from": min(span[0], known[0]), "lost_until": max(span[1], known[1])}
    connection.execute(update(gap).where(*_is_loss(ref, name)).values(**values))


def _join_losses(connection: Connection, ref: int) -> None:
    """Join the oldest losses into one, with the times between them, if there are too many."""
    query = select(gap.c.name, gap.c.lost_from, gap.c.lost_until).where(gap.c.witness_ref == ref)
    losses = connection.execute(query.order_by(gap.c.lost_from, gap.c.name)).all()
    oldest = losses[: len(losses) - LOSSES_KEPT + 1]
    if len(oldest) > 1:
        names = [row.name for row in oldest]
        connection.execute(delete(gap).where(gap.c.witness_ref == ref, gap.c.name.in_(names)))
        span = oldest[0].lost_from, max(row.lost_until for row in oldest)
        _store_loss(connection, ref, _name(span), span)


def _close_gaps(
    connection: Connection, installation_uuid: str, names: Collection[str], until: datetime
) -> None:
    home = select(installation.c.id).where(
        installation.c.uuid == installation_uuid, installation.c.resource_type == SERVER
    )
    own = witness.c.installation_ref == home.scalar_subquery(), witness.c.witness.in_(names)
    refs = select(witness.c.id).where(*own).order_by(witness.c.id).with_for_update()
    for ref in connection.execute(refs).scalars().all():
        is_older = witness.c.id == ref, witness.c.compared_at < until
        connection.execute(update(witness).where(*is_older).values(compared_at=until))
        connection.execute(delete(gap).where(gap.c.witness_ref == ref, gap.c.lost_until <= until))
        _drop_before(connection, coverage.load(connection, witness.c.id == ref)[ref], until)


def _move(connection: Connection, old: str, new: str) -> None:
    refs = select(witness.c.id).join(installation, installation.c.id == witness.c.installation_ref)
    of_old = refs.where(installation.c.uuid == old).order_by(witness.c.id)
    connection.execute(of_old.with_for_update(of=witness)).all()
    for one in coverage.load(connection, installation.c.uuid == old).values():
        if not one.stretches and not one.lost:
            continue
        ref = _lock(connection, new, one.name)
        for process, spans in one.stretches.items():
            for span in spans:
                _extend(connection, ref, process, span)
        for span in one.lost:
            _store_loss(connection, ref, _name(span), span)
        _join_losses(connection, ref)
        is_later = witness.c.id == ref, witness.c.compared_at > one.compared_at
        connection.execute(update(witness).where(*is_later).values(compared_at=one.compared_at))
        for table in (stretch, gap):
            connection.execute(delete(table).where(table.c.witness_ref == one.ref))


def _drop_before(connection: Connection, found: Witness, until: datetime) -> None:
    """Remove the intervals that do not matter after a comparison that began at ``until``.

    The interval before a hole that ends later remains, and so does the last one of each process,
    unless it is a former one: a queue that is no longer used.
    """
    for process, spans in found.stretches.items():
        for number, (begin, end) in enumerate(spans, 1):
            is_followed = number < len(spans) and spans[number][0] <= until
            if is_followed or end < until - KEPT:
                is_one = [*_of_process(found.ref, process), stretch.c.covered_from == begin]
                connection.execute(delete(stretch).where(*is_one))


def _coverages(connection: Connection) -> list[Coverage]:
    now = clock.now(connection)
    return [
        Coverage(
            *(one.installation_uuid, one.name),
            tuple(one.covered(now)[-INTERVALS_KEPT:]),
        )
        for one in coverage.load(connection).values()
    ]
