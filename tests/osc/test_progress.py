"""The progress that commands show on a terminal.

Without tqdm, which only an extra installs, each command loads and shows no progress.
"""

import io
import subprocess
import sys
from typing import Any

import pytest

from related_images.osc import base_commands
from related_images.osc.base_commands import ListCommand
from related_images.osc.image_ancestry import ListAncestry, ListDescendant
from related_images.osc.image_dependents import ListDependent
from related_images.osc.image_relation import ListRelation
from related_images.osc.image_usage import ListImageUsage
from related_images.osc.server_backup import ListServerBackup
from related_images.osc.server_image import ListServerImage
from tests.osc.running import Cloud, Instance

PROGRAM = """
import sys
sys.modules["tqdm"] = None
from importlib.metadata import entry_points
for command in entry_points(group="openstack.related_images.v1"):
    command.load()
from related_images.osc.progress import progress_bar
with progress_bar(total=3, unit="image", disable=None) as bar:
    bar.update()
    bar.update(2)
"""


def test_commands_need_no_tqdm() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it: what was written to stdout and stderr."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """The stdout and stderr of commands."""
    opened, real = Terminal(), Cloud._app

    def app(self: Cloud) -> Any:
        found = real(self)
        found.stdout = opened
        return found

    monkeypatch.setattr(sys, "stderr", opened)
    monkeypatch.setattr(Cloud, "_app", app)
    return opened


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (ListServerImage, ["{server}"]),
        (ListServerImage, ["--all", "-f", "csv"]),
        (ListServerImage, ["{server}", "-f", "csv", "--sort-column", "ID"]),
        (ListServerBackup, ["{server}", "-f", "json"]),
        (ListServerBackup, ["--all", "-f", "value"]),
        (ListRelation, []),
        (ListRelation, ["-f", "value", "{image}"]),
        (ListAncestry, ["{image}"]),
        (ListDescendant, ["{image}"]),
        (ListDependent, ["{image}"]),
        (ListDependent, ["{image}", "--by-project", "--long"]),
        (ListImageUsage, ["{image}"]),
    ],
)
def test_lists_show_the_progress_until_there_are_rows(
    instance: Instance,
    member: Cloud,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    command: type[ListCommand],
    arguments: list[str],
) -> None:
    names = {"server": instance.id}
    names["image"] = instance.fill(instance.image("monday", kind="backup"))
    instance.fill(instance.image("tuesday", kind="backup"))
    given = [argument.format(**names) for argument in arguments]
    expected = member.run(command, *given).said
    terminal: Terminal = request.getfixturevalue("terminal")

    member.run(command, *given)
    assert terminal.getvalue() == expected  # not before the delay

    terminal.truncate(0)
    monkeypatch.setattr(base_commands, "DELAY", 0)
    member.run(command, *given)
    *shown, erased, output = terminal.getvalue().split("\r")
    assert any(text.startswith("Reading: 0 responses") for text in shown)
    assert (erased.strip(), output) == ("", expected)
