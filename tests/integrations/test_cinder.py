"""The filter of cinder-api, in a process without Glance: both register options in one global."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKS = Path(__file__).with_name("cinder_checks.py")


def test_the_filter_of_cinder_api() -> None:
    pytest.importorskip("cinder", reason="Cinder is not installed: see `make cloud-test`")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
