"""A store in a database of each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from related_images.store import schema
from related_images.store.database import Database
from tests.store.samples import empty


@pytest.fixture
def url(database_url: str) -> str:
    """A database of its own, of each kind in turn, with our tables in it."""
    schema.upgrade(database_url)
    return database_url


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
