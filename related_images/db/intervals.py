"""Sets of times as sorted lists of intervals. An interval is a pair: its begin and its end."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

Span = tuple[datetime, datetime]

NONE: Final = timedelta()


def joined(spans: Iterable[Span], distance: timedelta = NONE) -> list[Span]:
    """Join intervals that overlap, touch, or are at most ``distance`` apart."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin - found[-1][1] <= distance:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def between(spans: Sequence[Span]) -> list[Span]:
    """Return the times between intervals that are sorted and do not touch."""
    return [(one[1], next[0]) for one, next in pairwise(spans)]


def after(spans: Iterable[Span], begin: datetime) -> list[Span]:
    """Return the parts of intervals after a time."""
    return [(max(one, begin), end) for one, end in spans if end > begin]
