"""The docs have every command of the plugin, and their commands work."""

import os
from pathlib import Path

import pytest

from tests import doc_blocks
from tests.command_reference import OPENSTACK_GROUP, commands
from tests.osc.running import OPENSTACK, Instance

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("command", commands(OPENSTACK_GROUP))
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"## openstack {command}\n" in (DOCS / "commands.md").read_text()


TEMPLATES = [
    (page, step.command)
    for page in ("backups.md", "lineage.md", "operate.md")
    for step in doc_blocks.steps((DOCS / page).read_text())
    if step.command.startswith("openstack") and not step.command.startswith("openstack server set")
]
"""The commands that do not need Nova, with SERVER and IMAGE for a server and an image."""

RUN = (
    "openstack server backup run --label daily --older-than 20h "
    "--keep-daily 7 --keep-weekly 4 --keep-monthly 12"
)

FAILING = {
    RUN: 3,
    f"{RUN} --dry-run": 3,
    "openstack server backup overdue --policy stored": 3,
    "openstack server backup prune --all-projects --policy stored --dry-run": 1,
}
"""The exit codes of these commands without Nova, as in docs/backups.md."""


def test_the_pages_have_commands() -> None:
    assert len(TEMPLATES) == 20
    assert FAILING.keys() < {command for _, command in TEMPLATES}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), TEMPLATES)
def test_the_commands_in_the_docs_work(
    instance: Instance, tmp_path: Path, page: str, command: str
) -> None:
    image_id = instance.fill(instance.image("monday", kind="backup", label="daily"))
    booted = {
        "installation_uuid": instance.installation,
        "instance_id": instance.another().id,
        "image_id": image_id,
        "kind": "boot",
    }
    # a server that was shelved in the image is deleted, so that the image is left behind
    shelved = {**booted, "instance_id": instance.another().id, "kind": "shelved"}
    for relation in (booted, shelved):
        made = instance.glance.request("POST", "/v2/relations", instance.recorder, body=relation)
        assert made.status == 201
    path = f"/v2/instances/{instance.installation}/{shelved['instance_id']}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    words = command.replace("SERVER", instance.id).replace("IMAGE", image_id)
    environment = os.environ | {
        "OS_CLOUD": "admin",
        "OS_CLIENT_CONFIG_FILE": str(instance.glance.directory / "clouds.yaml"),
        "PATH": f"{OPENSTACK.parent}{os.pathsep}{os.environ['PATH']}",
    }
    (done,), errors = doc_blocks.run([words], tmp_path, environment)
    if command in FAILING:
        assert done.code == FAILING[command]
        assert errors.startswith("this cloud has no compute service (Nova)")
    else:
        assert errors == ""
        # overdue also checks servers of other tests, so it may exit with 1 or 2
        assert done.code in ((0, 1, 2) if " overdue " in command else (0,))
