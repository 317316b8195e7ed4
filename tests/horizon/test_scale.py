"""The pages of a project with 2,000 servers and 28,000 backups: API calls and time."""

from typing import Final

import pytest
import requests

from tests.cloud.cloud import Cloud
from tests.horizon import filling
from tests.horizon.conftest import LogIn
from tests.horizon.history import History
from tests.horizon.measurement import API_MILLISECONDS, CALLS, MILLISECONDS
from tests.horizon.starting import LARGE

TIMES: Final = 1.5
"""The largest time of a page as a multiple of the time of its API calls."""
ROUNDS: Final = 3
ROWS: Final = 20
"""The number of rows of a page in Horizon, by default."""
IMAGE_IDS: Final = 50
"""The number of images that one request names."""

OF_PANEL: Final = 3 + 2 * ROWS + -(-ROWS * filling.BACKUPS // IMAGE_IDS)
"""The settings of the filter, two pages of servers; for each row its backups and its server."""
PAGES: Final = {
    "/project/server_backups/": OF_PANEL,
    "/project/server_backups/?page=100": OF_PANEL,
    "/project/server_backups/?tab=server_backups__without": 4,
    "/project/instances/{server}/?tab=instance_details__related_images": 30,
    "/api/related-images/images/{image}/lineage/": 30,
    "/api/related-images/dependents/?image_ids={image}": 5,
    "/admin/image_usage/": 3,
}
"""The largest number of API calls of each page, with those of Horizon itself."""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_little_more_than_its_api_calls(
    cloud: Cloud, log_in: LogIn, history: History, page: str
) -> None:
    filling.name_server(cloud, history.servers["web-1"])
    window = log_in("admin" if page.startswith("/admin") else "alice", region=LARGE)
    path = page.format(server=history.servers["web-1"], image=filling.BASE)
    cookies = {one["name"]: one["value"] for one in window.driver.get_cookies()}
    # without this header, Horizon renders the whole page around the tab
    headers = {"X-Requested-With": "XMLHttpRequest"} if "tab=" in page else {}
    measured = []
    for _ in range(ROUNDS):
        answer = requests.get(window.url + path, cookies=cookies, headers=headers, timeout=600)
        assert answer.status_code == 200
        assert "alert-warning" not in answer.text
        measured.append([float(answer.headers[it]) for it in (MILLISECONDS, API_MILLISECONDS)])
        calls = int(answer.headers[CALLS])
        assert 0 < calls <= PAGES[page]
    took, of_api = min(measured)
    print(f"{page}: {calls} calls, {took:.0f} ms, API {of_api:.0f} ms")
    assert took <= TIMES * of_api
