"""The times that the witnesses of the installations covered, and the gaps between them.

A witness reports through processes: the workers of a service, or the queues of a message bus. Each
process states the intervals in which it lost nothing. A time is a gap of the witness:

* if a process lost something in it, although others reported: a report goes to one process only;
* if no process covered it, and it is longer than :data:`SILENCE` or before all intervals;
* on a bus, if one queue is silent for longer than that now, whatever the others do.

The gaps before the last complete comparison with the service do not matter: what is live then is
known. If no expected witness has a gap between the creation of an image and now, every use of the
image is recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, select

from related_images.db import clock, intervals
from related_images.db.column_types import EPOCH, FOREVER, WITNESS_CODES, is_known
from related_images.db.intervals import Span
from related_images.db.tables import coverage, gap, installation, witness
from related_images.model import BUSES, Gap, Interval

SILENCE: Final = timedelta(minutes=3)
"""The longest time without a heartbeat that does not count as a gap."""

FORMER: Final = ""
"""The process of intervals that join those of former processes."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness of an installation, with what is stored of it.

    :ivar ref: the primary key of its row
    :ivar compared_at: when the last complete comparison with the service began, or the epoch
    :ivar stretches: the intervals of each process, in their order
    :ivar lost: further times in which it lost something
    """

    ref: int
    installation_uuid: str
    name: str
    compared_at: datetime
    stretches: dict[str, list[Span]] = field(default_factory=dict)
    lost: list[Span] = field(default_factory=list)

    def gaps(self, now: datetime) -> list[Span]:
        """Return all gaps, oldest first; the last one has no end if it lasts."""
        processes = [spans for name, spans in self.stretches.items() if name != FORMER]
        covered = intervals.joined(_all(self.stretches.values()), SILENCE)
        if not covered:
            return [(EPOCH, FOREVER)]
        ends = [spans[-1][1] for spans in processes] if self.name in BUSES else []
        silent = [(end, FOREVER) for end in ends or [covered[-1][1]] if now - end > SILENCE]
        holes = _all(map(intervals.between, processes))
        before = (EPOCH, covered[0][0])
        return intervals.joined([before, *intervals.between(covered), *holes, *self.lost, *silent])

    def covered(self, now: datetime) -> list[Interval]:
        """Return the times between the gaps, oldest first."""
        ends = [end for _, end in _all(self.stretches.values())]
        if not ends:
            return []
        gaps = intervals.joined([*self.gaps(now), (max(ends), FOREVER)])
        return [Interval(*span) for span in intervals.between(gaps)]


def _all(lists: Iterable[Iterable[Span]]) -> list[Span]:
    return [span for spans in lists for span in spans]


_witnesses: Final = (
    select(witness.c.id, installation.c.uuid, witness.c.witness, witness.c.compared_at)
    .join(installation, installation.c.id == witness.c.installation_ref)
    .where(is_known(witness.c.witness, WITNESS_CODES))
    .order_by(installation.c.uuid, witness.c.witness)
)
EXPECTED: Final = (witness.c.expected == 1, installation.c.registered_at.is_not(None))
"""The conditions for the expected witnesses of registered installations."""


def load(connection: Connection, *conditions: ColumnElement[bool]) -> dict[int, Witness]:
    """Return the witnesses that match, with all that is stored of them, by primary key."""
    rows = connection.execute(_witnesses.where(*conditions))
    found = {row[0]: Witness(*row) for row in rows}
    if not found:
        return found
    stretches = (
        select(coverage)
        .where(coverage.c.witness_ref.in_(found))
        .order_by(coverage.c.witness_ref, coverage.c.process, coverage.c.covered_from)
    )
    for ref, process, begin, end in connection.execute(stretches):
        found[ref].stretches.setdefault(process, []).append((begin, end))
    losses = select(gap.c.witness_ref, gap.c.lost_from, gap.c.lost_until)
    for ref, begin, end in connection.execute(losses.where(gap.c.witness_ref.in_(found))):
        found[ref].lost.append((begin, end))
    return found


def gaps(connection: Connection) -> list[Gap]:
    """Return the gaps of all expected witnesses that no comparison closed, oldest first."""
    witnesses = load(connection, *EXPECTED)
    if not witnesses:
        return []
    now = clock.now(connection)
    found = [
        (span, one)
        for one in witnesses.values()
        for span in intervals.after(one.gaps(now), one.compared_at)
    ]
    return [
        Gap(
            *(one.installation_uuid, one.name),
            *(None if begin == EPOCH else begin, None if end == FOREVER else end),
        )
        for (begin, end), one in sorted(found, key=lambda pair: pair[0])
    ]


def of_image(gaps: Iterable[Gap], created_at: datetime | None) -> list[Gap]:
    """Return the gaps in which a use of an image may have been missed.

    :param gaps: the result of :func:`gaps`
    :param created_at: when the image was created; ``None`` if that is unknown
    """
    if created_at is None:
        return list(gaps)
    return [
        replace(one, since=max(one.since or created_at, created_at))
        for one in gaps
        if one.until is None or one.until > created_at
    ]
