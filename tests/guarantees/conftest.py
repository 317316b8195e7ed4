from collections.abc import Iterator
from pathlib import Path

import pytest

from related_images.db import schema
from tests.client.scripted import Scripted, serving
from tests.guarantees.reconciling import Reconciler
from tests.servers import ServedGlance


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """The real Glance with the filter and delayed deletion."""
    directory = tmp_path_factory.mktemp("served")
    with ServedGlance(directory, glance_conf="[DEFAULT]\ndelayed_delete = True") as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A Glance whose responses the test defines."""
    with serving() as server:
        yield server


@pytest.fixture
def reconciler(
    tmp_path: Path, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> Reconciler:
    """The command with that Glance and an empty database."""
    connection = f"sqlite:///{tmp_path}/related-images.db"
    schema.upgrade(connection)
    return Reconciler(connection, scripted.url, capsys)
