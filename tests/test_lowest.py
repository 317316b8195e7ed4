"""`make lowest-test` runs tests with the oldest packages that setup.cfg allows."""

import configparser
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "tests" / "lowest-constraints.txt"
UPPER = ROOT / "tests" / "matrix" / "2025.1.txt"
BINARY = "psycopg-binary"
"""Not in setup.cfg: an extra of psycopg installs it in the same version."""
BOUND = re.compile(r"^([\w.-]+)(?:\[\w+\])?>=([\d.]+)$", re.MULTILINE)
NOT_INSTALLED = {"glance", "gunicorn", "mysqlclient"}
"""`make lowest-test` runs no server of Glance, and does not compile mysqlclient."""
FOR_OPERATORS = ("glance", "horizon", "listen", "mysql", "mysqlclient", "postgresql", "reconcile")
"""The extras of the filter that are not for tests."""
FOR_USERS = ("cli",)
"""The extras of the client that are not for tests."""


def pinned(constraints: Path = CONSTRAINTS) -> dict[str, str]:
    lines = constraints.read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def bounds() -> dict[str, str]:
    """Return the lowest version of each dependency of both distributions."""
    found: dict[str, str] = {}
    for directory, extras in ((ROOT, FOR_OPERATORS), (ROOT / "client", FOR_USERS)):
        parser = configparser.ConfigParser()
        parser.read(directory / "setup.cfg")
        section = parser["options.extras_require"]
        for wanted in (parser["options"]["install_requires"], *map(section.get, extras)):
            for name, low in re.findall(BOUND, str(wanted)):
                assert found.setdefault(name, low) == low, name
    return found


def test_pins_are_the_lower_bounds() -> None:
    pins = pinned()
    assert pins.pop(BINARY) == pins["psycopg"]
    assert pins == {name: low for name, low in bounds().items() if name not in NOT_INSTALLED}


def test_test_files_of_the_lowest_run_exist() -> None:
    _, _, named = (ROOT / "Makefile").read_text().partition("LOWEST :=")
    files = re.findall(r"tests/\S+\.py", named.split("\n\n")[0])
    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_bounds_are_within_the_constraints_of_openstack_2025_1() -> None:
    upper = pinned(UPPER)
    limited = {name: low for name, low in bounds().items() if name in upper}
    assert {"WebOb", "oslo.config", "oslo.middleware", "gunicorn"} < limited.keys()
    assert {name for name, low in limited.items() if Version(low) > Version(upper[name])} == set()


@pytest.mark.skipif(
    not sys.prefix.endswith("-lowest"), reason="needs the packages of `make lowest-test`"
)
def test_no_newer_package_is_installed() -> None:
    pins = {name: Version(pin) for name, pin in pinned().items()}
    assert {name: Version(version(name)) for name in pins} == pins
