"""The markers of queues, with simulated queues: what is covered was received, and nothing more."""

import random
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from related_images.db import intervals
from related_images.db.intervals import Span
from related_images.errors import StoreUnavailable
from related_images.manage.queue_marker import QueueWatch, is_marker, queue_of
from tests.db.samples import at

SECOND = timedelta(seconds=1)


@dataclass
class Bus:
    """A queue, the listeners that share it, and what is stored.

    Each message of Nova is the time at which it was sent.
    """

    now: datetime = field(default_factory=lambda: at(0))
    queue: deque[Any] = field(default_factory=deque)
    covered: list[Span] = field(default_factory=list)
    received: set[datetime] = field(default_factory=set)
    sent: list[datetime] = field(default_factory=list)
    database_fails: bool = False
    bus_fails: bool = False

    def listener(self) -> QueueWatch:
        return QueueWatch(self._send, self._report)

    def _send(self, marker: Any) -> None:
        if self.bus_fails:
            raise OSError
        self.queue.append(marker.as_message("info"))

    def _report(self, since: datetime, until: datetime) -> None:
        if self.database_fails:
            raise StoreUnavailable("it is down")
        self.covered = intervals.joined([*self.covered, (since, until)])

    def nova_sends(self) -> None:
        self.sent.append(self.now)
        self.queue.append(self.now)

    def deliver(self, watch: QueueWatch, *, killed: bool = False) -> None:
        """Deliver one message; a killed listener processes it, but does not acknowledge it."""
        if not self.queue:
            return
        message = self.queue.popleft()
        if not is_marker(message):
            self.received.add(message)
            acknowledged = True
        else:
            assert queue_of(message) == "info"
            acknowledged = watch.receive(message, self.now)
        if killed or not acknowledged:
            self.queue.appendleft(message)

    def passes(self, watch: QueueWatch, seconds: int) -> None:
        for _ in range(seconds):
            self.now += SECOND
            watch.check(self.now)
            self.nova_sends()
            for _ in range(len(self.queue)):
                self.deliver(watch)


def test_a_listener_covers_the_time_in_which_it_listens() -> None:
    bus = Bus()
    bus.passes(bus.listener(), 60)
    ((begin, end),) = bus.covered
    assert begin == at(0) + SECOND
    assert bus.now - end < timedelta(seconds=12)


def test_a_new_listener_continues_with_the_marker_of_the_former_one() -> None:
    bus = Bus()
    for _ in range(3):
        bus.passes(bus.listener(), 60)
        bus.now += timedelta(hours=1)
        bus.nova_sends()
    bus.passes(bus.listener(), 60)
    assert len(bus.covered) == 1
    assert set(bus.sent) == bus.received


def test_a_lost_queue_is_a_gap_also_while_the_listener_runs() -> None:
    bus = Bus()
    watch = bus.listener()
    bus.passes(watch, 60)
    bus.now += SECOND
    bus.nova_sends()
    bus.queue.clear()
    bus.passes(watch, 90)
    (_, end), (begin, _) = bus.covered
    (lost,) = set(bus.sent) - bus.received
    assert end <= lost < begin


def test_what_is_covered_while_the_database_is_down_is_reported_later() -> None:
    bus = Bus()
    watch = bus.listener()
    bus.passes(watch, 30)
    bus.database_fails = True
    bus.passes(watch, 300)
    bus.database_fails = False
    bus.passes(watch, 30)
    assert len(bus.covered) == 1
    assert bus.now - bus.covered[0][1] < timedelta(seconds=15)


@pytest.mark.parametrize("seed", range(60))
def test_no_time_is_covered_in_which_a_message_was_lost(seed: int) -> None:
    chance, bus = random.Random(seed), Bus()
    watches = [bus.listener(), bus.listener()]
    losses: list[datetime] = []
    for _ in range(chance.randrange(50, 400)):
        bus.now += chance.choice((SECOND, SECOND, 40 * SECOND))
        bus.database_fails = chance.random() < 0.1
        bus.bus_fails = chance.random() < 0.1
        bus.nova_sends()
        number = chance.randrange(2)
        watches[number].check(bus.now)
        for _ in range(chance.randrange(4)):
            bus.deliver(watches[number])
        if chance.random() < 0.05:
            bus.deliver(watches[number], killed=True)
            watches[number] = bus.listener()
        if chance.random() < 0.01:
            bus.queue.clear()
            losses.append(bus.now)
    bus.database_fails = bus.bus_fails = False
    bus.passes(watches[0], 90)
    for lost in set(bus.sent) - bus.received:
        assert not any(begin < lost <= end for begin, end in bus.covered)
    # without a lost queue there is no gap, and the number of markers is that of the listeners
    if not losses:
        assert len(bus.covered) == 1
    assert sum(map(is_marker, bus.queue)) <= 2
