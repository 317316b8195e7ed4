"""The rooms of the package look only into the rooms that they may."""

import ast
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.commands import logging_as_it_was

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "related_images"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
EDGES = ("middleware", "cli", "manage", "integrations")
"""Rooms that nobody else looks into."""
STARTS_THE_SERVER = PACKAGE / "manage" / "serve.py"


def imported(path: Path) -> set[str]:
    """What a module imports of the package, and every third party, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_the_directions_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with logging_as_it_was():
        code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == EXIT_STATUS_SUCCESS


def test_every_room_has_a_direction() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    bound = {source for one in contracts["contracts"] for source in one["source_modules"]}
    assert {f"related_images.{room}" for room in ROOMS} <= bound


@pytest.mark.parametrize("room", EDGES)
def test_nobody_looks_into_an_edge(room: str) -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if PACKAGE / room not in path.parents]
    edge = f"related_images.{room}"
    lookers = {
        path
        for path in outside
        if any(f"{name}.".startswith(f"{edge}.") for name in imported(path))
    }
    assert lookers <= ({STARTS_THE_SERVER} if room == "integrations" else set())


@pytest.mark.parametrize(
    ("room", "strangers"),
    [
        ("wire", {"sqlalchemy", "webob", "paste", "keystoneauth1"}),
        ("client", {"sqlalchemy", "alembic", "webob", "paste", "glance"}),
        ("middleware", {"keystoneauth1", "cliff", "glance"}),
        ("queries", {"webob", "paste", "keystoneauth1", "glance"}),
        ("store", {"webob", "paste", "keystoneauth1", "glance"}),
    ],
)
def test_a_room_knows_no_strangers(room: str, strangers: set[str]) -> None:
    known = {
        name.partition(".")[0] for path in (PACKAGE / room).rglob("*.py") for name in imported(path)
    }
    assert not known & strangers
