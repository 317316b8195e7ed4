"""Fixtures of all tests: databases of each type, and the real Glance."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unittest import mock
from weakref import WeakSet

import pytest
from sqlalchemy import Engine, event

from related_images.db.database import Database
from related_images.integrations import glance as embedded
from tests import commands, servers

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

Server = TypeVar("Server")

REQUIRE_SERVERS = "RELATED_IMAGES_REQUIRE_SERVERS"
"""With ``1``, tests fail instead of being skipped if their database server is not installed."""


def started(start: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    try:
        with start() as server:
            yield server
    except servers.ServerMissing as missing:
        if os.environ.get(REQUIRE_SERVERS) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@event.listens_for(Engine, "before_cursor_execute")
def fail_on_empty_in_list(*given: object) -> None:
    """Fail on a query with an empty ``IN`` list: SQLite scans a whole index for it."""
    statement = str(given[2])
    assert "related_" not in statement or "1!=1" not in statement, statement


_databases: WeakSet[Database] = WeakSet()
_make: Callable[[Database, str, float], None] = Database.__init__


def _make_and_remember(database: Database, url: str, timeout: float) -> None:
    _make(database, url, timeout)
    _databases.add(database)


mock.patch.object(Database, "__init__", _make_and_remember).start()


@pytest.fixture(autouse=True)
def stop_probes() -> Iterator[None]:
    """Stop the probes of databases that a test left broken: they would log in other tests."""
    yield
    for database in list(_databases):
        if not database.is_up():
            database.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.DatabaseServer]:
    yield from started(servers.mariadb)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.DatabaseServer]:
    yield from started(servers.postgresql)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/related-images.db"


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each type in turn."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server: servers.DatabaseServer = request.getfixturevalue(request.param)
    return server.create()


@pytest.fixture(scope="session")
def glance_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of configuration and data of the Glance in this process."""
    return tmp_path_factory.mktemp("glance")


@pytest.fixture(scope="session")
def glance_app(glance_home: Path) -> Iterator["WSGIApplication"]:
    """The real Glance in this process; the identity headers give the caller."""
    paste = servers.paste_without(glance_home, "development-identity", "related-images")
    named = mock.patch.dict(os.environ, {embedded.PASTE_FILE: str(paste)})
    with named, commands.logging_as_it_was():
        embedded.prepare(glance_home)
        app = embedded.load_app()
    from glance.common.wsgi_app import drain_workers

    yield app
    atexit.unregister(drain_workers)
    drain_workers()


@pytest.fixture(scope="session")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ServedGlance]:
    """The real Glance in its own process, with the filter."""
    with servers.ServedGlance(tmp_path_factory.mktemp("glance")) as served:
        yield served


@pytest.fixture(scope="session")
def plain_glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ServedGlance]:
    """The real Glance in its own process, without the filter."""
    with servers.ServedGlance(tmp_path_factory.mktemp("plain"), with_filter=False) as served:
        yield served
