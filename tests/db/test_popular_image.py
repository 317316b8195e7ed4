"""A call reads few rows, although one image has many servers and many images have a parent.

MariaDB and PostgreSQL count the rows that they read. PostgreSQL expects the same number of servers
for each image; MariaDB plans deletions with subqueries badly.
"""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, insert, select, text

from related_images.db import dependents, lineage, listing, origins, relation_removal, relations
from related_images.db import schema as schemas
from related_images.db.database import Database
from related_images.db.dependents import PagePosition
from related_images.db.tables import descent, image, installation, instance, project, relation
from related_images.model import BOOT, Filters, InstanceRef, NewOrigin, Reporter
from tests.db.samples import NOON, NOVA, at, new, server
from tests.servers import DatabaseServer

pytestmark = pytest.mark.slow

FIRST = 1_000_000
"""Before the first primary key; the tests insert rows with lower ones."""
ROWS = 5_000
POPULAR = "00000000-0000-4000-8000-000000000001"
FEW = 1_000
"""Rows that a call may read: a few for each of the entries of a page, not one for each server."""
PAGE = 20


def other_image(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012x}"


@pytest.fixture(scope="module", params=["mariadb", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database with one image of many servers, and many images of one server each."""
    server: DatabaseServer = request.getfixturevalue(request.param)
    url = server.create()
    schemas.upgrade(url)
    with schemas.connected(url) as connection:
        fill(connection)
        connection.commit()
        if connection.dialect.name == "mysql":
            for table in (relation, instance, image, descent):
                connection.execute(text(f"ANALYZE TABLE {table.name}"))
        else:
            connection.execute(text("ANALYZE"))
        connection.commit()
    return url


def fill(connection: Connection) -> None:
    """Record servers 1 to ROWS of an image each, and as many servers of the popular image."""
    all_servers, popular_image = range(1, 2 * ROWS + 1), FIRST + ROWS + 1
    alone = all_servers[:ROWS]
    connection.execute(insert(installation), {"id": FIRST, "uuid": NOVA})
    connection.execute(insert(project), {"id": FIRST, "project_id": "p"})
    images = [{"id": FIRST + n, "uuid": other_image(n)} for n in alone]
    connection.execute(insert(image), [*images, {"id": popular_image, "uuid": POPULAR}])
    owned = {"installation_ref": FIRST, "project_ref": FIRST}
    servers = [{"id": FIRST + n, "instance_id": f"vm-{n}", **owned} for n in all_servers]
    connection.execute(insert(instance), servers)
    common = {"source": "service", "project_ref": FIRST, "created_at": NOON}
    starts = [
        {"image_ref": min(FIRST + n, popular_image), "instance_ref": FIRST + n, "kind": BOOT}
        for n in all_servers
    ]
    made = [{"image_ref": FIRST + n, "instance_ref": FIRST + n, "kind": "snapshot"} for n in alone]
    relations = [
        {"id": FIRST + number, **one, **common} for number, one in enumerate([*starts, *made], 1)
    ]
    connection.execute(insert(relation), relations)
    links = [
        {"relation_ref": FIRST + 2 * ROWS + n, "image_ref": FIRST + n, "parent_ref": FIRST + n - 1}
        for n in alone[1:]
    ]
    connection.execute(insert(descent).values(kind="snapshot"), links)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url, 30.0)
    yield database
    database.close()


def popular(number: int) -> InstanceRef:
    """Return a server of the popular image."""
    return server(f"vm-{2 * ROWS - number}")


CALLS: dict[str, Callable[[Database], object]] = {
    "relation": lambda database: listing.relations(
        database,
        Filters(image_id=POPULAR, installation_uuid=NOVA, instance_id="vm-9999", kind=BOOT),
        *(PAGE, None),
    ),
    "first dependents": lambda database: dependents.dependents(
        database, dependents.Wanted(POPULAR), PAGE, None
    ),
    "later dependents": lambda database: dependents.dependents(
        database,
        dependents.Wanted(POPULAR),
        PAGE,
        PagePosition(POPULAR, 0, after=popular(ROWS // 2)),
    ),
    "descendants": lambda database: lineage.descendants(
        database, lineage.Wanted(POPULAR), PAGE, None
    ),
    "start": lambda database: database.write(relations.record, new("vm-new", POPULAR, BOOT)),
    "start of a server with an image": lambda database: database.write(
        relations.record, new("vm-7", POPULAR, BOOT, created_at=at(1))
    ),
    "origin": lambda database: origins.record(
        database, NewOrigin(popular(2), None, NOON, "p", "service"), Reporter(frozenset())
    ),
    "detach": lambda database: database.write(relation_removal.detach, popular(3), POPULAR, BOOT),
    "end": lambda database: database.write(relations.end_instance, popular(4), at(9)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_reads_few_rows(database: Database, call: str) -> None:
    CALLS["relation"](database)  # opens connections
    before = rows_read(database)
    CALLS[call](database)
    read = rows_read(database) - before
    if call.endswith("dependents") and "postgresql" in database.address:
        # it may sort the servers of the image, for 0.1 µs each, but does not read others
        assert read < ROWS + FEW
    else:
        assert read < FEW


def test_reading_all_rows_is_noticed(database: Database) -> None:
    before = rows_read(database)
    unindexed = select(relation.c.id).where(relation.c.label == "weekly")
    database.read(lambda connection: connection.execute(unindexed).all())
    assert rows_read(database) - before > 2 * ROWS


def rows_read(database: Database) -> int:
    """Return the number of rows that the server has read for all statements until now."""

    def flush(connection: Connection) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        return connection.dialect.name

    def count(connection: Connection) -> int:
        if connection.dialect.name == "mysql":
            counters = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Handler_read_%'"))
            return sum(int(row[1]) for row in counters)
        of_indexes, of_tables = (
            f"(SELECT sum({column})::bigint FROM {view} WHERE relname LIKE 'related_%')"  # noqa: S608
            for column, view in (
                ("idx_tup_read", "pg_stat_user_indexes"),
                ("seq_tup_read", "pg_stat_user_tables"),
            )
        )
        return int(connection.execute(text(f"SELECT {of_indexes} + {of_tables}")).scalar_one())

    # the statistics of a connection of PostgreSQL are late
    database.read(flush)
    database.write(flush)
    return database.read(count)
