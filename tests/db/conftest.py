"""A store in a database of each kind."""

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
    """A database of its own, of each kind in turn, with our tables in it."""
    schema.upgrade(database_url)
    return database_url


@pytest.fixture(params=["mariadb", "postgresql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """A database of its own on each server, with our tables in it."""
    url: str = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    return url


@pytest.fixture(scope="session", params=["sqlite", "mariadb", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of each kind in turn, for many tests one after the other."""
    if request.param == "sqlite":
        path: Path = tmp_path_factory.mktemp("shared") / "related-images.db"
        url = f"sqlite:///{path}"
    else:
        url = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    return url


@pytest.fixture
def database(shared: str) -> Iterator[Database]:
    """A store without any row."""
    opened = Database(shared, 10.0)
    yield opened
    opened.write(empty)
    opened.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Database]]:
    """Two ways into one store, of which both can be writing: SQLite has one write at a time."""
    url = request.getfixturevalue(request.param).create()
    schema.upgrade(url)
    one, other = Database(url, 30.0), Database(url, 30.0)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when what failed was tried again in the background, and the next attempt is far off."""
    found = threading.Event()

    def an_hour(state: tenacity.RetryCallState) -> float:
        found.set()
        return 3600

    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: an_hour)
    return found
