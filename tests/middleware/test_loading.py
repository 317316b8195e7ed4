"""The modules that the filter loads into the process of Glance."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import filters

LOADING = """\
import sys
from related_images.middleware import filter_factory
filter_factory({}, connection=sys.argv[1])(None)
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    url = filters.migrated(Path(tmp_path_factory.mktemp("loading")))
    done = subprocess.run(
        [sys.executable, "-c", LOADING, url], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "stranger",
    [
        "alembic",
        "cliff",
        "keystoneauth1",
        "oslo_config.generator",
        "oslo_messaging",
        "routes.middleware",
        "sqlalchemy.dialects.postgresql",
    ],
)
def test_unneeded_modules_are_not_loaded(loaded: set[str], stranger: str) -> None:
    assert "related_images.db.relations" in loaded
    assert stranger not in loaded
