"""PostgreSQL behind the real PgBouncer, in the modes ``session`` and ``transaction``."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from related_images import failpoints
from related_images.db import schema
from related_images.db.database import Database
from related_images.errors import StoreUnavailable
from related_images.failpoints import Point
from tests import servers
from tests.conftest import started
from tests.db import server_failures
from tests.db.attempts import attempts
from tests.db.samples import found, new, record

PATIENCE = 60.0
ASKING_AT_ONCE = 8

LAYOUTS: Final = {
    "session": ("session", {}),
    "transaction": ("transaction", {}),
    "told to ignore options": ("transaction", {"ignore_startup_parameters": "options"}),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def pooler(
    request: pytest.FixtureRequest, postgresql: servers.DatabaseServer
) -> Iterator[servers.DatabaseServer]:
    mode, settings = LAYOUTS[request.param]
    # in session mode, a server connection belongs to a client until it disconnects
    size = {"default_pool_size": "30"} if mode == "session" else {}
    yield from started(lambda: servers.pgbouncer(postgresql, mode, **size, **settings))


@pytest.fixture
def url(pooler: servers.DatabaseServer) -> str:
    url = pooler.create()
    schema.upgrade(url)
    return url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url, PATIENCE)
    yield database
    database.close()


def at_once(call: Callable[[int], Any], times: int) -> list[Any]:
    with ThreadPoolExecutor(ASKING_AT_ONCE) as pool:
        return list(pool.map(call, range(times)))


def test_concurrent_writes_and_reads_succeed(database: Database) -> None:
    recorded = at_once(lambda number: record(database, new(f"i-{number % 9}")), 160)
    assert all(each.created for (each,) in recorded)
    counts = at_once(lambda number: len(found(database, limit=1000)), 160)
    assert set(counts) == {160}


def limits(connection: Connection) -> tuple[str, str]:
    names = ("statement_timeout", "lock_timeout")
    one, other = (connection.execute(text(f"SHOW {name}")).scalar() for name in names)
    return str(one), str(other)


def test_a_write_has_timeouts_that_do_not_leak_to_other_sessions(
    database: Database, url: str
) -> None:
    assert database.write(limits) == ("30s", "15s")
    database.close()
    assert {server_failures.run(url, "SHOW statement_timeout")[0] for _ in range(10)} == {"0"}


def test_several_may_upgrade_at_once(pooler: servers.DatabaseServer) -> None:
    url = pooler.create()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(schema.upgrade, [url] * 2, chunksize=1)
    with schema.connected(url) as connection:
        assert schema.differences(connection) == []


LOCKS = (
    "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database "
    "WHERE locktype = 'advisory' AND datname = current_database()"
)


def test_the_lock_of_an_upgrade_is_held_and_then_released(
    pooler: servers.DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, held = pooler.create(), dict[Point, int]()

    def note(point: Point) -> None:
        held[point] = len(server_failures.run(url, LOCKS))

    monkeypatch.setattr(failpoints, "hook", note)
    schema.upgrade(url)
    assert held[Point.MIGRATE_BEGUN] == held[Point.MIGRATE_RUN] == 1
    assert server_failures.run(url, LOCKS) == []


def test_an_option_that_pgbouncer_refuses_is_reported_by_the_check(
    pooler: servers.DatabaseServer, url: str, request: pytest.FixtureRequest
) -> None:
    asking = f"{url}?options=-csearch_path%3Dpublic"
    if "ignore" in request.node.callspec.id:
        with closing(Database(asking, PATIENCE)) as database:
            record(database, new())
        return
    with pytest.raises(DBAPIError, match="unsupported startup parameter"), schema.connected(asking):
        pass
    with closing(Database(asking, PATIENCE)) as database, pytest.raises(StoreUnavailable) as told:
        record(database, new())
    assert "unsupported startup parameter" in told.value.for_log()


def test_a_server_that_hangs_behind_it(url: str, postgresql: servers.DatabaseServer) -> None:
    behind = f"{postgresql.url}/{url.rpartition('/')[2]}"
    with closing(Database(url, 2.0)) as database, server_failures.hanging(behind):
        with pytest.raises(StoreUnavailable):
            database.write(lambda connection: None)
        with attempts() as made, pytest.raises(StoreUnavailable):
            database.write(lambda connection: None)
        assert made == []
