"""The circuit breaker: its errors while it is open, and how it closes."""

import threading
import time

import pytest

from related_images.db.circuit_breaker import Breaker
from related_images.errors import StoreUnavailable

PATIENCE = 60


class Probed:
    """A breaker whose probe fails with the given errors, one after the other."""

    def __init__(self, *failures: Exception) -> None:
        self.told: list[str] = []
        self.ended = threading.Event()
        self._failures = list(failures)
        self.breaker = Breaker("asking")

    def trip(self, error: StoreUnavailable) -> None:
        self.breaker.trip(error, self.probe)

    def probe(self) -> None:
        self.told.append(self.says())
        if self._failures:
            raise self._failures.pop(0)
        self.ended.set()

    def says(self) -> str:
        try:
            self.breaker.check()
        except StoreUnavailable as error:
            return str(error)
        return "works"


def test_an_open_breaker_raises_the_newest_error() -> None:
    probed = Probed(StoreUnavailable("starting"), StoreUnavailable("no tables"))
    assert probed.says() == "works"
    probed.trip(StoreUnavailable("refused"))
    assert probed.ended.wait(PATIENCE)
    assert probed.told == ["refused", "starting", "no tables"]
    _join()
    assert probed.says() == "works"


def test_an_unexpected_error_of_a_probe_does_not_stop_the_probes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probed = Probed(ZeroDivisionError("a fault"), ZeroDivisionError("another"))
    probed.trip(StoreUnavailable("refused"))
    assert probed.ended.wait(PATIENCE)
    _join()
    assert probed.says() == "works"
    assert caplog.text.count("ZeroDivisionError") == 2


def test_without_a_thread_for_probes_the_breaker_stays_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    probed = Probed()
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", failing)
        probed.trip(StoreUnavailable("refused"))
    assert probed.says() == "works"
    assert "cannot be watched: can't start new thread" in caplog.text
    probed.trip(StoreUnavailable("refused again"))
    assert probed.ended.wait(PATIENCE)
    _join()
    assert probed.told == ["refused again"]


def test_tripping_an_open_breaker_keeps_its_error() -> None:
    held = threading.Event()

    def probe() -> None:
        held.wait(PATIENCE)

    breaker = Breaker("asking")
    breaker.trip(StoreUnavailable("refused"), probe)
    breaker.trip(StoreUnavailable("again"), probe)
    with pytest.raises(StoreUnavailable, match="refused"):
        breaker.check()
    held.set()
    _join()


def test_a_reset_stops_the_probes_and_a_later_failure_starts_them_again() -> None:
    probed = Probed(*[StoreUnavailable("refused still")] * 1000)
    for reason in ("refused", "refused again"):
        probed.trip(StoreUnavailable(reason))
        assert probed.says() != "works"
        probed.breaker.reset()
        assert probed.says() == "works"
        assert _watches() == []
    probed.breaker.reset()
    assert not probed.ended.is_set()


def test_a_reset_does_not_wait_for_the_next_probe(asleep: threading.Event) -> None:
    probed = Probed(StoreUnavailable("refused still"))
    probed.trip(StoreUnavailable("refused"))
    assert asleep.wait(PATIENCE)
    probed.breaker.reset()
    assert probed.told == ["refused"]
    assert _watches() == []


def test_a_probe_that_succeeds_after_a_reset_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    begun, held = threading.Event(), threading.Event()

    def probe() -> None:
        begun.set()
        held.wait(PATIENCE)

    breaker = Breaker("asking")
    breaker.trip(StoreUnavailable("refused"), probe)
    assert begun.wait(PATIENCE)
    ending = threading.Thread(target=breaker.reset)
    ending.start()
    while breaker._watch is not None:
        time.sleep(0.01)
    held.set()
    ending.join(PATIENCE)
    assert _watches() == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def _join() -> None:
    for thread in _watches():
        thread.join(PATIENCE)


def _watches() -> list[threading.Thread]:
    return [it for it in threading.enumerate() if it.name == "related-images asking"]
