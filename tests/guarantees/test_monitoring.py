"""Log and metrics of recordings, refusals, failures and other requests."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from related_images import __version__
from related_images.db import schema
from related_images.middleware import filter_factory
from related_images.middleware.monitoring import metrics_factory
from tests import filters, wsgi
from tests.db import server_failures
from tests.guarantees.reconciling import INSTALLATION
from tests.servers import PATIENCE, Answer

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MEMBER = wsgi.identity("alice", "demo", "member", "reader")
SERVICE = wsgi.identity("nova", "demo", "member", "reader", "service")
ADMIN = wsgi.identity("root", "admin", "admin")
TUPLE = filters.instance_headers(INSTALLATION, "i-1")
IMAGE = {"disk_format": "raw", "container_format": "bare"}

TIMEOUT = 2.0
"""The timeout of a filter whose database is locked."""


@pytest.fixture
def url(sqlite_url: str) -> str:
    schema.upgrade(sqlite_url)
    return sqlite_url


def filtering(app: Any, connection: str, timeout: float = PATIENCE) -> "WSGIApplication":
    """Return the filter, by default with a timeout that a busy machine does not reach."""
    return filters.filtering(app, connection, database_timeout=str(timeout))


def create(app: Any, identity: dict[str, str], tuple_: dict[str, str]) -> Answer:
    return wsgi.call(app, "POST", "/v2/images", identity | tuple_, IMAGE)


def counted() -> dict[str, float]:
    """Return the samples of the metrics, by name and labels."""
    scrape = wsgi.call(metrics_factory({}), "GET", "/", {})
    assert scrape.status == 200
    assert str(scrape.headers["Content-Type"]).startswith("text/plain; version=")
    samples = re.findall(r"^(related_images_\S+) (\S+)$", scrape.body.decode(), re.MULTILINE)
    return {name: float(value) for name, value in samples}


def test_everything_is_counted(glance_app: Any, url: str) -> None:
    app = filtering(glance_app, url)
    before = counted()
    assert create(app, SERVICE, TUPLE).status == 201
    assert create(app, MEMBER, TUPLE).status == 403
    assert wsgi.call(app, "GET", "/v2/images", MEMBER | TUPLE).status == 200
    with server_failures.locked(url):
        assert create(filtering(glance_app, url, TIMEOUT), SERVICE, TUPLE).status == 503
    after = counted()
    for name, number in {
        'related_images_recorded_total{kind="snapshot"}': 1,
        'related_images_refused_total{code="relation.forbidden"}': 1,
        'related_images_failed_total{code="store.unavailable"}': 1,
        "related_images_restricted_lists_total": 1,
        "related_images_recording_seconds_count": 2,
    }.items():
        assert after[name] - before.get(name, 0) == number, name
    for task in ("read", "write"):
        spent = f'related_images_database_seconds_sum{{task="{task}"}}'
        assert after[spent] > before.get(spent, 0)


def test_a_start_is_logged_with_its_options_and_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    connection = "mysql+pymysql://related:s3cret@127.0.0.1:1/cloud?charset=utf8mb4"
    filter_factory({}, connection=connection, guard="in-use", database_timeout="0.1")
    (line,) = [line for level, line in ours(caplog) if level == "INFO"]
    assert f"related-images {__version__}" in line
    assert "database mysql+pymysql://127.0.0.1:1/cloud," in line
    assert "guard = in-use" in line
    assert "s3cret" not in caplog.text


def test_a_filter_without_tables_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    # another test may have loaded another configuration of Glance in this process
    make = filter_factory({}, connection="sqlite:///related-images.db")
    assert "run `related-images db upgrade`" in caplog.text
    answer = create(make(filters.app_of(filters.StubGlance())), SERVICE, TUPLE)
    assert answer.status == 503
    assert list(tmp_path.iterdir()) == []


def ours(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name.startswith("related_images")
    ]


def test_each_recording_refusal_and_failure_is_logged_and_other_requests_are_not(
    glance_app: Any, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = filtering(glance_app, url)
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
    with server_failures.locked(url):
        create(filtering(glance_app, url, TIMEOUT), SERVICE, TUPLE)
        lines = [line for line in ours(caplog) if "failed: store.unavailable" in line[1]]
    assert [level for level, _ in lines] == ["WARNING"]


@pytest.mark.parametrize("text", ["x\r\nforged: line", "\x1b[31m", "é\u2028", "a" * 5000])
def test_headers_are_escaped_in_the_log(
    glance_app: Any, url: str, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.INFO)
    app = filtering(glance_app, url)
    environ = wsgi.environ_of("POST", "/v2/images", SERVICE | TUPLE, IMAGE)
    environ["HTTP_X_INSTANCE_ID"] = text
    assert wsgi.run(app, environ).status == 400
    for _, line in ours(caplog):
        assert text not in line
        assert line.isprintable()
        assert len(line) < 500
