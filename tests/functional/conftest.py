import os
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from paste.deploy import loadapp

from related_images.db import schema
from related_images.integrations import glance as embedded
from tests import servers
from tests.functional.cloud import Cloud

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


@pytest.fixture(scope="session")
def cloud(
    glance_app: "WSGIApplication", glance_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Cloud:
    """The same Glance twice: with the filter in the shipped pipeline, and without it."""
    schema.upgrade(f"sqlite:///{glance_home}/related-images.db")
    # this process has read the files already; a long timeout, so that a busy machine does not fail
    options = {
        embedded.CONFIG_DIRECTORY: str(glance_home),
        "OS_RELATED_IMAGES__DATABASE_TIMEOUT": "60",
    }
    paste = servers.paste_without(tmp_path_factory.mktemp("filtered"), "development-identity")
    with mock.patch.dict(os.environ, options):
        return Cloud(loadapp(f"config:{paste}", name="glance-api"), glance_app)
