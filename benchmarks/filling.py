"""Filling databases by the million, in SQL, with made-up relations and with made-up images.

Images are made of one instance after another, in an order that has nothing to do with their
numbers, so that the images of one instance lie far apart, as they do after years of backups.
"""

import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from related_images.store import schema

INSTALLATION: Final = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e01"
PER_INSTANCE: Final = 10
PROJECTS: Final = 1000
STEP: Final = 7919
"""From one instance to the next; a prime, so that all of them have their turn."""
BEGIN: Final = 1_760_000_000_000_000
"""Microseconds since 1970 of the oldest relation; each next one is a second younger."""


@dataclass(frozen=True)
class Cloud:
    """How much there is: ``relations`` of as many images, and the instances they were made from."""

    relations: int
    per_instance: int = PER_INSTANCE

    @property
    def instances(self) -> int:
        return max(1, self.relations // self.per_instance)


def instance_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def image_id(number: int) -> str:
    """Scattered over all ids, as random ones are."""
    mixed = (number * 0x9E3779B97F4A7C15) % 2**64
    return f"{mixed >> 32:08x}-{(mixed >> 16) & 0xFFFF:04x}-4000-8{mixed & 0xFFF:03x}-{number:012x}"


def project_id(number: int) -> str:
    return f"{number:032x}"


def fill(url: str, cloud: Cloud) -> None:
    """Make our tables at ``url`` and put the relations into them."""
    schema.upgrade(url)
    with schema.connected(url) as connection:
        dialect = DIALECTS[connection.dialect.name]
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.create_function("image_uuid", 1, _uuid, deterministic=True)
        for statement in dialect.before:
            connection.execute(text(statement))
        _fill_names(connection, cloud, dialect)
        for first in range(1, cloud.relations + 1, BATCH):
            last = min(first + BATCH - 1, cloud.relations)
            for insert in (_IMAGES, _RELATIONS):
                _insert(connection, insert, dialect, first, last, cloud)
        for column, kind in _COLUMNS.items():
            connection.execute(text(_LATEST.format(column=column, kind=kind)))
        connection.commit()
        for name in ("relation", "instance", "image", "project"):
            connection.execute(text(f"{dialect.analyze} related_{name}"))
        connection.commit()


BATCH: Final = 100_000


@dataclass(frozen=True)
class Dialect:
    """How a database counts from ``first`` to ``last`` and writes ids of the number ``i``."""

    numbers: str
    instance_id: str
    image_uuid: str
    before: tuple[str, ...]
    analyze: str = "ANALYZE"


DIALECTS: Final = {
    "sqlite": Dialect(
        "(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
        "SELECT i FROM n) AS n",
        "printf('%08x-0000-4000-8000-%012x', i, i)",
        "image_uuid(i)",
        ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-1000000"),
    ),
    "mysql": Dialect(
        "(SELECT seq AS i FROM seq_{first}_to_{last}) AS n",
        "LOWER(CONCAT(LPAD(HEX(i), 8, '0'), '-0000-4000-8000-', LPAD(HEX(i), 12, '0')))",
        "UNHEX(MD5(i))",
        ("SET SESSION foreign_key_checks = 0", "SET SESSION unique_checks = 0"),
        "ANALYZE TABLE",
    ),
    "postgresql": Dialect(
        "generate_series(CAST({first} AS bigint), {last}) AS n(i)",
        "lpad(to_hex(i), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(i), 12, '0')",
        "CAST(md5(CAST(i AS text)) AS uuid)",
        ("SET session_replication_role = replica",),
    ),
}

_PROJECTS: Final = "INSERT INTO related_project (id, project_id) VALUES (:id, :project_id)"
_INSTANCES: Final = (
    "INSERT INTO related_instance (id, installation_ref, instance_id, project_ref) "
    "SELECT i, 1, {instance_id}, i % {projects} + 1 FROM {numbers}"
)
_IMAGES: Final = "INSERT INTO related_image (id, uuid) SELECT i, {image_uuid} FROM {numbers}"
_RELATIONS: Final = (
    "INSERT INTO related_relation (id, instance_ref, image_ref, kind, label, source, project_ref, "
    "created_at, claimed) SELECT i, i * {step} % {instances} + 1, i, "
    "CASE (i - i % {instances}) / {instances} % 4 WHEN 1 THEN 1 ELSE 2 END, "
    "CASE (i - i % {instances}) / {instances} % 4 WHEN 0 THEN NULL WHEN 1 THEN 'weekly' "
    "ELSE 'daily' END, 1, (i * {step} % {instances} + 1) % {projects} + 1, "
    "{begin} + i * 1000000, 0 FROM {numbers}"
)
_LATEST: Final = (
    "UPDATE related_instance SET {column} = COALESCE((SELECT MAX(created_at) FROM "
    "related_relation WHERE instance_ref = related_instance.id AND kind = {kind}), 0)"
)
_COLUMNS: Final = {"latest_snapshot_at": 1, "latest_backup_at": 2}


def _fill_names(connection: Connection, cloud: Cloud, dialect: Dialect) -> None:
    named = uuid.UUID(INSTALLATION)
    connection.execute(
        text("INSERT INTO related_installation (id, uuid) VALUES (1, :uuid)"),
        {"uuid": str(named) if connection.dialect.name == "postgresql" else named.bytes},
    )
    projects = [{"id": n, "project_id": project_id(n)} for n in range(1, PROJECTS + 1)]
    connection.execute(text(_PROJECTS), projects)
    for first in range(1, cloud.instances + 1, BATCH):
        last = min(first + BATCH - 1, cloud.instances)
        _insert(connection, _INSTANCES, dialect, first, last, cloud)


def _insert(
    connection: Connection, insert: str, dialect: Dialect, first: int, last: int, cloud: Cloud
) -> None:
    statement = insert.format(
        numbers=dialect.numbers.format(first=first, last=last),
        instance_id=dialect.instance_id,
        image_uuid=dialect.image_uuid,
        instances=cloud.instances,
        projects=PROJECTS,
        step=STEP,
        begin=BEGIN,
    )
    connection.execute(text(statement.replace(":", "\\:")))


def _uuid(number: int) -> bytes:
    return uuid.UUID(image_id(number)).bytes


def _relation(number: int, instances: int) -> dict[str, object]:
    """The same in Python, for Glance's tables."""
    instance = number * STEP % instances + 1
    turn = number // instances
    return {
        "instance_ref": instance,
        "kind": 1 if turn % 4 == 1 else 2,
        "label": (None, "weekly", "daily")[min(turn % 4, 2)],
        "project_ref": instance % PROJECTS + 1,
    }


def fill_glance(database: Path, first: int, last: int, cloud: Cloud, properties: int) -> None:
    """Put the images from number ``first`` to ``last`` into Glance's own tables.

    :param properties: how many of :data:`PROPERTIES` each has
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-500000")
        for begin in range(first, last + 1, BATCH):
            numbers = range(begin, min(begin + BATCH, last + 1))
            connection.executemany(_GLANCE_IMAGE, (_glance_image(n, cloud) for n in numbers))
            rows = (row for n in numbers for row in _properties(n, cloud)[:properties])
            connection.executemany(_GLANCE_PROPERTY, rows)
        connection.commit()
        connection.execute("ANALYZE")


_GLANCE_IMAGE: Final = (
    "INSERT INTO images (id, name, status, created_at, updated_at, deleted, owner, min_disk, "
    "min_ram, protected, visibility, os_hidden) "
    "VALUES (?, ?, 'queued', ?, ?, 0, ?, 0, 0, 0, 'shared', 0)"
)
_GLANCE_PROPERTY: Final = (
    "INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted) "
    "VALUES (?, ?, ?, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 0)"
)


def _glance_image(number: int, cloud: Cloud) -> tuple[object, ...]:
    row = _relation(number, cloud.instances)
    seconds = number % 60
    at = f"2026-01-{1 + number % 28:02d} {number % 24:02d}:{number // 24 % 60:02d}:{seconds:02d}"
    return (image_id(number), f"backup {number}", at, at, project_id(int(str(row["project_ref"]))))


def _properties(number: int, cloud: Cloud) -> list[tuple[str, str, str]]:
    row = _relation(number, cloud.instances)
    named = {
        "instance_uuid": instance_id(int(str(row["instance_ref"]))),
        "image_type": "snapshot" if row["kind"] == 1 else "backup",
        "backup_type": str(row["label"]),
        "user_id": project_id(int(str(row["project_ref"]))),
        "base_image_ref": image_id(1),
        "owner_project_name": f"project-{row['project_ref']}",
    }
    return [(image_id(number), name, value) for name, value in named.items()]
