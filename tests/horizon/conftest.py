"""Horizon with the plugin on the test cloud, what users did there before, and their browsers."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.conftest import cloud  # noqa: F401
from tests.conftest import REQUIRE_SERVERS
from tests.horizon.browser import Browser, browser, missing_programs
from tests.horizon.history import History, make_history
from tests.horizon.starting import Dashboards, dashboards

LogIn = Callable[..., Browser]


@pytest.fixture(scope="session")
def history(cloud: Cloud) -> History:  # noqa: F811
    return make_history(cloud)


@pytest.fixture(scope="session", autouse=True)
def is_installed() -> None:
    """Skip or fail before the cloud starts if there is no browser."""
    if missing := missing_programs():
        end = pytest.fail if os.environ.get(REQUIRE_SERVERS) == "1" else pytest.skip
        end(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def horizons(cloud: Cloud) -> Iterator[Dashboards]:  # noqa: F811
    with dashboards(cloud) as started:
        yield started


@pytest.fixture(scope="session")
def log_in(horizons: Dashboards, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogIn]:
    """Return a function that returns the browser of a user, who logs in only once."""
    with ExitStack() as stack:
        open_browsers: dict[tuple[str, str], Browser] = {}

        def log_in(who: str, url: str = horizons.angular, region: str | None = None) -> Browser:
            if (who, url) not in open_browsers:
                profile = tmp_path_factory.mktemp(f"browser-{who}")
                window = stack.enter_context(browser(url, profile))
                window.log_in(who)
                open_browsers[who, url] = window
            found = open_browsers[who, url]
            found.resize()
            found.choose_region(region or horizons.region)
            return found

        yield log_in
