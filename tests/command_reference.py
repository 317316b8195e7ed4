"""Print docs/commands.md from `--help`: `python -m tests.command_reference > docs/commands.md`."""

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

HEAD = """\
# Commands

The output of `--help` for each command. This page is generated from it.

"""
BIN = Path(sys.executable).parent
OPENSTACK_GROUP = "openstack.related_images.v1"


def commands(group: str) -> list[str]:
    """Return the commands of a group of entry points, as users type them."""
    return sorted(entry.name.replace("_", " ") for entry in entry_points(group=group))


def reference() -> str:
    """Return the text of docs/commands.md."""
    own = _section("related-images", commands("related_images.manage"))
    people = _section("openstack", commands(OPENSTACK_GROUP))
    return HEAD + "\n".join([own, people] if people else [own])


def _section(program: str, names: Iterable[str]) -> str:
    return "\n".join(f"## {program} {name}\n\n```\n{_help(program, name)}\n```\n" for name in names)


def _help(program: str, name: str) -> str:
    done = subprocess.run(
        [BIN / program, *name.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "96", "LANG": "C.UTF-8", "NO_COLOR": "1"},
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.stdout.write(reference())
