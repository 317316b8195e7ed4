"""Ten tasks of two users and an administrator in a browser, each with a screenshot.

Each screenshot is taken in two widths and two themes. With the variable RELATED_IMAGES_PICTURES,
the screenshots are kept in the directory that it names.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import pytest
import requests
from selenium.webdriver.common.keys import Keys

from tests.cloud.cloud import Cloud
from tests.horizon.browser import WIDTH, Browser
from tests.horizon.conftest import LogIn
from tests.horizon.history import BACKUPS, History
from tests.horizon.starting import DOWN, NO_CINDER, PLAIN, Dashboards

KEPT: Final = "RELATED_IMAGES_PICTURES"
LARGEST: Final = 100_000
"""The largest size of a picture in bytes."""
NARROW: Final = 768
WIDTHS: Final = {"": (WIDTH, 0), "-narrow": (NARROW, 400)}
THEMES: Final = ("", "-material")
"""The ends of the names of screenshots, for each width and theme. Narrow ones are higher."""
SCREENSHOTS: Final = (
    "server-on-volumes",
    "server-backups",
    "servers-without-backup",
    "server",
    "back-up",
    "backed-up",
    "made-from-angular",
    "made-from-django",
    "lineage-angular",
    "lineage-django",
    "deletion-angular",
    "deletion-django",
    "image-usage",
    "without-the-filter",
    "database-down",
    "stranger",
)

SERVER_TAB: Final = "Images and backups"
CONTENT: Final = ".tab-pane.active .related-images"
NO_FILTER: Final = "This cloud does not record which image belongs to which server."
NO_DATABASE: Final = "The relations of images and servers cannot be read now; try again later."
NO_VOLUME_SNAPSHOTS: Final = (
    "The block storage service does not answer, so volume snapshots are not shown, and sizes do "
    "not include them."
)
NO_GRAPHVIZ: Final = "The picture needs the program dot of Graphviz on the host of the dashboard."

Photograph = Callable[..., None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the screenshots."""
    kept = os.environ.get(KEPT)
    directory = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def photograph(pictures: Path, horizons: Dashboards) -> Photograph:
    """Return a function that takes a picture in each form.

    It takes a function that shows the page again, and a height that shows all of it.
    """

    def photograph(
        browser: Browser, name: str, show: Callable[[], object], height: int = 760
    ) -> None:
        default = browser.url
        for theme, url in zip(THEMES, (default, horizons.material[default]), strict=True):
            if url != default:
                browser.url = url
                show()
            for end, (width, more) in WIDTHS.items():
                taken = pictures / f"{name}{theme}{end}.png"
                browser.photograph(taken, width, height + more)
                assert taken.stat().st_size < LARGEST
            browser.resize()
        browser.url = default

    return photograph


def open_server(browser: Browser, history: History, name: str) -> str:
    """Open the tab of a server, and return its text."""
    browser.open(f"/project/instances/{history.servers[name]}/")
    browser.link(SERVER_TAB).click()
    return browser.text(CONTENT)


def open_image(browser: Browser, image_id: str) -> str:
    """Open the tab of an image, and return its text."""
    browser.open(f"/project/images/{image_id}/")
    browser.link("Lineage").click()
    return browser.text(".related-images")


def rows(browser: Browser) -> list[str]:
    """Return the texts of the rows, which Horizon renders again after the tab is shown."""

    def shown() -> list[str]:
        found = browser.all(".related-images tbody tr")
        return [row.text for row in found if row.is_displayed()]

    return list(browser.wait_for(shown, "rows"))


def test_find_the_backups_of_a_server_on_volumes(
    log_in: LogIn, history: History, photograph: Photograph
) -> None:
    alice = log_in("alice")
    open_server(alice, history, "db-1")
    backups = [row for row in rows(alice) if "backup" in row]
    assert len(backups) == BACKUPS
    assert all("Volume snapshot" in row and "1.0 GB" in row for row in backups)
    photograph(alice, "server-on-volumes", lambda: open_server(alice, history, "db-1"), 900)


def test_see_that_a_server_is_overdue(
    log_in: LogIn, history: History, photograph: Photograph
) -> None:
    alice = log_in("alice")

    def show() -> None:
        alice.open("/project/server_backups/")
        alice.find(CONTENT)

    show()
    first, second = rows(alice)
    assert first.startswith("web-1")
    assert "overdue, critical" in first
    assert second.startswith("db-1")
    assert "overdue" not in second
    assert "4.0 GB with 4 volume snapshots" in " ".join(second.split())
    photograph(alice, "server-backups", show, 640)

    def show_others() -> None:
        show()
        alice.link("Servers without a backup").click()
        alice.reads(CONTENT, "idle-1")

    show_others()
    photograph(alice, "servers-without-backup", show_others, 640)
    (without,) = [row for row in rows(alice) if row.startswith("idle-1")]
    assert "overdue" not in without  # it was created just now
    alice.open("/project/server_backups/?label=weekly")
    assert "0 servers have backups" in alice.text(CONTENT)


def test_read_the_plan(log_in: LogIn, history: History, photograph: Photograph) -> None:
    alice = log_in("alice")
    text = open_server(alice, history, "web-1")
    assert "overdue, critical" in text
    assert "keep_daily 2, older_than 20h, critical 50h" in text
    assert "Backups kept: 3. Backups removed: 1." in text
    plan = [row.split(" service ")[1] for row in rows(alice) if " backup " in row]
    assert plan == ["keep in use", "keep daily", "keep daily", "remove no rule keeps it"]
    photograph(alice, "server", lambda: open_server(alice, history, "web-1"))


def test_back_up_now(log_in: LogIn, history: History, photograph: Photograph) -> None:
    alice = log_in("alice")

    def enter(label: str) -> None:
        field = alice.find("#id_label")
        field.clear()
        field.send_keys(label, Keys.ENTER)

    def show() -> None:
        assert "There is no backup" in open_server(alice, history, "idle-1")
        # with the keyboard
        alice.link("Back Up Now").send_keys(Keys.ENTER)
        enter("a label with spaces")
        alice.reads(".modal", "A label has 1 to 64 of the characters")

    show()
    photograph(alice, "back-up", show)
    show()
    enter("before-upgrade")
    alice.reads(CONTENT, "before-upgrade")
    alice.wait_for(lambda: any("active" in row for row in rows(alice)[:1]), "an active backup")
    photograph(alice, "backed-up", lambda: open_server(alice, history, "idle-1"))
    alice.open("/project/server_backups/?label=before-upgrade")
    alice.find(CONTENT)
    (row,) = rows(alice)
    assert row.startswith("idle-1")


@pytest.mark.parametrize("kind", ["angular", "django"])
def test_see_what_an_image_was_made_from(
    log_in: LogIn,
    horizons: Dashboards,
    history: History,
    photograph: Photograph,
    kind: str,
) -> None:
    alice = log_in("alice", getattr(horizons, kind))
    open_image(alice, history.images["third"])
    types = [row.split()[0] for row in rows(alice)]
    assert types == ["image", "server"] * 3 + ["image"]
    names = [row.split()[1] for row in rows(alice)]
    assert names[:2] == ["base", "web-1"]
    assert names[3:5] == ["web-2", history.images["second"]]  # a deleted image has no name
    assert rows(alice)[-1].startswith("image third (this image)")
    if kind == "django":
        assert NO_GRAPHVIZ in alice.text(".related-images")
    else:
        check_links(alice, history)
    made_from = partial(open_image, alice, history.images["third"])
    photograph(alice, f"made-from-{kind}", made_from, 1450)
    open_image(alice, history.images["base"])
    used_by = "Used by: 4 servers (1 of them through images that were made from it), 1 volume"
    assert used_by in alice.text(".related-images")
    lineage = partial(open_image, alice, history.images["base"])
    photograph(alice, f"lineage-{kind}", lineage, 1000)


def check_links(alice: Browser, history: History) -> None:
    """Check that the picture links to what exists, and to nothing else."""
    links = [one.get_attribute("xlink:href") for one in alice.all(".related-images-picture a")]
    assert f"/project/instances/{history.servers['web-1']}/" in links
    assert f"/project/images/{history.images['base']}/" in links
    assert not any(history.images["second"] in str(link) for link in links)


@pytest.mark.parametrize("kind", ["angular", "django"])
def test_be_told_what_depends_on_an_image_before_it_is_deleted(
    log_in: LogIn, horizons: Dashboards, history: History, photograph: Photograph, kind: str
) -> None:
    alice = log_in("alice", getattr(horizons, kind))
    toggles = {"angular": ".split-caret", "django": ".dropdown-toggle.btn-sm"}

    def show() -> None:
        alice.open(f"/project/images/{history.images['backup']}/")
        alice.find(f"{toggles[kind]}").click()
        alice.link("Delete Image").click()
        alice.reads(".modal-body", "These depend on it: 1 server (web-2).")

    show()
    photograph(alice, f"deletion-{kind}", show)


def test_find_unused_images(log_in: LogIn, history: History, photograph: Photograph) -> None:
    admin = log_in("admin")

    def show() -> str:
        admin.open("/admin/image_usage/")
        return admin.text(".related-images")

    text = show()
    assert "third" in text
    assert "web-1-daily" in text
    assert "nova-bus" in text
    assert "There was no reconciliation yet." in text
    assert history.images["base"] not in admin.driver.page_source
    photograph(admin, "image-usage", show, 1000)


@pytest.mark.parametrize(
    ("region", "sentence", "name"),
    [(PLAIN, NO_FILTER, "without-the-filter"), (DOWN, NO_DATABASE, "database-down")],
)
def test_one_sentence_says_why_there_are_no_data(
    log_in: LogIn,
    history: History,
    photograph: Photograph,
    region: str,
    sentence: str,
    name: str,
) -> None:
    alice = log_in("alice", region=region)
    assert open_server(alice, history, "web-1") == sentence
    photograph(alice, name, lambda: open_server(alice, history, "web-1"))
    assert open_image(alice, history.images["base"]) == sentence
    alice.open("/project/server_backups/")
    assert alice.text(CONTENT) == sentence
    alice.link("Servers without a backup").click()
    assert alice.text(CONTENT) == sentence
    alice.open("/project/images/")
    alice.reads("table", "base")
    admin = log_in("admin", region=region)
    admin.open("/admin/image_usage/")
    assert admin.text(".related-images") == sentence


def test_only_volume_snapshots_need_cinder(log_in: LogIn, history: History) -> None:
    alice = log_in("alice", region=NO_CINDER)
    alice.open(f"/api/related-images/servers/{history.servers['db-1']}/images/")
    assert alice.text(".alert") == NO_VOLUME_SNAPSHOTS
    assert sum("daily" in row and "0 bytes" in row for row in rows(alice)) == BACKUPS
    alice.open("/project/server_backups/")
    assert alice.text(f"{CONTENT} .alert") == NO_VOLUME_SNAPSHOTS
    (row,) = [row for row in rows(alice) if row.startswith("db-1")]
    assert "≥ 0 bytes" in row


def test_a_stranger_learns_nothing(log_in: LogIn, history: History, photograph: Photograph) -> None:
    bob = log_in("bob")
    assert "Nothing that you may see uses it." in open_image(bob, history.images["base"])
    assert len(rows(bob)) == 1
    photograph(bob, "stranger", lambda: open_image(bob, history.images["base"]))
    bob.open(f"/api/related-images/images/{history.images['backup']}/lineage/")
    gone = "It does not exist, or your account is not permitted to see it."
    assert bob.text("body") == gone
    bob.open(f"/project/instances/{history.servers['web-1']}/")
    assert "web-1" not in bob.text("body")
    bob.open("/project/server_backups/")
    assert "0 servers have backups" in bob.text(CONTENT)
    bob.open("/admin/image_usage/")
    assert "nova-bus" not in bob.text("body")


@pytest.mark.parametrize("kind", ["angular", "django"])
def test_a_name_is_text(
    log_in: LogIn, horizons: Dashboards, history: History, cloud: Cloud, kind: str
) -> None:
    """AngularJS would compute 49, and a browser would not show the tags."""
    name = "{{7*7}}<b>third</b>"
    images = cloud.connection("alice").image
    images.update_image(history.images["third"], name=name)
    try:
        alice = log_in("alice", getattr(horizons, kind))
        assert f"image {name} (this image)" in open_image(alice, history.images["third"])
    finally:
        images.update_image(history.images["third"], name="third")


def test_the_content_has_no_scripts(log_in: LogIn, history: History) -> None:
    alice = log_in("alice")
    alice.open(f"/api/related-images/images/{history.images['base']}/lineage/")
    source = alice.driver.page_source
    assert "related-images-picture" in source
    assert "<script" not in source
    assert re.search(r"\son\w+=", source) is None


def test_a_page_is_translated(log_in: LogIn, history: History) -> None:
    alice = log_in("alice")
    cookies = {one["name"]: one["value"] for one in alice.driver.get_cookies()}
    path = f"{alice.url}/api/related-images/servers/{history.servers['web-1']}/images/"
    language = {"Accept-Language": "de"}
    shown = requests.get(path, cookies=cookies, headers=language, timeout=600).text
    for text in ("Neueste Sicherung", "Alter: 3 Tage", "überfällig, kritisch", "keine Regel"):
        assert text in shown


def test_every_screenshot_has_every_form(pictures: Path) -> None:
    """The tests above take them."""
    expected = {"".join(parts) + ".png" for parts in product(SCREENSHOTS, THEMES, WIDTHS)}
    assert expected <= {path.name for path in pictures.iterdir()}
