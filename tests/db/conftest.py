"""Fixtures: a database of each kind."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity

from related_images.db import schema
from related_images.db.database import Database
from tests.db.samples import empty


@pytest.fixture
def url(database_url: str) -> str:
    """The URL of a new database of each kind, with the tables."""
    schema.upgrade(database_url)
    return database_url


@pytest.fixture(params=["mariadb", "postgresql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a new database on each server, with the tables."""
    url: str = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    return url


POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)
"""`make slow-test` runs on PostgreSQL what `make test` runs on the other databases."""


@pytest.fixture(scope="session", params=["sqlite", "mariadb", POSTGRESQL])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database of each kind, shared by many tests."""
    if request.param == "sqlite":
        path: Path = tmp_path_factory.mktemp("shared") / "related-images.db"
        url = f"sqlite:///{path}"
    else:
        url = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    return url


@pytest.fixture
def database(shared: str) -> Iterator[Database]:
    """A database without rows."""
    opened = Database(shared, 60.0)  # long, so that a busy machine fails no test
    yield opened
    opened.write(empty)
    opened.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Database]]:
    """Two clients of one database that can write concurrently; SQLite has one write at a time."""
    url = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    one, other = Database(url, 30.0), Database(url, 30.0)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set after a failed probe; the next probe is an hour later."""
    found = threading.Event()

    def an_hour(state: tenacity.RetryCallState) -> float:
        found.set()
        return 3600

    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: an_hour)
    return found
