"""The docs match the code: options, headers, routes, codes and commands."""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from related_images import config, errors
from related_images.middleware import routing
from related_images.middleware.responses import STATUSES, MethodNotAllowed, status_of
from related_images.protocol import headers, image_list, parameters, paths

ROOT = Path(__file__).parent.parent
API = (ROOT / "docs/api.md").read_text()
GUARANTEES = (ROOT / "docs/guarantees.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def error_classes() -> list[type[errors.RelatedImagesError]]:
    found = [errors.RelatedImagesError]
    for kind in found:
        found += [below for below in kind.__subclasses__() if below not in found]
    return [kind for kind in found if kind.__module__.startswith("related_images.")]


@pytest.mark.parametrize("name", config.OPTIONS)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    option = config.OPTIONS[name]
    (default,) = option.type.format_defaults(option.default)
    shown = f"`{default}`" if default else "none"
    assert f"| `{name}` | {shown} |" in API


@pytest.mark.parametrize(
    "name",
    [
        *headers.STRIPPED,
        headers.RECORDED,
        headers.FILTERS_APPLIED,
        headers.INCOMPLETE,
        *image_list.NAMES,
    ],
)
def test_every_header_and_query_parameter_is_documented(name: str) -> None:
    assert f"`{name}`" in API


@pytest.mark.parametrize(
    ("path", "method"), [(p, m) for p in routing.ROUTES for m in routing.ROUTES[p]]
)
def test_every_route_is_documented_with_its_methods(path: str, method: str) -> None:
    rows = API.split("## Routes")[1].split("###")[0]
    start = rows.index(f"`{paths.API}{path}`")
    following = rows[start:].split("\n| `")[0]
    assert f"| {method} |" in following


@pytest.mark.parametrize("name", parameters.INSTANCE_FILTERS)
def test_every_filter_is_documented(name: str) -> None:
    assert f"`{name}`" in API.split("### Filters")[1].split("###")[0]


def test_every_error_code_is_documented_once_and_no_other() -> None:
    documented = re.findall(r"^\| `([a-z.-]+)` \|", ERRORS, re.MULTILINE)
    assert sorted(documented) == sorted(kind.code for kind in error_classes() if documentable(kind))


def documentable(kind: type[errors.RelatedImagesError]) -> bool:
    """Whether errors.md must document the error; those of clients and commands are elsewhere."""
    return is_answered(kind) or kind in (errors.RelatedImagesError, errors.ConfigurationError)


def is_answered(kind: type[errors.RelatedImagesError]) -> bool:
    return any(issubclass(kind, known) for known in STATUSES)


@pytest.mark.parametrize("kind", [kind for kind in error_classes() if is_answered(kind)])
def test_documented_status_is_the_returned_one(kind: type[errors.RelatedImagesError]) -> None:
    error = MethodNotAllowed("PUT", ["GET"]) if kind is MethodNotAllowed else kind("x")
    assert f"| `{kind.code}` | {status_of(error).value} |" in ERRORS


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_command_is_in_the_reference() -> None:
    reference = (ROOT / "docs/commands.md").read_text()
    for entry in entry_points(group="related_images.manage"):
        assert f"related-images {entry.name.replace('_', ' ')}" in reference


def test_every_file_that_enables_the_plugin_of_horizon_is_documented() -> None:
    enabled = (ROOT / "related_images/integrations/horizon/enabled").glob("_[0-9]*.py")
    text = (ROOT / "docs/horizon.md").read_text()
    assert [file.name for file in enabled if f"| `{file.name}` |" not in text] == []


COMMANDS = sorted(set(re.findall(r"`[^`]*(?<!\w)(pytest [^`]*tests/[^`]*)`", GUARANTEES)))


@pytest.fixture(scope="module")
def tests_by_marker() -> dict[str, list[str]]:
    """The tests in the files that guarantees.md names, by the value of ``-m`` that selects them."""
    files = sorted({word for line in COMMANDS for word in shlex.split(line) if is_test(word)})
    slow, every = collected("slow", files), collected("", files)
    return {"slow": slow, "not slow": [test for test in every if test not in set(slow)], "": every}


def is_test(word: str) -> bool:
    return word.startswith("tests/")


def collected(marker: str, files: list[str]) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", marker, *files]
    # without pytest's own variables, and not measured by coverage: it only collects
    others = ("PYTEST_", "COV")
    alone = {name: text for name, text in os.environ.items() if not name.startswith(others)}
    done = subprocess.run(
        command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_guarantee_runs_whole_files(
    command: str, tests_by_marker: dict[str, list[str]]
) -> None:
    words = shlex.split(command)
    marker = words[words.index("-m") + 1] if "-m" in words else "not slow"
    for file in filter(is_test, words):
        chosen = [test for test in tests_by_marker[marker] if test.startswith(file)]
        assert chosen == [test for test in tests_by_marker[""] if test.startswith(file)]
        assert chosen
