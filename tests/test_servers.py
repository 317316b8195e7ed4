"""The servers of the tests: their directories, and what is reported if one fails to start."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests import rabbitmq, servers
from tests.conftest import started


def test_output_of_a_failed_glance_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "RELATED_IMAGES", "import sys; sys.exit('for a reason')")
    with pytest.raises(AssertionError, match="serve does not answer: for a reason"):
        servers.ServedGlance(tmp_path).start()


def test_output_of_a_failed_broker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "BROKER", "/bin/false")
    with pytest.raises(AssertionError, match="the broker does not answer"):
        next(started(rabbitmq.rabbitmq))


def test_a_mariadb_has_a_directory_of_its_own_for_temporary_tables(
    mariadb: servers.DatabaseServer,
) -> None:
    """Another MariaDB that starts in this directory would delete them, which may end the server."""
    with create_engine(mariadb.url).connect() as connection:
        tmpdir, datadir = connection.execute(text("SELECT @@tmpdir, @@datadir")).one()
    assert Path(datadir).parent == Path(tmpdir)
