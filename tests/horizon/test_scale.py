"""The pages of a project with 2,000 servers and 28,000 backups: API calls and time."""

from dataclasses import dataclass
from typing import Final

import pytest
import requests

from tests.cloud.cloud import Cloud
from tests.horizon import filling
from tests.horizon.browser import Browser
from tests.horizon.conftest import LogIn
from tests.horizon.history import History
from tests.horizon.measurement import API_MILLISECONDS, CALLS, MILLISECONDS
from tests.horizon.starting import LARGE

TIMES: Final = 1.5
"""The largest time of a page as a multiple of the time of its API calls."""
ROUNDS: Final = 3
ROWS: Final = 20
"""The number of rows of a page in Horizon, by default."""
IMAGE_IDS: Final = 32
"""The number of images that one request names."""

FRAME: Final = 12
"""The largest number of API calls of Horizon itself around a page."""
OF_PANEL: Final = FRAME + 5 + 2 * ROWS + -(-ROWS * filling.BACKUPS // IMAGE_IDS)
"""The settings of the filter, two pages of servers and two of images; for each row two calls."""

PAGES: Final = {
    "/project/server_backups/": OF_PANEL,
    "/project/server_backups/?page=100": OF_PANEL,
    "/project/server_backups/?label=daily": OF_PANEL + 5,
    "/project/server_backups/?tab=server_backups__without": FRAME + 4,
    "/api/related-images/servers/{server}/images/": 10,
    "/api/related-images/images/{image}/lineage/": 20,
    "/api/related-images/dependents/?image_ids={image}": FRAME,
    "/admin/image_usage/": FRAME + 3,
}
"""The largest number of API calls of each page, with those of Horizon itself."""


@dataclass(frozen=True, order=True)
class Taken:
    """The time and the number of API calls of a page.

    :ivar total: milliseconds
    :ivar of_api: the milliseconds of its API calls
    """

    total: float
    of_api: float
    calls: int


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_little_more_than_its_api_calls(
    cloud: Cloud, log_in: LogIn, history: History, page: str
) -> None:
    filling.name_server(cloud, history.servers["web-1"])
    window = log_in("admin" if page.startswith("/admin") else "alice", region=LARGE)
    path = page.format(server=history.servers["web-1"], image=filling.BASE)
    taken = quickest(window, path)
    print(f"{page}: {taken}")
    assert 0 < taken.calls <= PAGES[page]
    assert taken.total <= TIMES * taken.of_api


def quickest(window: Browser, path: str) -> Taken:
    """Request the content of the plugin on a page several times."""
    cookies = {one["name"]: one["value"] for one in window.driver.get_cookies()}
    # without this header, Horizon renders the whole page around the tab
    headers = {"X-Requested-With": "XMLHttpRequest"} if "tab=" in path else {}
    found = []
    for _ in range(ROUNDS):
        answer = requests.get(window.url + path, cookies=cookies, headers=headers, timeout=600)
        assert answer.status_code == 200
        assert "alert-warning" not in answer.text
        names = (MILLISECONDS, API_MILLISECONDS)
        total, of_api = (float(answer.headers[name]) for name in names)
        found.append(Taken(total, of_api, int(answer.headers[CALLS])))
    return min(found)
