"""The commands of the README print what the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ServedGlance

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAM = f"{Path(sys.executable).parent}/related-images"


def steps(text: str) -> list[tuple[str, str]]:
    """Return each command of the console blocks with its printed output."""
    shown = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    found = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", shown + "\n", re.MULTILINE)
    return [(command, output.strip()) for command, output in found]


def test_commands_of_the_readme(glance: ServedGlance, tmp_path: Path) -> None:
    tour = README.split("<!-- tour -->")[1].split("<!-- end of tour -->")[0]
    taken = steps(tour)
    assert len(taken) == 7
    script = "\n".join(f"{command}\necho '<end>'" for command, _ in taken)
    script = script.replace("http://127.0.0.1:9292", glance.url)
    script = script.replace(".venv/bin/related-images", PROGRAM)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    outputs = [part.strip().replace("\r", "") for part in done.stdout.split("<end>")[:-1]]
    assert outputs == [output for _, output in taken], done.stderr


@pytest.mark.parametrize("goal", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_make_targets_of_the_readme_exist(goal: str) -> None:
    assert re.search(rf"^{goal}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
