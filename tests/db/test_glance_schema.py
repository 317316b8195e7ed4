"""The tables in the database of the real Glance: both work."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from related_images.db import schema
from tests.db.test_schema import differences, tables, version

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class GlanceManage:
    """``glance-manage`` for one database; its ``db check`` always refuses PostgreSQL."""

    directory: Path

    @classmethod
    def on(cls, url: str, directory: Path) -> "GlanceManage":
        lines = ("[DEFAULT]", "use_stderr = true", "[database]", f"connection = {url}", "")
        (directory / "glance-manage.conf").write_text("\n".join(lines))
        return cls(directory)

    def run(self, *words: str) -> tuple[int, str]:
        program = Path(sys.executable).with_name("glance-manage")
        done = subprocess.run(
            [program, "--config-file", self.directory / "glance-manage.conf", *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OS_GLANCE_CONFIG_DIR": str(self.directory)},
        )
        return done.returncode, done.stdout


@pytest.fixture
def glance(database_url: str, tmp_path: Path) -> GlanceManage:
    return GlanceManage.on(database_url, tmp_path)


def test_tables_can_be_created_after_those_of_glance(
    glance: GlanceManage, database_url: str
) -> None:
    assert glance.run("db_sync")[0] == 0
    before, theirs = glance.run("db", "check"), tables(database_url)
    schema.upgrade(database_url)
    assert glance.run("db", "check") == before
    assert theirs < tables(database_url)
    assert differences(database_url) == []
    assert version(database_url) == schema.REVISIONS[-1]


def test_glance_can_create_its_tables_after_ours(glance: GlanceManage, database_url: str) -> None:
    schema.upgrade(database_url)
    ours = tables(database_url)
    assert glance.run("db_sync")[0] == 0
    theirs = tables(database_url) - ours
    assert theirs >= {"images", "image_properties", "alembic_version"}
    assert differences(database_url) == []
    schema.downgrade(database_url, "base")
    assert tables(database_url) == theirs | {schema.VERSION_TABLE}
