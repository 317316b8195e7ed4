"""Fill databases with millions of generated relations and images, in SQL.

The images of one instance are far apart in the tables, as after years of backups: consecutive
images belong to different instances.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from benchmarks.sizes import Sizes
from related_images.db import schema

INSTALLATION: Final = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e01"
PER_INSTANCE: Final = 10
PROJECTS: Final = 1000
STEP: Final = 7919
"""The step from one instance to the next; a prime, so that all instances get images."""
BEGIN: Final = 1_760_000_000_000_000
"""The time of the oldest relation, in microseconds since 1970; the next one is a second later."""


@dataclass(frozen=True)
class Cloud:
    """The size of a cloud.

    :ivar relations: the number of relations, with one image each
    :ivar per_instance: the number of images of each instance
    """

    relations: int
    per_instance: int = PER_INSTANCE

    @property
    def instances(self) -> int:
        return max(1, self.relations // self.per_instance)


def clouds(directory: Path, sizes: Sizes) -> Iterator[tuple[str, Path, Cloud]]:
    """Yield each kind of database with each number of images, and a directory of its own."""
    for kind in sizes.databases:
        for images in sizes.images:
            yield kind, directory / f"list-{kind}-{images}", Cloud(images)


def instance_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def image_id(number: int) -> str:
    """Return the ID that each database generates for the image: uniformly distributed UUIDs."""
    return str(uuid.UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()))


def project_id(number: int) -> str:
    return f"{number:032x}"


def fill(url: str, cloud: Cloud) -> None:
    """Create the tables at ``url`` and fill them with the relations."""
    schema.upgrade(url)
    with connected(url) as connection:
        begin(connection)
        fill_names(connection, cloud)
        fill_relations(connection, cloud, (IMAGES, RELATIONS))
        fill_latest(connection)
        settle(connection)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Open a connection with a function that generates image IDs."""
    with schema.connected(url) as connection:
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.create_function("image_uuid", 1, _uuid, deterministic=True)
        yield connection


def begin(connection: Connection) -> None:
    """Configure the connection for bulk inserts without checks."""
    for statement in DIALECTS[connection.dialect.name].before:
        connection.execute(text(statement))


def fill_relations(connection: Connection, cloud: Cloud, inserts: Sequence[str]) -> None:
    """Run the ``inserts`` for all relations of the cloud, in batches in the order of time.

    :param inserts: statements that select columns of :data:`_ROWS` from ``{rows}``
    """
    for first in range(1, cloud.relations + 1, BATCH):
        last = min(first + BATCH - 1, cloud.relations)
        for insert in inserts:
            _run(connection, insert, first, last, cloud)


def fill_latest(connection: Connection) -> None:
    for column, kind in _COLUMNS.items():
        connection.execute(text(_LATEST.format(column=column, kind=kind)))


def settle(connection: Connection) -> None:
    """Commit, and let the database do at once what it does in the background after a while.

    It collects statistics, and removes the versions of rows that filling has replaced. Without
    that, the first measurements would read these versions too.
    """
    names = inspect(connection).get_table_names()
    connection.commit()
    analyze = DIALECTS[connection.dialect.name].analyze
    alone = connection.execution_options(isolation_level="AUTOCOMMIT")  # VACUUM needs that
    for name in names if analyze else ():
        alone.execute(text(f"{analyze} {name}"))
    if connection.dialect.name == "mysql":
        _wait_for_purge(alone)


def _wait_for_purge(connection: Connection) -> None:
    """Wait until InnoDB has removed the old versions of rows of all transactions."""
    until = time.monotonic() + PURGE_SECONDS
    length = text("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
    while time.monotonic() < until and int(connection.execute(length).one()[1]):
        time.sleep(1)


def image_uuid(connection: Connection, number: int) -> Any:
    """Return the ID of an image as the database stores it."""
    dialect = DIALECTS[connection.dialect.name]
    numbers = dialect.numbers.format(first=number, last=number)
    asked = f"SELECT {dialect.image_uuid} FROM {numbers}"  # noqa: S608
    return connection.execute(text(asked)).scalar_one()


BATCH: Final = 100_000

PURGE_SECONDS: Final = 600
"""The longest wait for InnoDB's purge."""


@dataclass(frozen=True)
class Dialect:
    """The SQL of a database for the numbers ``first`` to ``last`` and the IDs of a number ``i``."""

    numbers: str
    instance_id: str
    project_id: str
    image_uuid: str
    uuid: str
    before: tuple[str, ...]
    analyze: str = ""


DIALECTS: Final = {
    "sqlite": Dialect(
        "(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
        "SELECT i FROM n) AS n",
        "printf('%08x-0000-4000-8000-%012x', {i}, {i})",
        "printf('%032x', {i})",
        "image_uuid(i)",
        "X'{hex}'",
        ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-1000000"),
    ),
    "mysql": Dialect(
        "(SELECT seq AS i FROM seq_{first}_to_{last}) AS n",
        "LOWER(CONCAT(LPAD(HEX({i}), 8, '0'), '-0000-4000-8000-', LPAD(HEX({i}), 12, '0')))",
        "LOWER(LPAD(HEX({i}), 32, '0'))",
        "UNHEX(MD5(i))",
        "X'{hex}'",
        ("SET SESSION foreign_key_checks = 0", "SET SESSION unique_checks = 0"),
        "ANALYZE TABLE",
    ),
    "postgresql": Dialect(
        "generate_series(CAST({first} AS bigint), {last}) AS n(i)",
        "lpad(to_hex({i}), 8, '0') || '-0000-4000-8000-' || lpad(to_hex({i}), 12, '0')",
        "lpad(to_hex({i}), 32, '0')",
        "CAST(md5(CAST(i AS text)) AS uuid)",
        "CAST('{hex}' AS uuid)",
        ("SET session_replication_role = replica",),
        "VACUUM ANALYZE",
    ),
}

_INSTALLATIONS: Final = "INSERT INTO related_installation (id, uuid) VALUES (1, {installation})"
_PROJECTS: Final = (
    "INSERT INTO related_project (id, project_id) SELECT i, {id_of_project} FROM {numbers}"
)
_INSTANCES: Final = (
    "INSERT INTO related_instance (id, installation_ref, instance_id, project_ref) "  # noqa: S608
    f"SELECT i, 1, {{id_of_instance}}, i % {PROJECTS} + 1 FROM {{numbers}}"
)
_INSTANCE: Final = f"(i * {STEP} % {{instances}} + 1)"
_PROJECT: Final = f"({_INSTANCE} % {PROJECTS} + 1)"
_TURN: Final = "(i - i % {instances}) / {instances} % 4"
_ROWS: Final = (
    "(SELECT i, {image_uuid} AS image_uuid, {installation} AS installation_uuid, "  # noqa: S608
    f"{_INSTANCE} AS instance_ref, {{instance_id}} AS instance_id, "
    f"{_PROJECT} AS project_ref, {{project_id}} AS project_id, "
    f"CASE {_TURN} WHEN 1 THEN 1 ELSE 2 END AS kind, "
    f"CASE {_TURN} WHEN 0 THEN NULL WHEN 1 THEN 'weekly' ELSE 'daily' END AS label, "
    f"{BEGIN} + i * 1000000 AS created_at FROM {{numbers}}) AS n"
)
"""All columns of the relations with these numbers; the image has the same number."""

IMAGES: Final = "INSERT INTO related_image (id, uuid) SELECT i, image_uuid FROM {rows}"
RELATIONS: Final = (
    "INSERT INTO related_relation (id, instance_ref, image_ref, kind, label, source, project_ref, "
    "created_at, claimed) SELECT i, instance_ref, i, kind, label, 1, project_ref, created_at, 0 "
    "FROM {rows}"
)
_LATEST: Final = (
    "UPDATE related_instance SET {column} = COALESCE((SELECT MAX(created_at) FROM "
    "related_relation WHERE instance_ref = related_instance.id AND kind = {kind}), 0)"
)
_COLUMNS: Final = {"latest_snapshot_at": 1, "latest_backup_at": 2}


def fill_names(connection: Connection, cloud: Cloud) -> None:
    _run(connection, _INSTALLATIONS, 1, 1, cloud)
    _run(connection, _PROJECTS, 1, PROJECTS, cloud)
    for first in range(1, cloud.instances + 1, BATCH):
        _run(connection, _INSTANCES, first, min(first + BATCH - 1, cloud.instances), cloud)


def _run(connection: Connection, insert: str, first: int, last: int, cloud: Cloud) -> None:
    dialect = DIALECTS[connection.dialect.name]
    instance, project = (one.format(instances=cloud.instances) for one in (_INSTANCE, _PROJECT))
    statement = insert.replace("{rows}", _ROWS).format(
        numbers=dialect.numbers.format(first=first, last=last),
        installation=dialect.uuid.format(hex=uuid.UUID(INSTALLATION).hex),
        id_of_instance=dialect.instance_id.format(i="i"),
        id_of_project=dialect.project_id.format(i="i"),
        image_uuid=dialect.image_uuid,
        instance_id=dialect.instance_id.format(i=instance),
        project_id=dialect.project_id.format(i=project),
        instances=cloud.instances,
    )
    connection.execute(text(statement))


def _uuid(number: int) -> bytes:
    return uuid.UUID(image_id(number)).bytes


def _relation(number: int, instances: int) -> dict[str, object]:
    """Return the columns of a relation as :data:`_ROWS` does, for Glance's tables."""
    instance = number * STEP % instances + 1
    turn = number // instances
    return {
        "instance_ref": instance,
        "kind": 1 if turn % 4 == 1 else 2,
        "label": (None, "weekly", "daily")[min(turn % 4, 2)],
        "project_ref": instance % PROJECTS + 1,
    }


def fill_glance(url: str, cloud: Cloud, properties: int) -> None:
    """Put the images of ``cloud`` into Glance's own tables.

    :param properties: the number of properties of each image, from :func:`_properties`
    """
    with connected(url) as connection:
        begin(connection)
        for begun in range(1, cloud.relations + 1, BATCH):
            numbers = range(begun, min(begun + BATCH, cloud.relations + 1))
            rows = [row for n in numbers for row in _properties(n, cloud)[:properties]]
            connection.execute(_GLANCE_IMAGE, [_glance_image(n, cloud) for n in numbers])
            connection.execute(_GLANCE_PROPERTY, rows)
        settle(connection)


_EPOCH: Final = datetime(1970, 1, 1)
_GLANCE_IMAGE: Final = text(
    "INSERT INTO images (id, name, status, created_at, updated_at, deleted, owner, min_disk, "
    "min_ram, protected, visibility, os_hidden) "
    "VALUES (:id, :name, 'queued', :at, :at, false, :owner, 0, 0, false, 'shared', false)"
)
_GLANCE_PROPERTY: Final = text(
    "INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted) "
    "VALUES (:id, :name, :value, '2026-01-01 00:00:00', '2026-01-01 00:00:00', false)"
)


def _glance_image(number: int, cloud: Cloud) -> dict[str, str]:
    row = _relation(number, cloud.instances)
    return {
        "id": image_id(number),
        "name": f"backup {number}",
        # Glance's own format: with another one, paging by this column loses and repeats images
        "at": f"{_EPOCH + timedelta(microseconds=BEGIN, seconds=number):%Y-%m-%d %H:%M:%S.%f}",
        "owner": project_id(int(str(row["project_ref"]))),
    }


def _properties(number: int, cloud: Cloud) -> list[dict[str, str]]:
    row = _relation(number, cloud.instances)
    named = {
        "instance_uuid": instance_id(int(str(row["instance_ref"]))),
        "image_type": "snapshot" if row["kind"] == 1 else "backup",
        "backup_type": str(row["label"]),
        "base_image_ref": image_id(1),
        "user_id": project_id(int(str(row["project_ref"]))),
        "owner_project_name": f"project-{row['project_ref']}",
    }
    return [{"id": image_id(number), "name": name, "value": value} for name, value in named.items()]
