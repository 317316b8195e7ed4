"""Coverage by witnesses: heartbeats in any order, losses, comparisons, few rows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from related_images.db import clock, coverage, installations, merge, usages, witnesses
from related_images.db.database import Database
from related_images.errors import FieldInvalid
from related_images.model import (
    UNKNOWN,
    UNUSED,
    USED,
    WITNESSES,
    Coverage,
    Gap,
    Heartbeat,
    Interval,
)
from tests.db.samples import NOVA, OTHER_NOVA, at, empty, image_id, new, record

SentInterval = tuple[str, float, float]
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
    beats: Sequence[SentInterval],
    now: float,
    expected: list[tuple[float | None, float | None]],
) -> None:
    expect(database, "nova-api")
    clock_at(now)
    for one in beats:
        beat(database, *one)
    assert shown(database) == expected


def test_the_first_time_of_the_calendar_is_accepted(database: Database) -> None:
    expect(database, "nova-api")
    first = datetime.min.replace(tzinfo=UTC)
    sent = Heartbeat(NOVA, "nova-api", "a", first, first)
    assert witnesses.record(database, sent) == sent
    assert gaps(database) == [Gap(NOVA, "nova-api", None, None)]


def test_a_merge_moves_what_was_covered_and_lost(database: Database, clock_at: Any) -> None:
    clock_at(20)
    for installation in (NOVA, OTHER_NOVA):
        expect(database, "nova-api", installation=installation)
    beat(database, "a", 0, 5)
    beat(database, "a", 6, 10)
    witnesses.lose(database, NOVA, "nova-api", "loss", (at(2), at(3)))
    beat(database, "b", 10, 20, installation=OTHER_NOVA)
    record(database, new("vm-1"))
    merge.merge(database, NOVA, OTHER_NOVA)
    assert shown(database) == [(None, 0), (2, 3), (5, 6)]
    assert {gap.installation_uuid for gap in gaps(database)} == {OTHER_NOVA}


def test_a_merge_opens_the_gaps_that_a_comparison_of_one_closed(
    database: Database, clock_at: Any
) -> None:
    clock_at(20)
    expect(database, "nova-api", installation=OTHER_NOVA)
    beat(database, "a", 0, 20, installation=OTHER_NOVA)
    witnesses.close_gaps(database, OTHER_NOVA, WITNESSES, at(15))
    assert shown(database) == []
    beat(database, "b", 1, 2)
    merge.merge(database, NOVA, OTHER_NOVA)
    assert shown(database) == [(None, 0)]


def test_the_silence_of_one_queue_is_a_gap_of_its_bus(database: Database, clock_at: Any) -> None:
    expect(database, "nova-bus")
    clock_at(20)
    beat(database, "cell-1", 0, 20, witness="nova-bus")
    beat(database, "cell-2", 5, 10, witness="nova-bus")
    assert shown(database) == [(None, 0), (10, None)]
    beat(database, "cell-2", 10, 20, witness="nova-bus")
    assert shown(database) == [(None, 0)]


def _naive(beats: Sequence[SentInterval], now: float) -> list[bool]:
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


@pytest.mark.slow
@given(beats=_BEATS, order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_order_of_heartbeats_gives_the_gaps_of_a_naive_computation(
    shared: str, beats: list[SentInterval], order: Any
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


def stretches(
    database: Database, name: str = "nova-api"
) -> dict[str, list[tuple[datetime, datetime]]]:
    found = database.read(coverage.load).values()
    return next(one.stretches for one in found if one.name == name)


def test_the_intervals_of_former_processes_are_joined(database: Database, clock_at: Any) -> None:
    """Each process runs for an hour; every tenth one loses something, and one hour is silent."""
    expect(database, "nova-api")
    clock_at(60 * 200)
    for hour in (number for number in range(200) if number != 100):
        process = f"worker-{hour}"
        beat(database, process, 60 * hour, 60 * hour + 30)
        lost = 1 if hour % 10 == 0 else 0
        beat(database, process, 60 * hour + 30 + lost, 60 * hour + 60)
    found = stretches(database)
    assert len(found) <= 26
    assert len(found[""]) == 2
    holes = [(60 * hour + 30, 60 * hour + 31) for hour in range(0, 200, 10) if hour != 100]
    assert shown(database) == sorted([(None, 0), (6000, 6060), *holes], key=lambda it: it[1])


def test_many_restarts_and_losses_need_few_rows(
    database: Database, clock_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "STRETCHES_KEPT", 5)
    monkeypatch.setattr(witnesses, "INTERVALS_KEPT", 3)
    monkeypatch.setattr(witnesses, "LOSSES_KEPT", 3)
    expect(database, "nova-api")
    for number in range(40):
        beat(database, f"p-{number}", number * 10, number * 10 + 1)
        beat(database, f"p-{number}", number * 10 + 2, number * 10 + 5)
    found = stretches(database)
    assert (len(found[""]), sum(map(len, found.values()))) == (3, 8)
    (one,) = database.read(coverage.load).values()
    assert len(one.lost) == 3
    # what was forgotten is a gap, what is kept is exact
    assert shown(database)[-3:] == [(385, 390), (391, 392), (395, None)]
    assert shown(database)[0][0] is None


def test_a_comparison_closes_the_gaps_before_it(database: Database, clock_at: Any) -> None:
    expect(database, "nova-api")
    clock_at(60)
    beat(database, "a", 0, 10)
    beat(database, "b", 0, 60)
    beat(database, "a", 20, 30)
    beat(database, "a", 40, 60)
    witnesses.lose(database, NOVA, "nova-api", "letter", (at(5), at(6)))
    assert shown(database) == [(None, 0), (5, 6), (10, 20), (30, 40)]
    witnesses.close_gaps(database, NOVA, WITNESSES, at(35))
    assert shown(database) == [(35, 40)]
    assert stretches(database)["a"] == [(at(20), at(30)), (at(40), at(60))]
    # an older comparison, which ends later, changes nothing
    witnesses.close_gaps(database, NOVA, WITNESSES, at(1))
    witnesses.close_gaps(database, OTHER_NOVA, WITNESSES, at(50))
    assert shown(database) == [(35, 40)]
    witnesses.close_gaps(database, NOVA, WITNESSES, at(50))
    assert (gaps(database), list(map(len, stretches(database).values()))) == ([], [1, 1])


def test_a_queue_that_is_no_longer_used_is_forgotten_by_a_comparison_a_day_later(
    database: Database, clock_at: Any
) -> None:
    expect(database, "nova-bus")
    day = 24 * 60
    clock_at(3 * day)
    beat(database, "former", 0, 10, witness="nova-bus")
    beat(database, "present", 0, 3 * day, witness="nova-bus")
    assert shown(database) == [(None, 0), (10, None)]
    witnesses.close_gaps(database, NOVA, WITNESSES, at(day / 2))
    assert shown(database) == [(day / 2, None)]
    witnesses.close_gaps(database, NOVA, WITNESSES, at(2 * day))
    assert gaps(database) == []


def test_a_loss_ends_when_the_event_is_recorded(database: Database, clock_at: Any) -> None:
    expect(database, "nova-bus")
    beat(database, "q", 0, 1000, witness="nova-bus")
    for until in (3, 4):
        witnesses.lose(database, NOVA, "nova-bus", "one", (at(2), at(until)))
    witnesses.lose(database, NOVA, "nova-bus", "two", (at(9), at(10)))
    assert shown(database) == [(None, 0), (2, 4), (9, 10)]
    assert witnesses.find_again(database, NOVA, "nova-bus", "one")
    assert not witnesses.find_again(database, NOVA, "nova-bus", "one")
    assert shown(database) == [(None, 0), (9, 10)]


def test_only_the_gaps_after_the_creation_of_an_image_matter(
    database: Database, clock_at: Any
) -> None:
    expect(database, "nova-api")
    clock_at(60)
    beat(database, "a", 0, 10)
    beat(database, "a", 20, 60)
    image = image_id()
    found = usages.open_gaps(database)
    states = [
        usages.usages(database, [image], None, {image: "p"}, found, created_at)[0].state
        for created_at in (None, {image: at(15)}, {image: at(20)})
    ]
    assert states == [UNKNOWN, UNKNOWN, UNUSED]
    record(database, new("vm-1", image, "boot"))
    (used,) = usages.usages(database, [image], None, {image: "p"}, found, {image: at(15)})
    assert (used.state, used.gaps) == (USED, (Gap(NOVA, "nova-api", at(15), at(20)),))


def test_what_is_covered_is_shown_without_the_gaps(database: Database, clock_at: Any) -> None:
    clock_at(60)
    beat(database, "a", 0, 10)
    beat(database, "a", 20, 30)
    beat(database, "b", 5, 25)
    assert witnesses.coverages(database) == [
        Coverage(NOVA, "nova-api", (Interval(at(0), at(10)), Interval(at(20), at(30))))
    ]


def test_a_time_in_the_future_or_that_ends_before_it_begins_is_refused(
    database: Database, clock_at: Any
) -> None:
    clock_at(10)
    assert beat(database, "a", 0, 11).until == at(11)
    with pytest.raises(FieldInvalid, match="synchronize the clock"):
        beat(database, "a", 0, 11.1)
    with pytest.raises(FieldInvalid, match="until is before the field from"):
        beat(database, "a", 9, 8)
