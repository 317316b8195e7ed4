"""The blocks of a page that a reader types: console and Python."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import PATIENCE


@dataclass(frozen=True)
class Step:
    """A command, and what is shown below it."""

    command: str
    shown: str


@dataclass(frozen=True)
class Outcome:
    """What a command wrote to its output, and its exit code."""

    said: str
    code: int


def steps(page: str) -> list[Step]:
    """The commands of the console blocks."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    found = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", blocks + "\n", re.MULTILINE)
    return [Step(command, shown.strip()) for command, shown in found]


def snippets(page: str) -> list[str]:
    """The blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def run(
    commands: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> tuple[list[Outcome], str]:
    """Run the commands in one shell; gives the outcome of each, and all that came on stderr."""
    script = "\n".join(f'{command}\necho "<end $?>"' for command in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=len(commands) * PATIENCE,
        check=False,
    )
    ended = re.findall(r"(.*?)<end (\d+)>\n", done.stdout.replace("\r", ""), re.DOTALL)
    return [Outcome(said.strip(), int(code)) for said, code in ended], done.stderr
