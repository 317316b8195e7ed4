"""A query takes as many steps of SQLite's virtual machine in a large project as in a small one.

SQLite has no statistics of the tables, so that it may choose an index with which it reads all
relations of a project. The plan then names an index, and test_plans cannot see the difference.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import CacheStats

from related_images.db import dependents, lineage, relation_queries, schema, usages
from related_images.db.database import Database
from related_images.model import Filters
from tests.db import test_plans
from tests.db.test_plans import LOOKUPS, SOME_IMAGE, SOME_IMAGES

pytestmark = pytest.mark.slow

PROJECTS = 10
SMALL, LARGE = 2_000, 20_000
EVERY = 50
"""SQLite reports its progress after this number of steps."""
MORE = 4_000
"""Additional steps that a query may take in the large database: its indexes are deeper."""

GROWING = {
    "usages that a project sees": "it reads the starts of the project once, for any images",
    "resources that images were made from, of a project": "it reads the images of the project",
    "leases of a project": "the leases of a project are limited",
    "leases of an owner": "the leases of a project are limited",
    "live leases of a project": "the leases of a project are limited",
}
"""The queries that take more steps in a large project, with the reasons."""


NOT_SENT = "image list of a project"
"""The filter asks for the list of one server only as the owner of either."""

QUERIES: dict[str, Any] = {
    **{name: (Database.read, *given) for name, given in LOOKUPS.items() if name != NOT_SENT},
    "some images by two kinds, of a project": (
        *(Database.read, relation_queries.matching_images, Filters(visible_to="p-3")),
        *(("snapshot", "backup"), SOME_IMAGES),
    ),
    "dependents": (dependents.dependents, dependents.Wanted(SOME_IMAGE), 20, None),
    "dependents, of a project": (
        *(dependents.dependents, dependents.Wanted(SOME_IMAGE, visible_to="p-7"), 20, None),
    ),
    "descendants": (lineage.descendants, lineage.Wanted(SOME_IMAGE), 20, None),
    "descendants, of a project": (
        *(lineage.descendants, lineage.Wanted(SOME_IMAGE, visible_to="p-7"), 20, None),
    ),
    "usages of images": (usages.usages, SOME_IMAGES, None, {}, [], {}),
}


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    """A small and a large database with the same projects."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_plans, "PROJECTS", PROJECTS)
        for rows in (SMALL, LARGE):
            patch.setattr(test_plans, "ROWS", rows)
            url = f"sqlite:///{tmp_path_factory.mktemp('steps')}/{rows}.db"
            schema.upgrade(url)
            with schema.connected(url) as connection:
                test_plans._fill(connection)
                connection.commit()
            made.append(Database(url, 20))
    yield made
    for database in made:
        database.close()


class Steps:
    """Counts the steps of every connection to SQLite."""

    def __init__(self) -> None:
        self.taken = 0

    def watch(self, dbapi_connection: Any, _: Any) -> None:
        dbapi_connection.set_progress_handler(self._progress, EVERY)

    def _progress(self) -> int:
        self.taken += EVERY
        return 0

    def of(self, call: Callable[..., object], *values: object) -> int:
        begun = self.taken
        call(*values)
        return self.taken - begun


@pytest.fixture(scope="module")
def steps() -> Iterator[Steps]:
    counted = Steps()
    event.listen(Engine, "connect", counted.watch)
    yield counted
    event.remove(Engine, "connect", counted.watch)


@pytest.mark.parametrize("query", QUERIES)
def test_the_size_of_a_project_does_not_matter(
    steps: Steps, databases: list[Database], query: str
) -> None:
    call, *values = QUERIES[query]
    small, large = (steps.of(call, database, *values) for database in databases)
    grows = large > 1.5 * small + MORE
    assert grows == (query in GROWING), f"{small} steps, then {large}"


@pytest.mark.parametrize("query", QUERIES)
def test_a_statement_is_compiled_once(databases: list[Database], query: str) -> None:
    """SQLAlchemy compiles a statement again at each execution if a part of it has no cache key."""
    call, *values = QUERIES[query]
    hits: list[CacheStats] = []

    def remember(*given: Any) -> None:
        hits.append(given[4].cache_hit)

    call(databases[0], *values)
    event.listen(Engine, "before_cursor_execute", remember)
    try:
        call(databases[0], *values)
    finally:
        event.remove(Engine, "before_cursor_execute", remember)
    assert hits
    assert set(hits) <= {CacheStats.CACHE_HIT}


def test_the_exceptions_are_queries() -> None:
    assert set(GROWING) <= set(QUERIES)
