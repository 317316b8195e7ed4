"""`make lowest-test` runs tests with the oldest packages that setup.cfg allows."""

import configparser
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "tests" / "lowest-constraints.txt"
BINARY = "psycopg-binary"
"""Not in setup.cfg: an extra of psycopg installs it in the same version."""


def pinned() -> dict[str, str]:
    lines = CONSTRAINTS.read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def allowed() -> dict[str, str]:
    """Return the lowest version of each dependency of the filter in setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    extras = parser["options.extras_require"]
    wanted = parser["options"]["install_requires"] + extras["mysql"] + extras["postgresql"]
    return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?>=([\d.]+)$", wanted, re.MULTILINE))


def test_pins_are_the_lower_bounds() -> None:
    pins = pinned()
    assert pins.pop(BINARY) == pins["psycopg"]
    assert pins == allowed()


def test_test_files_of_the_lowest_run_exist() -> None:
    _, _, named = (ROOT / "Makefile").read_text().partition("LOWEST :=")
    files = re.findall(r"tests/\S+\.py", named.split("\n\n")[0])
    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_bounds_are_within_the_constraints_of_openstack_2025_1() -> None:
    upper = {"SQLAlchemy": (2, 0, 38), "alembic": (1, 14, 1), "tenacity": (9, 0, 0)}
    upper |= {"PasteDeploy": (3, 1, 0), "cliff": (4, 9, 1)}
    for name, most in upper.items():
        assert tuple(map(int, allowed()[name].split("."))) <= most, name


@pytest.mark.skipif(not sys.prefix.endswith("-lowest"), reason="for `make lowest-test`")
def test_no_newer_package_is_installed() -> None:
    assert {name: version(name) for name in pinned()} == pinned()
