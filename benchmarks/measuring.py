"""Measuring several ways of doing a thing in turns, so that a busy machine is as busy for each."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """What the rounds of one side gave, in one unit."""

    median: float
    minimum: float
    maximum: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Aim:
    """A limit on the ratio of a result: at most, or with ``at_least`` at least."""

    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Result:
    """One line of the table: ``ours`` against ``theirs``, and the number that is aimed at.

    :param what: what was done
    :param against: what it is compared with
    :param size: how much there was, and where
    """

    what: str
    against: str
    size: str
    unit: str
    ours: Spread
    theirs: Spread
    value: float
    value_unit: str = "x"
    aim: Aim | None = None
    note: str = ""
    curve: tuple[str, int] | None = field(default=None)

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return ""
        if self.aim.is_met(self.value):
            return "met"
        off = abs(self.value / self.aim.limit - 1)
        return f"missed by {off:.0%}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def in_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    budget: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Spread]:
    """The seconds that each side takes, one after the other, round by round.

    The first round warms up; it is counted only if no other follows. After ``budget`` seconds no
    round is begun.
    """
    taken: list[dict[str, float]] = []
    until = time.monotonic() + budget
    while not taken or (len(taken) <= rounds and time.monotonic() < until):
        taken.append({name: _seconds_of(side, clock) for name, side in sides.items()})
    counted = taken[1:] or taken
    return {name: Spread.of([one[name] for one in counted]) for name in sides}


def _seconds_of(side: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    side()
    return clock() - begun


def scaled(spread: Spread, factor: float) -> Spread:
    """The same in another unit, of which ``factor`` make one of the first."""
    return Spread(
        spread.median * factor, spread.minimum * factor, spread.maximum * factor, spread.rounds
    )


def ratio(over: Spread, under: Spread) -> float:
    return over.median / under.median
