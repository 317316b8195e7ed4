"""openstack-image-manager rotates images beside live servers and volumes, under the guard.

Version 0.20260722.0 deactivates an old image before it deletes it; the later one deletes first, and
deactivates and hides what it cannot delete. Each has a virtual environment of its own.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.starting import glance_beside
from tests.cloud.volume_actions import VolumeActions

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
VERSIONS: Final = ("0.20260722.0", "0.20261006.0")
INSTALLING: Final = 1800
"""Seconds for the installation of a version."""

BUILT: Final = "2026-01-01"
OPTIONS: Final = ("--delete", "--yes-i-really-know-what-i-do", "--deactivate", "--hide")
DEACTIVATED: Final = re.compile(r"image (\S+) is deactivated by user .*; (\d+) live resources")


@dataclass(frozen=True)
class Tool:
    """One version of the tool, with a Glance that also guards deactivations."""

    program: Path
    cloud: Cloud
    directory: Path
    clouds: Path
    log: Path

    def rotate(self, who: str, name: str, visibility: str, *numbers: int) -> dict[int, str]:
        """Publish the previous and a new version of an image, and return the ID of each.

        The two newest versions are kept.
        """
        disk = self.directory / "disk.raw"
        disk.write_bytes(b"a disk")
        versions = [
            {"version": f"2026{number:02}01", "url": disk.as_uri(), "build_date": BUILT}
            for number in numbers
        ]
        image = _definition(name, visibility, versions)
        definitions = self.directory / f"{name}.yml"
        # JSON is YAML, apart from dates, which have no quotes
        text = json.dumps({"images": [image]}).replace(f'"{BUILT}"', BUILT)
        definitions.write_text(text)
        words = ("--cloud", who, "--images", str(definitions), *OPTIONS)
        others = {key: text for key, text in os.environ.items() if not key.startswith("OS_")}
        done = subprocess.run(
            [self.program, *words],
            env={**others, "OS_CLIENT_CONFIG_FILE": str(self.clouds)},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        named = {number: f"{name} (2026{number:02}01)" for number in numbers[:-1]}
        named[numbers[-1]] = name
        images = self.cloud.connection(who).image
        return {number: images.find_image(one).id for number, one in named.items()}

    def deactivations(self) -> list[tuple[str, int]]:
        """Return each deactivation by an administrator, with the number of dependents."""
        return [(found[1], int(found[2])) for found in DEACTIVATED.finditer(self.log.read_text())]


def _definition(name: str, visibility: str, versions: list[dict[str, str]]) -> dict[str, Any]:
    meta = {
        "architecture": "x86_64",
        "hw_disk_bus": "virtio",
        "hypervisor_type": "qemu",
        "os_distro": "cirros",
        "os_purpose": "custom",
        "replace_frequency": "never",
        "uuid_validity": "last-2",
        "provided_until": "none",
    }
    return {
        "name": name,
        "enable": True,
        "format": "raw",
        "login": "lab",
        "min_ram": 0,
        "min_disk": 1,
        "status": "active",
        "visibility": visibility,
        "multi": True,
        "meta": meta,
        "tags": [],
        "versions": versions,
    }


@pytest.fixture(scope="module", params=VERSIONS)
def tool(
    request: pytest.FixtureRequest, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tool]:
    venv = f".venv-image-manager-{request.param}"
    build = subprocess.run(
        ["make", f"{venv}/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=INSTALLING,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    directory = tmp_path_factory.mktemp("image-manager")
    name = f"glance-{request.param}"
    options = {"guard_actions": "delete, deactivate"}
    with glance_beside(cloud, name, options=options) as port:
        clouds = directory / "clouds.yaml"
        cloud.plan.write_clouds(clouds, image=f"http://127.0.0.1:{port}")
        log = cloud.plan.home(name) / "server.log"
        program = ROOT / venv / "bin" / "openstack-image-manager"
        yield Tool(program, cloud, directory, clouds, log)


def _use(cloud: Cloud, who: str, image_id: str, name: str) -> None:
    """Make a volume and a server of an image.

    The tool describes a hypervisor that this cloud does not have, and which Nova would look for.
    """
    cloud.openstack(who, "image", "unset", "--property", "hypervisor_type", image_id)
    actions = VolumeActions(cloud)
    actions.volume(f"of {name}", image_id=image_id)
    actions.server(f"of-{name}", "--image", image_id)


def test_a_rotation_deletes_no_used_image(cloud: Cloud, tool: Tool) -> None:
    images = cloud.connection("admin").image
    name = f"lab-{tool.directory.name}"
    used, unused = tool.rotate("admin", name, "public", 1, 2).values()
    _use(cloud, "admin", used, name)
    for newest in (3, 4):
        tool.rotate("admin", name, "public", newest - 1, newest)
    found = images.find_image(used)
    # an administrator may deactivate a used image
    assert (found.status, found.visibility) == ("deactivated", "community")
    assert images.find_image(unused) is None
    dependents = dict(tool.deactivations())
    assert dependents[used] == 2
    assert dependents.get(unused, 0) == 0


def test_a_user_who_is_no_administrator_deactivates_no_used_image(cloud: Cloud, tool: Tool) -> None:
    images = cloud.connection("alice").image
    name = f"own-{tool.directory.name}"
    used, unused = tool.rotate("alice", name, "private", 1, 2).values()
    _use(cloud, "alice", used, name)
    for newest in (3, 4):
        tool.rotate("alice", name, "private", newest - 1, newest)
    found = images.find_image(used)
    # the change to a community image is a PATCH, which the guard does not check
    assert (found.status, found.visibility) == ("active", "community")
    assert images.find_image(unused) is None
