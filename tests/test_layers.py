"""The rooms of the package look only into the rooms that they may."""

import tomllib
from pathlib import Path

import pytest
from grimp import ImportGraph, build_graph
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.commands import logging_as_it_was

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "related_images"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
EDGES = ("middleware", "osc", "manage", "integrations")
"""Rooms that nobody else looks into."""
STARTS_THE_SERVER = "related_images.manage.serve"


@pytest.fixture(scope="module")
def imports() -> ImportGraph:
    """Every import in the package, wherever it is written, those of third parties too."""
    return build_graph(PACKAGE.name, include_external_packages=True, cache_dir=None)


def test_import_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with logging_as_it_was():
        code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == EXIT_STATUS_SUCCESS


def test_every_package_has_an_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    bound = {source for one in contracts["contracts"] for source in one["source_modules"]}
    assert {f"related_images.{room}" for room in ROOMS} <= bound


@pytest.mark.parametrize("room", EDGES)
def test_no_package_imports_a_program(imports: ImportGraph, room: str) -> None:
    inside = imports.find_descendants(edge := f"{PACKAGE.name}.{room}") | {edge}
    lookers = {
        looker
        for module in inside
        for looker in imports.find_modules_that_directly_import(module)
        if looker not in inside
    }
    assert lookers <= ({STARTS_THE_SERVER} if room == "integrations" else set())


@pytest.mark.parametrize(
    ("room", "strangers"),
    [
        ("protocol", {"sqlalchemy", "webob", "paste", "keystoneauth1"}),
        ("client", {"sqlalchemy", "alembic", "webob", "paste", "glance"}),
        ("middleware", {"keystoneauth1", "cliff", "glance"}),
        ("db", {"webob", "paste", "keystoneauth1", "glance"}),
    ],
)
def test_package_imports_no_forbidden_library(
    imports: ImportGraph, room: str, strangers: set[str]
) -> None:
    inside = imports.find_descendants(f"{PACKAGE.name}.{room}")
    known = {
        name for module in inside for name in imports.find_modules_directly_imported_by(module)
    }
    assert not known & strangers
