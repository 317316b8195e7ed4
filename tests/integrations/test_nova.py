"""The filter of nova-api, in a process without Glance: both register options in one global."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FILES = ("nova_checks.py", "nova_start_checks.py", "nova_volume_snapshot_checks.py")
CHECKS = [Path(__file__).with_name(name) for name in FILES]


def test_loading_of_the_filter_of_nova_api() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
