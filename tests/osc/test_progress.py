"""Without tqdm, which only an extra installs, each command loads and shows no progress."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["tqdm"] = None
from importlib.metadata import entry_points
for command in entry_points(group="openstack.related_images.v1"):
    command.load()
from related_images.osc.progress import progress_bar
with progress_bar(total=3, unit="image", disable=None) as bar:
    bar.update()
    bar.update(2)
"""


def test_commands_need_no_tqdm() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
