"""Ten tasks of two users and an administrator in a browser, each with a screenshot.

With the variable RELATED_IMAGES_PICTURES, the screenshots are kept in the directory that it names.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from selenium.webdriver.common.keys import Keys

from tests.cloud.cloud import Cloud
from tests.horizon.browser import Browser
from tests.horizon.conftest import LogIn
from tests.horizon.history import BACKUPS, History
from tests.horizon.starting import DOWN, PLAIN, Dashboards

KEPT: Final = "RELATED_IMAGES_PICTURES"
LARGEST: Final = 100_000
"""The largest size of a picture in bytes."""

SERVER_TAB: Final = "Images and backups"
CONTENT: Final = ".tab-pane.active .related-images"
NO_FILTER: Final = "This cloud does not record which image belongs to which server."
NO_DATABASE: Final = "The relations of images and servers cannot be read now; try again later."
NO_GRAPHVIZ: Final = "The picture needs the program dot of Graphviz on the host of the dashboard."

Photograph = Callable[..., None]


@pytest.fixture
def photograph(tmp_path: Path) -> Photograph:
    """Return a function that takes a picture, with a height that shows the page."""

    def photograph(browser: Browser, name: str, height: int = 760) -> None:
        directory = Path(os.environ.get(KEPT, tmp_path))
        directory.mkdir(parents=True, exist_ok=True)
        taken = directory / f"{name}.png"
        browser.photograph(taken, height)
        assert taken.stat().st_size < LARGEST

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
    photograph(alice, "server-on-volumes", 900)


def test_see_that_a_server_is_overdue(
    log_in: LogIn, history: History, photograph: Photograph
) -> None:
    alice = log_in("alice")
    alice.open("/project/server_backups/")
    alice.find(CONTENT)
    first, second = rows(alice)
    assert first.startswith("web-1")
    assert "overdue, critical" in first
    assert second.startswith("db-1")
    assert "overdue" not in second
    assert "and 4 volume snapshots" in second
    photograph(alice, "server-backups", 640)
    alice.link("Servers without a backup").click()
    alice.reads(CONTENT, "idle-1")
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
    photograph(alice, "server")


def test_back_up_now(log_in: LogIn, history: History, photograph: Photograph) -> None:
    alice = log_in("alice")
    assert "There is no backup" in open_server(alice, history, "idle-1")
    # with the keyboard
    alice.link("Back Up Now").send_keys(Keys.ENTER)
    label = alice.find("#id_label")
    label.clear()
    label.send_keys("a label with spaces", Keys.ENTER)
    alice.reads(".modal", "A label has 1 to 64 of the characters")
    photograph(alice, "back-up")
    label = alice.find("#id_label")
    label.clear()
    label.send_keys("before-upgrade", Keys.ENTER)
    alice.reads(CONTENT, "before-upgrade")
    alice.wait_for(lambda: any("active" in row for row in rows(alice)[:1]), "an active backup")
    photograph(alice, "backed-up")
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
    photograph(alice, f"made-from-{kind}", 1450)
    open_image(alice, history.images["base"])
    used_by = "Used by: 4 servers (1 of them through images that were made from it), 1 volume"
    assert used_by in alice.text(".related-images")
    photograph(alice, f"lineage-{kind}", 1000)


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
    alice.open(f"/project/images/{history.images['backup']}/")
    toggles = {"angular": ".split-caret", "django": ".dropdown-toggle.btn-sm"}
    alice.find(f"{toggles[kind]}").click()
    alice.link("Delete Image").click()
    alice.reads(".modal-body", "These depend on it: 1 server (web-2).")
    photograph(alice, f"deletion-{kind}")
    alice.link("Cancel").click()


def test_find_unused_images(log_in: LogIn, history: History, photograph: Photograph) -> None:
    admin = log_in("admin")
    admin.open("/admin/image_usage/")
    text = admin.text(".related-images")
    assert "third" in text
    assert "web-1-daily" in text
    assert "nova-bus" in text
    assert "There was no reconciliation yet." in text
    assert history.images["base"] not in admin.driver.page_source
    photograph(admin, "image-usage", 1000)


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
    photograph(alice, name)
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


def test_a_stranger_learns_nothing(log_in: LogIn, history: History, photograph: Photograph) -> None:
    bob = log_in("bob")
    assert "nothing that you may see" in open_image(bob, history.images["base"])
    assert len(rows(bob)) == 1
    photograph(bob, "stranger")
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
