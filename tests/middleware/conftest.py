from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from related_images.middleware import InstanceAwareMiddleware
from tests import filters

MakeFilter = Callable[..., InstanceAwareMiddleware]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def make_filter(empty_store: Path) -> MakeFilter:
    """Return a function that puts a filter with options and its own database before an app."""

    def make(app: Any, **options: str) -> InstanceAwareMiddleware:
        # long, so that a busy machine does not fail the test
        given = {"database_timeout": "60"} | options
        return filters.filtering(app, filters.migrated(empty_store), **given)

    return make


@pytest.fixture
def stub_glance() -> filters.StubGlance:
    return filters.StubGlance()
