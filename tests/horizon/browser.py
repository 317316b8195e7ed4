"""A real browser, and what a user does in it."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.cloud.plan import PASSWORD

PROGRAMS: Final = ("chromium", "chromedriver")
PATIENCE: Final = 60
"""Seconds to wait for a page."""

OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--lang=en-US",
)
WIDTH, HEIGHT = 1280, 900
COLOURS: Final = 64
"""The number of colours of a screenshot; with more, its file is larger."""

PASSING: Final = (NoSuchElementException, StaleElementReferenceException)


class Browser:
    """A window in which one user is logged in.

    :param url: the URL of Horizon
    """

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def log_in(self, who: str) -> None:
        self.driver.get(f"{self.url}/auth/login/")
        self.find("#id_username").send_keys(who)
        self.find("#id_password").send_keys(PASSWORD)
        self.find("#loginBtn").click()
        self.wait_for(lambda: "/auth/login" not in self.driver.current_url, "the login")

    def choose_region(self, name: str) -> None:
        """Choose a region, which Horizon stores in the session."""
        self.open(f"/auth/switch_services_region/{name}/?next=/auth/login/")

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def find(self, selector: str) -> Any:
        """Return the first visible element, which may appear a little later."""

        def visible() -> Any:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in found if one.is_displayed()), None)

        return self.wait_for(visible, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def link(self, text: str) -> Any:
        """Return the visible link or button with this text."""
        path = f"//*[self::a or self::button][contains(normalize-space(.), '{text}')]"

        def visible() -> Any:
            found = self.driver.find_elements(By.XPATH, path)
            return next((one for one in found if one.is_displayed()), None)

        return self.wait_for(visible, text)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def reads(self, selector: str, words: str) -> str:
        """Wait until an element contains the words, and return its text."""

        def contains() -> str | None:
            text = self.text(selector)
            return text if words in text else None

        return str(self.wait_for(contains, f"{words} in {selector}"))

    def wait_for(self, ask: Callable[[], Any], what: str) -> Any:
        try:
            waiting = WebDriverWait(self.driver, PATIENCE, 0.2, PASSING)
            return waiting.until(lambda _: ask())
        except TimeoutException as error:
            shown = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"no {what} at {self.driver.current_url}: {shown}") from error

    def resize(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.driver.set_window_size(width, height)

    def photograph(self, path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
        """Write a screenshot with few colours."""
        self.resize(width, height)
        taken = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        taken.quantize(COLOURS).save(path, optimize=True)


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def browser(url: str, directory: Path) -> Iterator[Browser]:
    """Run a browser, and yield it.

    :param directory: the directory of the profile of the browser
    """
    program, driver_program = map(shutil.which, PROGRAMS)
    options = webdriver.ChromeOptions()
    options.binary_location = program or ""
    for option in (*OPTIONS, f"--user-data-dir={directory}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, Service(driver_program))
    try:
        driver.set_window_size(WIDTH, HEIGHT)
        yield Browser(driver, url)
    finally:
        driver.quit()
