"""What the log and the counters say of a recording, a refusal, a failure, and of what passes."""

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from related_images.store import schema
from tests import filters, wsgi
from tests.guarantees.reconciling import INSTALLATION
from tests.servers import PATIENCE, Answer
from tests.store import hosts

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MEMBER = wsgi.identity("alice", "demo", "member", "reader")
SERVICE = wsgi.identity("nova", "demo", "member", "reader", "service")
ADMIN = wsgi.identity("root", "admin", "admin")
TUPLE = filters.tuple_of(INSTALLATION, "i-1")
IMAGE = {"disk_format": "raw", "container_format": "bare"}

TIMEOUT = 2.0
"""For who finds the database locked."""


@pytest.fixture
def url(sqlite_url: str) -> str:
    schema.upgrade(sqlite_url)
    return sqlite_url


def filtering(
    app: Any, connection: str, timeout: float = PATIENCE, metrics: str = "off"
) -> "WSGIApplication":
    """The filter, for which no machine is too busy unless ``timeout`` says so."""
    return filters.filtering(app, connection, database_timeout=str(timeout), metrics=metrics)


def create(app: Any, identity: dict[str, str], tuple_: dict[str, str]) -> Answer:
    return wsgi.call(app, "POST", "/v2/images", identity | tuple_, IMAGE)


def counted(app: Any) -> dict[str, float]:
    """The samples by name and first label."""
    answer = wsgi.call(app, "GET", "/v2/metrics/relations", ADMIN)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=UTF-8"
    samples = re.findall(
        r'^(related_images_\w+{\w+="[^"]+"),pid="\d+"} (\S+)$', answer.body.decode(), re.MULTILINE
    )
    return {name: float(value) for name, value in samples}


def test_everything_is_counted(registry_app: Any, url: str) -> None:
    app = filtering(registry_app, url, metrics="on")
    before = counted(app)
    assert create(app, SERVICE, TUPLE).status == 201
    assert create(app, MEMBER, TUPLE).status == 403
    assert wsgi.call(app, "GET", "/v2/images", MEMBER | TUPLE).status == 200
    with hosts.locked(url):
        assert create(filtering(registry_app, url, TIMEOUT), SERVICE, TUPLE).status == 503
    after = counted(app)
    for name in (
        'related_images_recorded_total{kind="snapshot"',
        'related_images_refused_total{code="relation.forbidden"',
        'related_images_failed_total{code="store.unavailable"',
        'related_images_filtered_total{by="instance"',
    ):
        assert after[name] - before.get(name, 0) == 1, name
    spent = 'related_images_database_seconds_total{task="write"'
    assert after[spent] > before.get(spent, 0)


def test_counters_are_off_unless_asked_for_and_for_administrators_alone(
    registry_app: Any, url: str
) -> None:
    off, on = (filtering(registry_app, url, metrics=word) for word in ("off", "on"))
    assert wsgi.call(off, "GET", "/v2/metrics/relations", ADMIN).status == 404
    assert wsgi.call(on, "GET", "/v2/metrics/relations", MEMBER).status == 403
    assert wsgi.call(on, "GET", "/v2/metrics/relations", SERVICE).status == 403


def ours(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name.startswith("related_images")
    ]


def test_a_line_for_each_recording_refusal_and_failure_and_none_for_what_passes(
    registry_app: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = filtering(registry_app, url)
    plain = create(app, MEMBER, {})
    assert wsgi.call(app, "GET", f"/v2/images/{plain.json['id']}", MEMBER).status == 200
    assert ours(caplog) == []
    image_id = create(app, SERVICE, TUPLE).json["id"]
    ((level, line),) = ours(caplog)
    assert (level, image_id in line, "recorded" in line) == ("INFO", True, True)
    caplog.clear()
    create(app, MEMBER, TUPLE)
    ((level, line),) = ours(caplog)
    assert (level, "refused: relation.forbidden" in line) == ("INFO", True)
    caplog.clear()
    with hosts.locked(url):
        create(filtering(registry_app, url, TIMEOUT), SERVICE, TUPLE)
        lines = [line for line in ours(caplog) if "failed: store.unavailable" in line[1]]
    assert [level for level, _ in lines] == ["WARNING"]


@pytest.mark.parametrize("text", ["x\r\nforged: line", "\x1b[31m", "é\u2028", "a" * 5000])
def test_no_header_stands_in_the_log_as_it_came(
    registry_app: Any, url: str, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.INFO)
    app = filtering(registry_app, url)
    environ = wsgi.environ_of("POST", "/v2/images", SERVICE | TUPLE, IMAGE)
    environ["HTTP_X_INSTANCE_ID"] = text
    assert wsgi.run(app, environ).status == 400
    for _, line in ours(caplog):
        assert text not in line
        assert line.isprintable()
        assert len(line) < 500
