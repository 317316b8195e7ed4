"""How each database finds its rows: by an index for every question, in tables that are not small.

A plan is asked for with the statement and values that a call really sends.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Table, event, insert, select, text

from related_images.config import GUARD_COUNTS
from related_images.db import (
    backfill,
    delete_protection,
    image_owners,
    instances,
    leases,
    lineage_walk,
    origins,
    parent_links,
    purge,
    reconcile,
    recording,
    relation_queries,
    relation_removal,
    relations,
    schema,
    shelving,
    usages,
)
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.tables import (
    descent,
    image,
    installation,
    instance,
    lease,
    origin,
    project,
    relation,
    relation_end,
)
from related_images.model import (
    RESOURCE_TYPES,
    Filters,
    ImageState,
    NewOrigin,
    OriginPosition,
    RelationPosition,
    Reporter,
)
from tests.db.samples import NOON, NOVA, at, empty, new, record, record_claims, server

pytestmark = pytest.mark.slow

FIRST = 1_000_000
ROWS = 20_000
PROJECTS = 500
GREAT = (
    "related_relation",
    "related_instance",
    "related_image",
    "related_origin",
    "related_lease",
    "related_descent",
)

INSTANCE = Filters(installation_uuid=NOVA, instance_id="vm-7")
SERVER = replace(INSTANCE, resource_type="server")
SOME_IMAGE = str(UUID(int=7))
SOME_IMAGES = [str(UUID(int=n)) for n in range(10)]
MANY_IMAGES = [str(UUID(int=n)) for n in range(usages.PART)]
SEEN = ImageState(at(7), "p-7")
AFTER_ORIGIN = OriginPosition(at(7), NOVA, "vm-7")
AFTER = RelationPosition(at(7), NOVA, "vm-7", SOME_IMAGE, "snapshot")


@pytest.fixture(scope="module")
def filled(shared: str) -> Iterator[Database]:
    database = Database(shared, 20.0)
    if shared.startswith("postgresql"):
        # the rows of other tests left space, in which new rows would have a random order
        with schema.connected(shared) as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.execute(text("VACUUM"))
    with schema.connected(shared) as connection:
        _fill(connection)
        # servers collect statistics automatically; SQLite plans without statistics
        if connection.dialect.name != "sqlite":
            word = "TABLE " if connection.dialect.name == "mysql" else ""
            for name in (*GREAT, "related_project"):
                connection.execute(text(f"ANALYZE {word}{name}"))
        connection.commit()
    yield database
    database.write(empty)
    database.close()


def _fill(connection: Connection) -> None:
    """Record one relation for each of many instances and images, with low primary keys."""
    numbers = range(FIRST, FIRST + ROWS)
    made: dict[Table, list[dict[str, Any]]] = {
        installation: [{"id": FIRST, "uuid": NOVA}],
        project: [{"id": FIRST + n, "project_id": f"p-{n}"} for n in range(PROJECTS)],
        instance: [
            {
                "id": n,
                "installation_ref": FIRST,
                "instance_id": f"vm-{n - FIRST}",
                "project_ref": FIRST + n % PROJECTS,
                "latest_backup_at": at(n - FIRST),
            }
            for n in numbers
        ],
        image: [
            {"id": n, "uuid": str(UUID(int=n - FIRST)), "deleted_at": None if n % 50 else at(n)}
            for n in numbers
        ],
        relation: [
            {
                "id": n,
                "instance_ref": n,
                "image_ref": n,
                "kind": ("boot", "snapshot", "backup")[n % 3] if n % 5 else "use",
                "label": "daily",
                "source": "service",
                "project_ref": FIRST + n % PROJECTS,
                "created_at": at(n - FIRST),
            }
            for n in numbers
        ],
        relation_end: [{"relation_ref": n, "ended_at": at(0)} for n in numbers[:100]],
        origin: [
            {
                "instance_ref": n,
                "since": at(n - FIRST),
                # chains of five
                "source_ref": n - 1 if n % 5 else None,
                "source": "service",
                "project_ref": FIRST + n % PROJECTS,
            }
            for n in numbers
        ],
        lease: [
            {
                "relation_ref": n,
                "image_ref": n,
                "project_ref": FIRST + n % PROJECTS,
                "expires_at": at(n - FIRST),
            }
            for n in numbers
        ],
        descent: [
            {"relation_ref": n, "image_ref": n, "parent_ref": n - 1, "kind": "snapshot"}
            for n in numbers[1:]
        ],
    }
    for table, rows in made.items():
        connection.execute(insert(table), rows)


LOOKUPS: dict[str, tuple[Any, ...]] = {
    "image list": (relation_queries.images, SERVER, ("snapshot",), 100),
    "image list by label": (
        *(relation_queries.images, replace(SERVER, label="daily"), ("backup",)),
        100,
    ),
    "image list of a project": (
        *(relation_queries.images, replace(SERVER, visible_to="p-7"), ("snapshot",)),
        100,
    ),
    "image list of an owner of either": (
        lambda connection: relation_queries.images(
            *(connection, replace(SERVER, visible_to="p-7"), ("snapshot",), 100),
            seen_by=relation_queries.OWNER_OF_EITHER,
        ),
    ),
    "images by kind": (relation_queries.images, Filters(), ("backup",), 100),
    "images by kind, of a project": (
        *(relation_queries.images, Filters(visible_to="p-3"), ("snapshot", "backup")),
        100,
    ),
    "some images by kind": (
        *(relation_queries.matching_images, Filters(), ("snapshot", "backup")),
        SOME_IMAGES,
    ),
    "some images by kind, of a project": (
        *(relation_queries.matching_images, Filters(visible_to="p-3"), ("boot",)),
        SOME_IMAGES,
    ),
    "some images by type": (
        *(relation_queries.matching_images, Filters(resource_type="server"), ("boot",)),
        SOME_IMAGES,
    ),
    "some images of a server": (
        lambda connection: relation_queries.matching_images(
            *(connection, replace(SERVER, visible_to="p-7"), ("snapshot", "backup"), SOME_IMAGES),
            seen_by=relation_queries.OWNER_OF_EITHER,
        ),
    ),
    "some images that descend": (lineage_walk.descending, SOME_IMAGE, None, SOME_IMAGES),
    "some images that descend, of a project": (
        *(lineage_walk.descending, SOME_IMAGE, "p-3"),
        SOME_IMAGES,
    ),
    "relations of all": (relation_queries.find, Filters(), 20),
    "relations of all, next page": (relation_queries.find, Filters(), 20, AFTER),
    "relations of a project": (relation_queries.find, Filters(visible_to="p-3"), 20),
    "relations of a project, next page": (
        *(relation_queries.find, Filters(visible_to="p-3"), 20),
        AFTER,
    ),
    "relations of an image": (relation_queries.find, Filters(image_id=SOME_IMAGE), 20),
    "relations of an instance": (relation_queries.find, INSTANCE, 20),
    "relations of an instance id": (relation_queries.find, Filters(instance_id="vm-7"), 20),
    "relations since": (relation_queries.find, Filters(created_after=at(ROWS - 9)), 20),
    "relations in use": (relation_queries.find, Filters(in_use=True), 20),
    "relations in use of a project": (
        *(relation_queries.find, Filters(in_use=True, visible_to="p-3"), 20),
    ),
    "relations in use of an image": (
        *(relation_queries.find, Filters(in_use=True, image_id=SOME_IMAGE), 20),
    ),
    "instances that use an image": (
        *(instances._find, Filters(in_use=True, image_id=SOME_IMAGE), 20),
    ),
    "usages": (usages._usages, SOME_IMAGES, None),
    "usages that a project sees": (usages._usages, SOME_IMAGES, "p-3"),
    "resources that images were made from": (usages._sources, SOME_IMAGES, None),
    "resources that images were made from, of a project": (*(usages._sources, SOME_IMAGES, "p-3"),),
    "images that were ever used": (usages._ever_used, SOME_IMAGES),
    "images that others use": (usages._used_by_others, dict.fromkeys(SOME_IMAGES, "p-3")),
    "images of several that others use": (
        usages._used_by_others,
        {id: f"p-{number}" for number, id in enumerate(SOME_IMAGES)},
    ),
    "many images that others use": (usages._used_by_others, dict.fromkeys(MANY_IMAGES, "p-3")),
    "many images of many that others use": (
        usages._used_by_others,
        {id: f"p-{number % 100}" for number, id in enumerate(MANY_IMAGES)},
    ),
    "uses through origins": (
        *(usages._used_through_origins, dict.fromkeys(SOME_IMAGES, FIRST + 3)),
    ),
    "a use that protects an image": (delete_protection._use, FIRST + 3, "p-3", GUARD_COUNTS),
    "all uses that protect an image": (
        lambda connection: connection.execute(
            delete_protection._all_users(
                connection.dialect.name, FIRST + 3, RESOURCE_TYPES
            ).numbers()
        ).all(),
    ),
    "leases of images": (usages._leased, SOME_IMAGES, None, {}),
    "leases of a project": (usages._leased, SOME_IMAGES, "p-3", {}),
    "leases of an owner": (usages._leased, SOME_IMAGES, "p-3", {SOME_IMAGE: "p-3"}),
    "live leases of a project": (leases._count, FIRST + 3),
    "images that Nova left behind": (relation_queries.find, Filters(leftover=True), 20),
    "images of a project that Nova left behind": (
        *(relation_queries.find, Filters(leftover=True, visible_to="p-3"), 20),
        AFTER,
    ),
    "servers that are shelved in an image": (shelving.servers, FIRST + 3, "p-3", 5, None),
    "origins of all": (origins._find, Filters(), 20),
    "origins of all, next page": (origins._find, Filters(), 20, AFTER_ORIGIN),
    "origins of a project": (origins._find, Filters(visible_to="p-3"), 20),
    "origins of a project, next page": (
        *(origins._find, Filters(visible_to="p-3"), 20),
        AFTER_ORIGIN,
    ),
    "origins of an instance": (origins._find, INSTANCE, 20),
    "origins since": (origins._find, Filters(created_after=at(ROWS - 9)), 20),
    "instances of all": (instances._find, Filters(), 20),
    "instances of a project": (instances._find, Filters(visible_to="p-3"), 20),
    "one instance": (instances._find, INSTANCE, 1),
    "instances by id": (instances._find, Filters(instance_id="vm-7"), 20),
    "overdue of a project": (
        *(instances._find, Filters(visible_to="p-3", kind="backup"), 20, 0),
        at(ROWS),
    ),
    "overdue of all": (instances._overdue, Filters(kind="backup"), 20, at(9), (EPOCH, 0), at(ROWS)),
    "overdue of all, last page": (
        *(instances._overdue, Filters(kind="backup"), 20, at(9), (at(8), FIRST), at(ROWS)),
    ),
    "overdue of all, by images of the future": (
        *(instances._overdue, Filters(kind="backup"), 20, EPOCH, (EPOCH, 0), at(ROWS - 9)),
    ),
    "made of images": (relation_queries.made, SOME_IMAGES),
    "owners of instances": (backfill._find_owners, NOVA, ["vm-7", "vm-8"]),
    "number of an instance": (instances._visible_ref, server("vm-7"), "p-7"),
    "is an image known": (recording._knows_image, SOME_IMAGE),
}


@pytest.mark.parametrize("question", LOOKUPS)
def test_a_query_scans_no_table(filled: Database, question: str) -> None:
    task, *values = LOOKUPS[question]
    scanned = filled.read(_scanned, lambda connection: task(connection, *values))
    if question == "images by kind":  # it reads a limited number of the relations of the kind
        scanned = [one for one in scanned if "(kind=?)" not in one]
    assert scanned == []


CHANGES: dict[str, Any] = {
    "delete": lambda connection: relations.mark_deleted(connection, SOME_IMAGE, at(0)),
    "detach": lambda connection: relation_removal.detach(
        connection, server("vm-7"), SOME_IMAGE, "backup"
    ),
    "revoke": lambda connection: relation_removal.revoke(
        connection, server("vm-7"), SOME_IMAGE, "backup", NOON
    ),
    "revoke a creation": lambda connection: relation_removal.revoke(
        connection, server("vm-7"), SOME_IMAGE, "backup", None
    ),
    "forget": lambda connection: purge._forget_relations(connection, at(99), FIRST, FIRST + 1000),
    "forget leases": lambda connection: purge._forget_leases(connection, at(9)),
    "end": lambda connection: relations.end_instance(connection, server("vm-7"), at(0)),
    "unshelve": lambda connection: shelving.end(connection, server("vm-3"), at(ROWS)),
    "record": lambda connection: relations.record(connection, new("vm-7")),
    "record claims": lambda connection: record_claims(connection, new("vm-7"), new("vm-claimed")),
    "attach": lambda connection: relations.record(
        connection, new("vm-7", SOME_IMAGE, image_state=SEEN), relied_on=True
    ),
    "start": lambda connection: relations.record(
        connection, new("vm-7", str(UUID(int=60)), "boot", created_at=at(ROWS))
    ),
    "reuse": lambda connection: relations.record(
        connection, new("vm-7", str(UUID(int=50)), created_at=at(ROWS))
    ),
    "move": lambda connection: image_owners.move(connection, FIRST + 7, FIRST + 1),
    "report": lambda connection: image_owners.report(connection, FIRST + 7, FIRST + 1),
    "record an origin": lambda connection: origins._record(
        connection, NewOrigin(server("vm-7"), None, NOON, "p-3", "service"), Reporter(frozenset())
    ),
    "remove an origin": lambda connection: origins._remove(
        connection, server("vm-7"), NOON, Reporter(frozenset())
    ),
    "follow origins": lambda connection: parent_links.refresh_below(connection, FIRST + 5),
    "judge": lambda connection: reconcile._batch(connection, FIRST, 5, at(0)),
    "learn": lambda connection: reconcile._learn(connection, {FIRST + 7: at(0), FIRST + 8: at(0)}),
    "record again": lambda connection: relations.record(connection, new("vm-7", SOME_IMAGE)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_write_scans_no_table(filled: Database, change: str) -> None:
    assert filled.write(_scanned, CHANGES[change]) == []


def test_a_rollback_scans_no_table(filled: Database) -> None:
    (recorded,) = record(filled, new("vm-back"))
    scanned = filled.write(
        _scanned, lambda connection: relation_removal.roll_back(connection, recorded)
    )
    assert scanned == []


def _scanned(connection: Connection, task: Any) -> list[str]:
    """Return the large tables that a statement of the task would scan, with its plan."""
    sent: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        # the first one of an executemany
        sent.append((statement, values[0] if isinstance(values, list) else values))

    event.listen(connection, "before_cursor_execute", remember)
    task(connection)
    event.remove(connection, "before_cursor_execute", remember)
    judged = [one for one in sent if re.match(r"WITH|SELECT|UPDATE|DELETE|INSERT", one[0])]
    assert judged
    return [
        f"{table}: {statement}"
        for statement, values in judged
        for table in _whole_tables(connection, statement, values)
    ]


def _whole_tables(connection: Connection, statement: str, values: Any) -> list[str]:
    if connection.dialect.name == "sqlite":
        return _sqlite(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())
    how = "EXPLAIN" if connection.dialect.name == "mysql" else "EXPLAIN (FORMAT JSON)"
    rows = connection.exec_driver_sql(f"{how} {statement}", values).mappings().all()
    if connection.dialect.name == "mysql":
        return [row["table"] for row in rows if _mariadb_reads_all(row)]
    plan = rows[0]["QUERY PLAN"]
    return _postgresql(plan if isinstance(plan, list) else json.loads(plan))


def _mariadb_reads_all(row: Any) -> bool:
    if row["type"] not in ("ALL", "index") or int(row["rows"] or 0) <= ROWS / 10:
        return False
    # a scan of an index in its order is fine if a limit ends it, which is not shown for a subquery
    followed = row["type"] == "index" and row["select_type"] == "DERIVED"
    return not followed or "filesort" in row["Extra"]


_SQLITE_READS_ALL = re.compile(
    # "SCAN x USING INDEX" reads an index in its order until the limit
    r"SCAN (related_|newer)(?!.*USING)"
    # the walk along origins looks up the starts of the sources
    r"|SCAN start"
    # one installation may contain all instances
    r"|SEARCH related_instance USING .*\(installation_ref=\?\)"
    # one kind may have all relations
    r"|SEARCH \w+ USING .*_kind_image_ref \(kind=\?\)"
)


def _sqlite(rows: Any) -> list[str]:
    return [row.detail for row in rows if _SQLITE_READS_ALL.match(row.detail)]


def _postgresql(plan: Any) -> list[str]:
    if isinstance(plan, list):
        return [name for one in plan for name in _postgresql(one)]
    if not isinstance(plan, dict):
        return []
    below = [name for value in plan.values() for name in _postgresql(value)]
    whole = plan.get("Node Type") == "Seq Scan" and plan["Relation Name"] in GREAT
    return [plan["Relation Name"], *below] if whole else below


def test_a_table_scan_is_detected(filled: Database) -> None:
    unindexed = select(relation.c.id).where(relation.c.label == "weekly")
    assert filled.read(_scanned, lambda connection: connection.execute(unindexed).all()) != []
