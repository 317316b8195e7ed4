"""The README, then docs/clients.md, as a reader types them, against one ``serve``."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import doc_blocks
from tests.servers import PATIENCE, ServedGlance

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOUR = README.split("<!-- tour -->")[1].split("<!-- end of tour -->")[0]
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
OPERATE = (ROOT / "docs" / "operate.md").read_text()
WITH_MAKE_RUN = OPERATE.split("With `make run`:")[1].split("For each image in a relation")[0]


@pytest.fixture(scope="module")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A ``serve`` that nobody has used, with its data where `make run` has them in a clone."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "README.md", clone)
    with ServedGlance(clone / "data") as served:
        yield served


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a reader: a page itself says what else it needs."""
    return {name: text for name, text in os.environ.items() if not name.startswith("OS_")}


def assert_shown(page: str, number: int, glance: ServedGlance, environment: dict[str, str]) -> None:
    """Type the commands of a page, of which there are ``number``, and compare what is shown."""
    steps = doc_blocks.steps(page)
    assert len(steps) == number
    commands = [step.command.replace("http://127.0.0.1:9292", glance.url) for step in steps]
    outcomes, errors = doc_blocks.run(commands, glance.directory.parent, environment)
    assert (errors, [outcome.code for outcome in outcomes]) == ("", [0] * number)
    assert [outcome.said for outcome in outcomes] == [step.shown for step in steps]


@pytest.fixture(scope="module")
def toured(glance: ServedGlance, environment: dict[str, str]) -> ServedGlance:
    """After the tour of the README, with which docs/clients.md goes on."""
    assert_shown(TOUR, 10, glance, environment)
    return glance


def test_the_tour(toured: ServedGlance) -> None:
    assert toured.url


def test_the_snippets_of_the_page_for_clients(
    toured: ServedGlance, environment: dict[str, str]
) -> None:
    snippets = doc_blocks.snippets(CLIENTS)
    assert len(snippets) == 16
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(snippets)],
        cwd=toured.directory.parent,
        env=environment | {"OS_CLIENT_CONFIG_FILE": "data/clouds.yaml", "OS_CLOUD": "alice"},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backup\n")
    assert done.stdout.count(" removed ") == 2


@pytest.mark.slow
def test_the_commands_of_the_page_for_clients(
    toured: ServedGlance, environment: dict[str, str]
) -> None:
    assert_shown(CLIENTS, 10, toured, environment)


def test_reconcile_as_the_page_for_operators_calls_it(
    toured: ServedGlance, environment: dict[str, str]
) -> None:
    commands = [step.command for step in doc_blocks.steps(WITH_MAKE_RUN)]
    programs = {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    (_, reconciled), _ = doc_blocks.run(commands, toured.directory.parent, environment | programs)
    assert reconciled.code == 0
    assert '"present": ' in reconciled.said


@pytest.mark.parametrize("target", re.findall(r"^\$ make ([\w-]+)", README, re.MULTILINE))
def test_its_targets_are_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
