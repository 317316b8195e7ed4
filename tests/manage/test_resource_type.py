"""``related-images resource-type``: add, list, remove."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.filters import migrated


@pytest.fixture
def where(tmp_path: Path) -> tuple[str, str]:
    return "--connection", migrated(tmp_path)


def listed(where: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert commands.run("resource-type", "list", *where, "-f", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    return [(row["name"], row["longest_lease_days"]) for row in rows]


def test_types_are_added_listed_and_removed(
    where: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert commands.run("resource-type", "add", "stack", *where) == 0
    weekly = ("--longest-lease-days", "7", *where)
    assert commands.run("resource-type", "add", "cluster", *weekly) == 0
    capsys.readouterr()
    assert listed(where, capsys) == [("cluster", 7), ("stack", 30)]
    assert commands.run("resource-type", "add", "stack", *weekly) == 1
    assert "is registered with a longest lease of 30 days" in capsys.readouterr().err
    assert commands.run("resource-type", "remove", "stack", *where) == 0
    assert commands.run("resource-type", "remove", "stack", *where) == 1
    assert "is not registered" in capsys.readouterr().err
    assert listed(where, capsys) == [("cluster", 7)]


@pytest.mark.parametrize("words", [("a b",), ("stack", "--longest-lease-days", "x")])
def test_a_malformed_argument_is_a_usage_error(
    where: tuple[str, str], words: tuple[str, ...]
) -> None:
    assert commands.run("resource-type", "add", *words, *where) == 2


@pytest.mark.parametrize("words", [("server",), ("stack", "--longest-lease-days", "367")])
def test_a_type_that_is_not_allowed_fails(where: tuple[str, str], words: tuple[str, ...]) -> None:
    assert commands.run("resource-type", "add", *words, *where) == 1
