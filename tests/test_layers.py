"""Packages import only the packages that their import contracts allow."""

import tomllib
from pathlib import Path

import pytest
from grimp import ImportGraph, build_graph
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.commands import logging_as_it_was

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "related_images"
PACKAGES = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
EDGES = ("middleware", "osc", "manage", "integrations")
"""Packages that no other package imports."""
EXCEPTIONS = {
    "integrations": {"related_images.manage.serve"},  # starts the server
    "middleware": {"related_images.manage.check"},  # reads the policy file
}


@pytest.fixture(scope="module")
def imports() -> ImportGraph:
    """The graph of all imports in the package, third-party libraries included."""
    return build_graph(PACKAGE.name, include_external_packages=True, cache_dir=None)


def test_import_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with logging_as_it_was():
        code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == EXIT_STATUS_SUCCESS


def test_every_package_has_an_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    bound = {source for one in contracts["contracts"] for source in one["source_modules"]}
    assert {f"related_images.{package}" for package in PACKAGES} <= bound


@pytest.mark.parametrize("package", EDGES)
def test_no_other_package_imports_it(imports: ImportGraph, package: str) -> None:
    inside = imports.find_descendants(edge := f"{PACKAGE.name}.{package}") | {edge}
    importers = {
        importer
        for module in inside
        for importer in imports.find_modules_that_directly_import(module)
        if importer not in inside
    }
    assert importers <= EXCEPTIONS.get(package, set())


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("protocol", {"sqlalchemy", "webob", "paste", "keystoneauth1"}),
        ("client", {"sqlalchemy", "alembic", "webob", "paste", "glance"}),
        ("middleware", {"keystoneauth1", "cliff", "glance"}),
        ("db", {"webob", "paste", "keystoneauth1", "glance"}),
    ],
)
def test_package_imports_no_forbidden_library(
    imports: ImportGraph, package: str, forbidden: set[str]
) -> None:
    inside = imports.find_descendants(f"{PACKAGE.name}.{package}")
    known = {
        name for module in inside for name in imports.find_modules_directly_imported_by(module)
    }
    assert not known & forbidden
