"""The filter with the real Glance while its database fails: other requests work."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pytest

from related_images.db import relations, schema
from related_images.db.database import Database
from related_images.errors import StoreUnavailable
from tests import filters, wsgi
from tests.conftest import started
from tests.db.attempts import attempts
from tests.db.samples import new
from tests.guarantees import failures, galera
from tests.guarantees.reconciling import INSTALLATION
from tests.servers import PATIENCE, Answer, DatabaseServer

pytestmark = pytest.mark.slow

TIMEOUT = 2.0
SLACK = 15.0
"""The delay in seconds that Glance and a busy machine may add; a longer one counts as blocking."""

MEMBER = wsgi.identity("alice", "demo", "member", "reader", "service")
TUPLE = filters.instance_headers(INSTALLATION, "i-1")
CASES = [
    *[("sqlite", failure) for failure in failures.SQLITE],
    *[(server, each) for server in ("mariadb", "postgresql") for each in failures.SERVERS],
]


class Filtered:
    """Glance behind the filter."""

    def __init__(self, glance: Any, url: str) -> None:
        self.app = filters.filtering(glance, url, database_timeout=str(TIMEOUT))

    def ask(self, method: str, path: str, body: Any = None, **tuple_: str) -> Answer:
        return wsgi.call(self.app, method, path, MEMBER | tuple_, body)

    def create(self, **tuple_: str) -> Answer:
        body = {"id": str(uuid4()), "disk_format": "raw", "container_format": "bare"}
        self.asked_for = body["id"]
        return self.ask("POST", "/v2/images", body, **tuple_)


@contextmanager
def in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < TIMEOUT + SLACK


def use_plainly(filtered: Filtered, related: str) -> None:
    """Create, list, show and delete without instance headers, each in time."""
    with in_time():
        created = filtered.create()
        assert created.status == 201
    path = f"/v2/images/{created.json['id']}"
    with in_time():
        assert filtered.ask("GET", "/v2/images?limit=5").status == 200
    with in_time():
        assert filtered.ask("GET", path).status == 200
    for gone in (path, f"/v2/images/{related}"):
        with in_time():
            assert filtered.ask("DELETE", gone).status == 204


def fill(url: str) -> None:
    """Record until the database is full."""
    with closing(Database(url, PATIENCE)) as database:
        for _ in range(1000):
            try:
                database.write(relations.record, new())
            except StoreUnavailable:
                return
    pytest.fail("there is room without end")


def recorded(filtered: Filtered) -> str:
    """Create an image of an instance; try again if a busy machine exceeds the timeout."""
    deadline = time.monotonic() + PATIENCE
    while (created := filtered.create(**TUPLE)).status != 201:
        assert time.monotonic() < deadline, created.body
        time.sleep(0.1)
    return str(created.json["id"])


def refuse_recording(filtered: Filtered) -> None:
    """Assert that recording gets 503 in time, before an image is created."""
    with in_time():
        refused = filtered.create(**TUPLE)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json["error"]["code"] == "store.unavailable"
    assert filtered.ask("GET", f"/v2/images/{filtered.asked_for}").status == 404


def recover(filtered: Filtered) -> None:
    """Assert that recording recovers within the pause between two probes."""
    image_id = recorded(filtered)
    path = f"/v2/images?installation_uuid={INSTALLATION}&instance_id=i-1"
    deadline = time.monotonic() + PATIENCE
    while (listed := filtered.ask("GET", path)).status != 200:
        assert time.monotonic() < deadline, "it does not recover"
        time.sleep(0.1)
    assert image_id in [image["id"] for image in listed.json["images"]]


@pytest.mark.parametrize(
    ("kind", "failure"), CASES, ids=lambda part: getattr(part, "__name__", part)
)
def test_other_requests_work_during(
    kind: str,
    failure: failures.Failure,
    request: pytest.FixtureRequest,
    glance_app: Any,
    sqlite_url: str,
) -> None:
    admin = sqlite_url if kind == "sqlite" else request.getfixturevalue(kind).create()
    schema.upgrade(admin)
    url = failures.ordinary_user(admin)
    filtered = Filtered(glance_app, url)
    related = [recorded(filtered) for _ in range(2)]
    with failure(admin, url):
        if failure is failures.full:
            fill(url)
        use_plainly(filtered, related[0])
        refuse_recording(filtered)
        with attempts() as made:
            use_plainly(filtered, related[1])
            refuse_recording(filtered)
        # a full database still accepts an update of the heartbeat row, so that a probe succeeds
        assert "write" not in made or failure is failures.full
        assert made == [] or failure not in failures.UNREADABLE
    recover(filtered)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
@pytest.mark.parametrize("first", ["/v2/relations", "/v2/info/relations"])
def test_a_query_that_hangs_is_reported_and_not_repeated(
    kind: str, first: str, request: pytest.FixtureRequest, glance_app: Any
) -> None:
    url = request.getfixturevalue(kind).create()
    schema.upgrade(url)
    filtered = Filtered(glance_app, url)
    recorded(filtered)
    with failures.hanging(url, url):
        with in_time():
            filtered.ask("GET", first)
        deadline = time.monotonic() + PATIENCE
        while filtered.app._database.is_up():
            assert time.monotonic() < deadline, "it is not remembered"
            time.sleep(0.02)
        with attempts() as made:
            assert filtered.ask("GET", "/v2/info/relations").json["database"] == "down"
            assert filtered.ask("GET", "/v2/relations").status == 503
        assert made == []
    recover(filtered)


def test_the_first_request_to_a_database_that_hangs_gets_an_error(
    postgresql: DatabaseServer, glance_app: Any
) -> None:
    url = postgresql.create()
    schema.upgrade(url)
    filtered = Filtered(glance_app, url)
    with failures.hanging(url, url):
        assert filtered.ask("GET", "/v2/info/relations").json["database"] == "down"


@pytest.fixture(scope="module")
def node() -> Iterator[galera.Node]:
    """A server that no other test uses."""
    yield from started(galera.alone)


@pytest.mark.parametrize("end", [galera.Node.stop, galera.Node.kill])
def test_other_requests_work_during_a_restart(
    end: Callable[[galera.Node], None], node: galera.Node, glance_app: Any
) -> None:
    name = f"t{uuid4().hex}"
    node.ask(f"CREATE DATABASE {name}")
    schema.upgrade(node.url(name))
    filtered = Filtered(glance_app, node.url(name))
    related = [recorded(filtered) for _ in range(2)]
    end(node)
    use_plainly(filtered, related[0])
    refuse_recording(filtered)
    with attempts() as made:
        use_plainly(filtered, related[1])
    assert made == []
    node.start()
    recover(filtered)
