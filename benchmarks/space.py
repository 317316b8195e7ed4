"""Bytes on disk of a relation, compared with image properties in Glance's tables."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from unittest import mock

from sqlalchemy import text
from sqlalchemy.engine import make_url

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, Spread
from benchmarks.sizes import Sizes
from related_images.db import schema
from related_images.integrations import glance

BYTES: Final = Aim(150)
PROPERTIES: Final = 6
IMAGES: Final = 20_000

_SIZE: Final = {
    "mysql": "SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES "
    "WHERE NAME LIKE CONCAT(DATABASE(), '/%')",
    "postgresql": "SELECT SUM(pg_total_relation_size(c.oid)) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'public' AND c.relkind = 'r'",
}


def run(directory: Path, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    properties = _bytes_of_properties(directory / "properties")
    for kind in sizes.databases:
        cloud = Cloud(sizes.rows)
        used = bytes_on_disk(databases.filled(kind, cloud)) / cloud.relations
        yield Result(
            "bytes on disk of a relation, indexes included",
            f"{PROPERTIES} properties of an image in Glance (SQLite)",
            f"{cloud.relations:,} relations, {kind}",
            "bytes",
            _exactly(used),
            _exactly(properties),
            used,
            "bytes",
            BYTES if kind == "sqlite" else None,
            f"{properties / used:.1f} times smaller",
        )


def by_table(url: str) -> dict[str, int]:
    """Return the bytes of each table and index of a SQLite database."""
    with schema.connected(url) as connection:
        found = connection.execute(text("SELECT name, SUM(pgsize) FROM dbstat GROUP BY name"))
        return {name: size for name, size in found if size > 100_000}


def bytes_on_disk(url: str) -> int:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with schema.connected(url) as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(str(parsed.database)).stat().st_size
    with schema.connected(url) as connection:
        return int(connection.execute(text(_SIZE[parsed.get_backend_name()])).scalar_one())


def _bytes_of_properties(directory: Path) -> float:
    """Return the bytes of the properties of one image in Glance's database."""
    # `prepare` changes the environment, which must not affect the following parts
    with mock.patch.dict(os.environ):
        glance.prepare(directory)
    database = directory / "glance.db"
    filling.fill_glance(f"sqlite:///{database}", Cloud(IMAGES), PROPERTIES)
    asked = "SELECT SUM(pgsize) FROM dbstat WHERE name LIKE '%image_properties%'"
    with closing(sqlite3.connect(database)) as connection:
        return float(connection.execute(asked).fetchone()[0]) / IMAGES


def _exactly(value: float) -> Spread:
    return Spread(value, value, value, 1)
