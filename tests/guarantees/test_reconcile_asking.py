"""The requests of ``reconcile`` to Glance: credentials, rate, timeouts, progress."""

import json
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from benchmarks.filling import Cloud, fill
from related_images.db import schema, tables
from related_images.manage import cloud_options, rate_limit
from tests.client.scripted import HANG_UP, Asked, Reply, Scripted
from tests.guarantees.reconciling import ADMIN, NOW, FakeGlance, Reconciler, new_id
from tests.servers import RELATED_IMAGES, ServedGlance

pytestmark = pytest.mark.slow

A_MINUTE = timedelta(minutes=1)

WAIT = 5
"""The timeout in seconds in clouds.yaml; every response comes sooner, also on a busy machine."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of clouds.yaml; the environment has no other setting of OpenStack."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    return tmp_path


def write_clouds(home: Path, cloud: Any) -> None:
    """Write clouds.yaml; JSON is valid YAML."""
    (home / "clouds.yaml").write_text(json.dumps({"clouds": {"admin": cloud}}))


CREDENTIALS = [
    ("admin_token", {"token": ADMIN}, ("x-auth-token", ADMIN)),
    ("http_basic", {"username": "root", "password": "pw"}, ("authorization", "Basic cm9vdDpwdw==")),
    ("none", {}, ("x-auth-token", "notused")),
]


@pytest.mark.parametrize("place", ["clouds.yaml", "variables", "options"])
@pytest.mark.parametrize(("method", "auth", "header"), CREDENTIALS, ids=lambda part: str(part))
def test_credentials_are_read_as_by_the_openstack_command(
    reconciler: Reconciler,
    scripted: Scripted,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    method: str,
    auth: dict[str, str],
    header: tuple[str, str],
) -> None:
    known = new_id()
    reconciler.announce(known)
    scripted.script = FakeGlance(known)
    said = {"endpoint": scripted.url, **auth}
    options: list[str] = []
    if place == "clouds.yaml":
        write_clouds(home, {"auth_type": method, "auth": said})
        options = ["--os-cloud", "admin"]
    if place == "variables":
        for name, text in {"auth_type": method, **said}.items():
            monkeypatch.setenv(f"OS_{name.upper()}", text)
    if place == "options":
        pairs = {"auth-type": method, **said}.items()
        options = [word for name, text in pairs for word in (f"--os-{name}", text)]
    assert reconciler.code(*NOW, *options) == 0
    assert {asked.headers.get(header[0]) for asked in scripted.asked} == {header[1]}
    assert len(scripted.asked) >= 3


def test_the_command_line_overrides_the_environment(
    reconciler: Reconciler, scripted: Scripted, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script = FakeGlance()
    write_clouds(
        home, {"auth_type": "admin_token", "auth": {"endpoint": scripted.url, "token": "wrong"}}
    )
    monkeypatch.setenv("OS_CLOUD", "admin")
    assert reconciler.code("--os-token", ADMIN) == 0
    assert {asked.headers["x-auth-token"] for asked in scripted.asked} == {ADMIN}


def test_a_cloud_of_clouds_yaml_is_reconciled_with_the_real_glance(
    reconciler: Reconciler, served: ServedGlance, home: Path
) -> None:
    missing = new_id()
    reconciler.announce(missing)
    write_clouds(
        home, {"auth_type": "admin_token", "auth": {"endpoint": served.url, "token": ADMIN}}
    )
    assert reconciler.code("--os-cloud", "admin", *NOW, "--allow-empty-glance") == 0
    assert reconciler.is_marked(missing)


@pytest.mark.parametrize(
    ("clouds", "said"),
    [
        ("{}", "Cloud admin was not found"),
        ("{", "Cloud admin was not found"),
        ("[5]", "not a valid mapping"),
        ('{"clouds": 5}', "of the wrong type"),
        ('{"clouds": {"admin": 5}}', "of the wrong type"),
        ('{"clouds": {"admin": {"auth": 5}}}', "of the wrong type"),
        ('{"clouds": {"admin": {"api_timeout": "soon", "auth_type": "none"}}}', "wrong type"),
        ('{"clouds": {"admin": {"auth_type": "nonsense"}}}', "nonsense could not be found"),
        ('{"clouds": {"admin": {"auth_type": "password"}}}', "auth_url"),
        ('{"clouds": {"admin": {"auth_type": "none"}}}', "no endpoint of an image service"),
    ],
)
def test_an_unusable_clouds_yaml_is_reported(
    reconciler: Reconciler,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    clouds: str,
    said: str,
) -> None:
    reconciler.announce(missed := new_id())
    (home / "clouds.yaml").write_text(clouds)
    assert reconciler.code("--os-cloud", "admin", *NOW) == 1
    assert said in capsys.readouterr().err
    assert not reconciler.is_marked(missed)


class Clock:
    """A clock that advances with each sleep and each request."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the command's rate limit."""
    found, real = Clock(), rate_limit.RateLimit
    monkeypatch.setattr(rate_limit, "RateLimit", lambda rate: real(rate, found, found.sleep))
    return found


def test_requests_are_evenly_spread(clock: Clock) -> None:
    limit = rate_limit.RateLimit(4)
    times = []
    for _ in range(9):
        limit.wait()
        times.append(clock.now - 1000)
    assert times == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]


def test_unused_time_does_not_raise_the_rate(clock: Clock) -> None:
    limit = rate_limit.RateLimit(4)
    limit.wait()
    clock.now += 60
    limit.wait()
    assert clock.slept == []
    limit.wait()
    assert clock.slept == [0.25]


def test_no_window_holds_more_requests_than_the_rate(
    reconciler: Reconciler, scripted: Scripted, clock: Clock
) -> None:
    known = new_id()
    ids = [known, *(new_id() for _ in range(30))]
    reconciler.announce(*ids, age=A_MINUTE)
    sound, times = FakeGlance(known), list[float]()

    def answer(asked: Asked) -> Reply | None:
        times.append(clock.now)
        number = len(times)
        clock.now += (0.0, 0.1, 0.6)[number % 3]
        if number in (5, 11):
            return HANG_UP
        return Reply(503, b"", {"Retry-After": "0"}) if number in (8, 9) else sound(asked)

    scripted.script = answer
    assert reconciler.run(*NOW, "--rate", "4")["marked_deleted"] == 30
    assert len(times) > 35
    assert min(fifth - first for first, fifth in zip(times, times[4:], strict=False)) > 1 - 1e-9


def test_retry_after_is_respected(reconciler: Reconciler, scripted: Scripted, clock: Clock) -> None:
    known, missed = new_id(), new_id()
    reconciler.announce(known, missed)
    sound, busy = FakeGlance(known), [Reply(503, b"", {"Retry-After": "7"})] * 3
    scripted.script = lambda asked: busy.pop() if busy else sound(asked)
    assert reconciler.run(*NOW)["marked_deleted"] == 1
    assert clock.slept.count(7) == 3


def test_a_restart_of_glance_is_waited_for(
    reconciler: Reconciler, scripted: Scripted, clock: Clock
) -> None:
    known, missed = new_id(), new_id()
    reconciler.announce(known, missed)
    sound, begun = FakeGlance(known), clock.now
    scripted.script = lambda asked: sound(asked) if clock.now > begun + 10 else HANG_UP
    assert reconciler.run(*NOW)["marked_deleted"] == 1
    assert clock.slept[:3] == [2, 4, 8]


def unavailable(retry_after: str) -> Reply:
    return Reply(503, b"", {"Retry-After": retry_after})


@pytest.mark.parametrize(
    ("reply", "said", "attempts"),
    [
        (unavailable("7"), "answered 503: Service Unavailable; try again after 7 seconds", 4),
        (unavailable("61"), "answered 503: Service Unavailable; try again after 61 seconds", 1),
        (unavailable("soon"), "answered 503: Service Unavailable; try again\n", 1),
        (Reply(503), "answered 503: {}; try again\n", 1),
        (HANG_UP, "got no answer", 4),
    ],
    ids=["for seconds", "for long", "for nobody knows how long", "without a word", "unconnected"],
)
def test_a_run_that_ends_because_glance_is_unavailable_is_continued_later(
    reconciler: Reconciler,
    scripted: Scripted,
    clock: Clock,
    reply: Reply | None,
    said: str,
    attempts: int,
) -> None:
    ids = [new_id() for _ in range(250)]
    reconciler.announce(*ids, age=A_MINUTE)
    sound = FakeGlance(*ids[:120], *ids[121:])
    scripted.script = lambda asked: reply if asked.path.endswith(ids[120]) else sound(asked)
    assert said in reconciler.refusal(*NOW)
    assert len([asked for asked in scripted.asked if asked.path.endswith(ids[120])]) == attempts
    assert not reconciler.is_marked(ids[120])
    _is_continued(reconciler, scripted, sound, ids)


def _is_continued(
    reconciler: Reconciler, scripted: Scripted, sound: FakeGlance, ids: list[str]
) -> None:
    """Assert that the next run skips the first batch of a hundred and corrects the rest."""
    scripted.script = sound
    scripted.asked.clear()
    counts = reconciler.run(*NOW)
    assert (counts["checked"], counts["present"], counts["marked_deleted"]) == (250, 249, 1)
    assert reconciler.is_marked(ids[120])
    assert not any(ids[0] in asked.query for asked in scripted.asked)


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that accepts connections and never responds."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def impatient(home: Path, endpoint: str) -> tuple[str, ...]:
    """Return the options for a cloud with a timeout of ``WAIT`` seconds."""
    auth = {"endpoint": endpoint, "token": ADMIN}
    write_clouds(home, {"auth_type": "admin_token", "auth": auth, "api_timeout": WAIT})
    return ("--os-cloud", "admin", *NOW)


def test_the_timeout_of_clouds_yaml_applies(home: Path) -> None:
    impatient(home, "http://127.0.0.1:9")
    assert cloud_options.image_adapter(Namespace(os_cloud="admin")).session.timeout == WAIT
    (home / "clouds.yaml").unlink()
    named = Namespace(os_auth_type="admin_token", os_endpoint="http://127.0.0.1:9", os_token=ADMIN)
    assert cloud_options.image_adapter(named).session.timeout == cloud_options.TIMEOUT


def test_a_glance_that_never_responds_ends_the_run(
    reconciler: Reconciler, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reconciler.announce(missed := new_id())
    with silence() as endpoint:
        assert reconciler.code(*impatient(home, endpoint)) == 1
    said = capsys.readouterr().err
    assert "GET /v2/tasks got no answer" in said
    assert "check the endpoint" in said
    assert not reconciler.is_marked(missed)


def test_a_run_that_ends_because_glance_stops_responding_is_continued_later(
    reconciler: Reconciler,
    scripted: Scripted,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = [new_id() for _ in range(250)]
    reconciler.announce(*ids, age=A_MINUTE)
    sound, over = FakeGlance(*ids[:120], *ids[121:]), threading.Event()

    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith(ids[120]):
            return sound(asked)
        over.wait()
        return HANG_UP

    scripted.script = answer
    try:
        assert reconciler.code(*impatient(home, scripted.url)) == 1
    finally:
        over.set()
    assert f"GET /v2/images/{ids[120]} got no answer" in capsys.readouterr().err
    assert len([asked for asked in scripted.asked if asked.path.endswith(ids[120])]) == 1
    assert not reconciler.is_marked(ids[120])
    _is_continued(reconciler, scripted, sound, ids)


def _command(reconciler: Reconciler) -> list[str]:
    return [sys.executable, "-c", RELATED_IMAGES, *reconciler.arguments(*NOW)]


@pytest.fixture
def five(reconciler: Reconciler, scripted: Scripted) -> Reconciler:
    """A database with five images, which Glance has."""
    ids = [new_id() for _ in range(5)]
    reconciler.announce(*ids)
    scripted.script = FakeGlance(*ids)
    return reconciler


def test_progress_is_shown_on_a_terminal(five: Reconciler) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(_command(five), stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b"".join(_read_all(ours)).decode()
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    assert "100%" in shown
    assert " 5/5 " in shown
    assert printed.count("\n") == 1
    assert json.loads(printed)["present"] == 5


def _read_all(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until it is closed, which raises an error."""
    with suppress(OSError):
        while piece := os.read(terminal, 4096):
            yield piece


def test_without_a_terminal_only_the_counts_are_shown(five: Reconciler) -> None:
    done = subprocess.run(_command(five), capture_output=True, check=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["present"] == 5


MEASURED = """
import gc, sys, tracemalloc, urllib.parse
from related_images import failpoints
from related_images.manage import main

def measure(point):
    if point is failpoints.Point.RECONCILE_SETTLED:
        if not tracemalloc.is_tracing():
            gc.freeze()
            tracemalloc.start()
        urllib.parse.clear_cache()  # bounded, but not full after a few batches
        gc.collect()
    if point is failpoints.Point.RECONCILE_FINISHED:
        print(tracemalloc.get_traced_memory()[1])

failpoints.hook = measure
sys.exit(main())
"""
"""The command; it prints the peak of its memory in bytes after the first batch."""


LATER = datetime(2099, 1, 1, tzinfo=UTC)


class GlanceWithEveryImage(FakeGlance):
    def made_at(self) -> datetime:
        return LATER

    def knows(self, image_id: str) -> bool:
        return True


def test_memory_does_not_grow_with_the_relations(
    scripted: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.script = GlanceWithEveryImage()
    peaks = [_peak(1_000, scripted, tmp_path, capsys), _peak(10_000, scripted, tmp_path, capsys)]
    print(f"bytes at the most: {peaks}")
    assert peaks[1] < 1.5 * peaks[0]


def _peak(
    relations: int, scripted: Scripted, directory: Path, capsys: pytest.CaptureFixture[str]
) -> int:
    connection = f"sqlite:///{directory}/{relations}.db"
    fill(connection, Cloud(relations))
    with schema.connected(connection) as opened:
        opened.execute(update(tables.image).values(created_at=LATER))
        opened.commit()
    arguments = Reconciler(connection, scripted.url, capsys).arguments(*NOW)
    program = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(program, capture_output=True, check=True, text=True)
    peak, counts = done.stdout.splitlines()
    assert json.loads(counts)["present"] == relations
    return int(peak)
