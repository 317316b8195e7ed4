"""The pages name every command of the plugin, and what they show works."""

import os
from pathlib import Path

import pytest

from tests import documented
from tests.command_reference import OPENSTACK_GROUP, commands
from tests.osc.running import OPENSTACK, Instance

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("command", commands(OPENSTACK_GROUP))
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"## openstack {command}\n" in (DOCS / "commands.md").read_text()


TEMPLATES = [
    (page, step.command)
    for page in ("backups.md", "lineage.md", "operate.md")
    for step in documented.steps((DOCS / page).read_text())
    if step.command.startswith("openstack") and not step.command.startswith("openstack server set")
]
"""Commands in which SERVER and IMAGE stand for a server and an image; the rest needs a Nova."""

FAILING = {
    "openstack server backup overdue --policy stored": 3,
    "openstack server backup prune --all-projects --policy stored --dry-run": 1,
}
"""What docs/backups.md says of them where there is no Nova."""


def test_there_are_some() -> None:
    assert len(TEMPLATES) == 15
    assert FAILING.keys() < {command for _, command in TEMPLATES}


@pytest.mark.parametrize(("page", "command"), TEMPLATES)
def test_the_commands_that_are_shown_work(
    instance: Instance, tmp_path: Path, page: str, command: str
) -> None:
    image_id = instance.fill(instance.image("monday", kind="backup", label="daily"))
    booted = {
        "installation_uuid": instance.installation,
        "instance_id": instance.another().id,
        "image_id": image_id,
        "kind": "boot",
    }
    made = instance.glance.request("POST", "/v2/relations", instance.recorder, body=booted)
    assert made.status == 201
    words = command.replace("SERVER", instance.id).replace("IMAGE", image_id)
    environment = os.environ | {
        "OS_CLOUD": "admin",
        "OS_CLIENT_CONFIG_FILE": str(instance.glance.directory / "clouds.yaml"),
        "PATH": f"{OPENSTACK.parent}{os.pathsep}{os.environ['PATH']}",
    }
    (done,), errors = documented.run([words], tmp_path, environment)
    if command in FAILING:
        assert done.code == FAILING[command]
        assert errors.startswith("this cloud has no compute service (Nova)")
    else:
        assert errors == ""
        # overdue counts whatever other tests have left: 1 and 2 are an answer as well
        assert done.code in ((0, 1, 2) if " overdue " in command else (0,))
