"""The filter for nova-api, in a process without Glance: both keep their options in one global."""

import subprocess
import sys
from pathlib import Path

CHECKS = Path(__file__).with_name("nova_checks.py")


def test_the_checks_of_the_filter_for_nova() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
