"""The time without a lost report, and its heartbeats."""

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from queue import SimpleQueue

import pytest

from related_images.integrations import heartbeats
from related_images.integrations.heartbeats import Coverage, Heartbeat, ProcessHeartbeat

START = datetime(2026, 1, 31, tzinfo=UTC)
LONG = 60
"""Seconds that nothing here takes."""


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


@pytest.fixture
def ticking() -> Coverage:
    """A coverage whose clock goes on by a second whenever it is read, from 0."""
    seconds = count()
    return Coverage(lambda: at(next(seconds)))


def lose(covered: Coverage) -> None:
    with pytest.raises(ConnectionError), covered.report():
        raise ConnectionError


def test_it_lasts_from_the_beginning_while_no_report_is_lost(ticking: Coverage) -> None:
    assert ticking.interval() == (at(0), at(1))
    with ticking.report():  # at 2
        pass
    assert ticking.interval() == (at(0), at(3))
    assert not ticking.has_lost.is_set()


def test_it_begins_anew_after_a_lost_report(ticking: Coverage) -> None:
    lose(ticking)  # from 1 to 2
    assert ticking.has_lost.is_set()
    assert ticking.interval() == (at(2), at(3))


def test_it_ends_before_a_report_that_is_not_finished(ticking: Coverage) -> None:
    with ticking.report():  # at 1
        assert ticking.interval() == (at(0), at(1))
        lose(ticking)
        assert ticking.interval() is None
    assert ticking.interval() is not None


def test_an_interval_never_contains_a_lost_report(ticking: Coverage) -> None:
    found = []

    def fail() -> None:
        with ticking.report():
            found.append(ticking.interval())
            raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            fail()
    found.append(ticking.interval())
    intervals = [one for one in found if one is not None]
    assert len(intervals) > 1
    assert all(one[1] < next[0] for one, next in pairwise(intervals))


def test_heartbeats_state_the_coverage_of_this_process() -> None:
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    heartbeat = Heartbeat(beats.put, interval=0.01)
    for _ in range(2):
        heartbeat.ensure_running()
    first, second = (beats.get(timeout=LONG) for _ in range(2))
    assert (first.process, first.since) == (second.process, second.since)
    assert first.until < second.until
    assert f":{os.getpid()}:" in first.process
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", first.process)


def test_a_loss_is_stated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "PAUSE", 0.01)
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    heartbeat = Heartbeat(beats.put, interval=LONG * 1000)
    heartbeat.ensure_running()
    before = beats.get(timeout=LONG)
    lose(heartbeat.coverage)
    after = beats.get(timeout=LONG)
    assert (after.process, after.since > before.until) == (before.process, True)


def test_heartbeats_that_do_not_arrive_are_made_up_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    sent: list[ProcessHeartbeat] = []

    def send(beat: ProcessHeartbeat) -> None:
        sent.append(beat)
        if len(sent) <= 3:
            raise ConnectionError("nobody listens")
        beats.put(beat)

    Heartbeat(send, interval=0.01).ensure_running()
    assert beats.get(timeout=LONG).since == sent[0].since
    # one line for each failure of another kind
    assert caplog.text.count("the next one covers its time: nobody listens") == 1


def test_a_forked_process_has_its_own_heartbeats() -> None:
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    heartbeat = Heartbeat(beats.put, interval=LONG * 1000)
    heartbeat.ensure_running()
    before = beats.get(timeout=LONG)
    heartbeat._pid = os.getpid() + 1  # as in a fork of the process that has the thread
    heartbeat.ensure_running()
    after = beats.get(timeout=LONG)
    assert after.process != before.process
    assert after.since > before.since


def test_several_threads_start_one() -> None:
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    heartbeat = Heartbeat(beats.put, interval=LONG * 1000)
    threads = [threading.Thread(target=heartbeat.ensure_running) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = beats.get(timeout=LONG)
    lose(heartbeat.coverage)
    assert beats.get(timeout=LONG).process == first.process
    assert beats.empty()
