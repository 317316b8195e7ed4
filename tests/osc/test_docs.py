"""The pages name every command of the plugin, and what they show works."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.command_reference import OPENSTACK_GROUP, commands
from tests.osc.running import OPENSTACK, Instance
from tests.servers import PATIENCE

DOCS = Path(__file__).parents[2] / "docs"
CLOUDS = """
clouds:
  mycloud:
    auth_type: admin_token
    auth:
      endpoint: {url}/v2
      token: {token}
"""


@pytest.mark.parametrize("command", commands(OPENSTACK_GROUP))
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"## openstack {command}\n" in (DOCS / "commands.md").read_text()


def test_the_commands_that_are_shown_work(instance: Instance, tmp_path: Path) -> None:
    image_id = instance.fill(instance.image("web-1 on Monday"))
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(CLOUDS.format(url=instance.glance.url, token=instance.recorder))
    shown = re.findall(r"^\$ (openstack .*)$", (DOCS / "clients.md").read_text(), re.MULTILINE)
    assert len(shown) == 7
    for command in shown:
        done = subprocess.run(
            ["sh", "-c", re.sub(r"\bweb-1(?! on)", instance.id, command)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ
            | {
                "OS_CLOUD": "mycloud",
                "OS_CLIENT_CONFIG_FILE": str(clouds),
                "PATH": f"{OPENSTACK.parent}{os.pathsep}{os.environ['PATH']}",
            },
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        is_about_others = " delete " in command or " descendant " in command
        assert (image_id in done.stdout) != is_about_others, command
