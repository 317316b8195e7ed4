"""The systemd units of the project."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parent.parent / "etc" / "systemd").iterdir())
ANALYZE = shutil.which("systemd-analyze")


def test_there_are_units() -> None:
    assert {unit.suffix for unit in UNITS} == {".service", ".timer"}


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    for each in UNITS:
        shutil.copy(each, tmp_path / each.name.replace("@", "@acme"))
    path = tmp_path / unit.name.replace("@", "@acme")
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
