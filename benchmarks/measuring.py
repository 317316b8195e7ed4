"""Measure alternatives alternately, so that other load of the machine affects all equally."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The results of the rounds of one side, in one unit."""

    median: float
    minimum: float
    maximum: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Aim:
    """A limit on the value of a result: an upper one, or with ``at_least`` a lower one."""

    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Result:
    """A line of the table: ``ours`` compared with ``theirs``, and the value that has an aim.

    :param what: the measured operation
    :param against: the operation that it is compared with
    :param size: the amount of data, and the database
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
    """Run the sides alternately, and return the time of each in seconds.

    The first round is a warm-up; it counts only if no other one follows. No round begins after
    ``budget`` seconds.
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
    """Return the results in another unit: multiplied with ``factor``."""
    return Spread(
        spread.median * factor, spread.minimum * factor, spread.maximum * factor, spread.rounds
    )


def ratio(over: Spread, under: Spread) -> float:
    return over.median / under.median
