"""A policy file with the real Glance."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.servers import PATIENCE, ServedGlance

RULE = '"related_images:reader": "role:{}"\n'


def status(glance: ServedGlance, roles: str) -> int:
    headers = {"X-Auth-Token": f"alice:demo:{roles}"}
    return requests.get(f"{glance.url}/v2/relations", headers=headers, timeout=60).status_code


def test_policy_file_applies_and_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(RULE.format("auditor"))
    with ServedGlance(tmp_path / "data", {"policy_file": str(file)}) as glance:
        assert [status(glance, roles) for roles in ("auditor", "member")] == [200, 403]
        file.write_text("related_images:reader:\n")  # no text: it must not open the route
        time.sleep(1.5)
        assert [status(glance, roles) for roles in ("auditor", "member")] == [200, 403]
        log = (glance.directory / "glance-api.log").read_text()
        assert "the former policy stays in force" in log
        file.write_text(RULE.format("member"))
        deadline = time.monotonic() + PATIENCE
        while status(glance, "member") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert status(glance, "auditor,reader") == 403
        headers = {"X-Auth-Token": "alice:demo:auditor,reader"}
        images = requests.get(f"{glance.url}/v2/images", headers=headers, timeout=60)
        assert images.status_code == 200  # Glance's own route follows Glance's own policy


@pytest.mark.slow
def test_glance_does_not_start_with_a_wrong_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"related_images:readers": "!"\n')
    ServedGlance(tmp_path / "data", {"policy_file": str(file)})  # it writes the configuration
    command = (f"{sys.prefix}/bin/related-images", "serve", "--data-dir", tmp_path / "data")
    done = subprocess.run(
        (*command, "--port", "0"), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode != 0
    assert "unknown rule 'related_images:readers'" in done.stderr
