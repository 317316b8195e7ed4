"""Coverage by witnesses: heartbeats in any order, losses, comparisons, few rows."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from related_images.db import clock, coverage, installations, witnesses
from related_images.db.database import Database
from related_images.model import (
    Gap,
    Heartbeat,
)
from tests.db.samples import NOVA, at

Beat = tuple[str, float, float]
"""A process, and the begin and the end of what it covers, in minutes after noon."""


def beat(
    database: Database,
    process: str,
    begin: float,
    end: float,
    *,
    witness: str = "nova-api",
    installation: str = NOVA,
) -> Heartbeat:
    return witnesses.record(database, Heartbeat(installation, witness, process, at(begin), at(end)))


def expect(database: Database, *names: str, installation: str = NOVA) -> None:
    installations.register(database, installation, installation, (), names)


@pytest.fixture
def clock_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the time of the database, in minutes after noon."""

    def set_to(minutes: float) -> None:
        monkeypatch.setattr(clock, "now", lambda connection: at(minutes))

    set_to(1000)
    return set_to


def gaps(database: Database) -> list[Gap]:
    return database.read(coverage.gaps)


def shown(database: Database) -> list[tuple[float | None, float | None]]:
    """Return the gaps in minutes after noon."""

    def minutes(time: datetime | None) -> float | None:
        return None if time is None else (time - at(0)) / timedelta(minutes=1)

    return [(minutes(one.since), minutes(one.until)) for one in gaps(database)]


def test_the_clock_of_the_database_is_close_to_ours(database: Database) -> None:
    from datetime import UTC

    before = datetime.now(UTC)
    assert abs(database.read(clock.now) - before) < timedelta(minutes=1)


def test_without_expected_witnesses_there_are_no_gaps(database: Database, clock_at: Any) -> None:
    expect(database)
    beat(database, "a", 0, 1)
    assert gaps(database) == []


def test_a_witness_that_never_reported_has_a_gap_without_ends(
    database: Database, clock_at: Any
) -> None:
    expect(database, "nova-bus")
    assert gaps(database) == [Gap(NOVA, "nova-bus", None, None)]


@pytest.mark.parametrize(
    ("beats", "now", "expected"),
    [
        ([("a", 0, 9)], 12, [(None, 0)]),
        ([("a", 0, 9)], 12.1, [(None, 0), (9, None)]),
        ([("a", 0, 9), ("b", 12, 15)], 15, [(None, 0)]),
        ([("a", 0, 9), ("b", 12.1, 15)], 15, [(None, 0), (9, 12.1)]),
        # what one process lost is lost, although the other one reported
        ([("a", 0, 9), ("b", 0, 15), ("a", 10, 15)], 15, [(None, 0), (9, 10)]),
        ([("a", 0, 9), ("a", 9, 15)], 15, [(None, 0)]),
        # a late heartbeat fills the hole
        ([("a", 0, 9), ("a", 10, 15), ("a", 8, 11)], 15, [(None, 0)]),
    ],
)
def test_gaps_of_a_service(
    database: Database,
    clock_at: Any,
    beats: Sequence[Beat],
    now: float,
    expected: list[tuple[float | None, float | None]],
) -> None:
    expect(database, "nova-api")
    clock_at(now)
    for one in beats:
        beat(database, *one)
    assert shown(database) == expected


def test_the_silence_of_one_queue_is_a_gap_of_its_bus(database: Database, clock_at: Any) -> None:
    expect(database, "nova-bus")
    clock_at(20)
    beat(database, "cell-1", 0, 20, witness="nova-bus")
    beat(database, "cell-2", 5, 10, witness="nova-bus")
    assert shown(database) == [(None, 0), (10, None)]
    beat(database, "cell-2", 10, 20, witness="nova-bus")
    assert shown(database) == [(None, 0)]


def _naive(beats: Sequence[Beat], now: float) -> list[bool]:
    """Return for each half minute from 0 to ``now`` whether it is a gap, from all heartbeats."""
    last = round(now * 2)

    def covered(process: str | None, half: int) -> bool:
        return any(
            begin * 2 <= half and half + 1 <= end * 2
            for name, begin, end in beats
            if process in (None, name)
        )

    lost = [False] * last
    for process in {name for name, _, _ in beats}:
        own = [covered(process, half) for half in range(last)]
        points = [half for name, *ends in beats if name == process for half in ends]
        first, final = round(min(points) * 2), round(max(points) * 2)
        for half in range(first, final):
            lost[half] |= not own[half]
    anyone = [covered(None, half) for half in range(last)]
    points = sorted({round(end * 2) for _, *ends in beats for end in ends})
    for half in range(last):
        if anyone[half]:
            continue
        before = max((end for end in points if end <= half), default=None)
        after = min((end for end in points if end > half), default=last)
        lost[half] |= before is None or after - before > 6
    return lost


_BEATS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 20)).map(
        lambda it: (it[0], it[1] / 2, (it[1] + it[2]) / 2)
    ),
    min_size=1,
    max_size=12,
)


@given(beats=_BEATS, order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_order_of_heartbeats_gives_the_gaps_of_a_naive_computation(
    shared: str, beats: list[Beat], order: Any
) -> None:
    database = Database(shared, 10.0)
    now = 45.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda connection: at(now))
        expect(database, "nova-api")
        sent = [*beats, *beats[:3]]
        order.shuffle(sent)
        for one in sent:
            beat(database, *one)
        found = shown(database)
    from tests.db.samples import empty

    database.write(empty)
    database.close()
    halves = [
        any(
            (begin is None or begin * 2 <= half) and (end is None or half + 1 <= end * 2)
            for begin, end in found
        )
        for half in range(round(now * 2))
    ]
    assert halves == _naive(beats, now)
