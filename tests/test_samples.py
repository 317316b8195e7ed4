"""The samples in ``etc/`` agree with the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from related_images import metrics
from related_images.manage import pipeline_checks, uwsgi_checks
from related_images.manage.findings import OK
from related_images.manage.pipeline_checks import CINDER_API, GLANCE, NOVA_API, Service
from tests.conftest import REQUIRE_SERVERS

ETC = Path(__file__).parent.parent / "etc"
SAMPLES = ETC / "samples"
UNITS = sorted((ETC / "systemd").iterdir())
RULES = SAMPLES / "prometheus-rules.yml"
FOR_IDENTITY = """
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
"""
CONTEXTS = {
    GLANCE: (
        "glance-api-paste.ini",
        "[filter:context]\npaste.filter_factory = glance.api.middleware.context:ContextMiddleware",
    ),
    NOVA_API: (
        "nova-api-paste.ini",
        "[filter:keystonecontext]\npaste.filter_factory = nova.api.auth:NovaKeystoneContext",
    ),
    CINDER_API: (
        "cinder-api-paste.ini",
        "[filter:keystonecontext]\n"
        "paste.filter_factory = cinder.api.middleware.auth:CinderKeystoneContext",
    ),
}


def installed(program: str, package: str) -> str:
    """Return the path of a program, or skip the test, or fail it in CI."""
    found = shutil.which(program)
    if found is None:
        end = pytest.fail if os.environ.get(REQUIRE_SERVERS) == "1" else pytest.skip
        end(f"{program} of Debian's package {package} is not installed")
    return found


def test_the_sample_of_the_options_is_generated() -> None:
    words = ("-c", "from oslo_config.generator import main; main()", "--namespace")
    done = subprocess.run(
        [sys.executable, *words, "related_images"], capture_output=True, text=True, check=True
    )
    assert (SAMPLES / "related-images.conf").read_text() == done.stdout


def test_oslo_config_validator_accepts_the_options(tmp_path: Path) -> None:
    active = tmp_path / "related-images.conf"
    text = (SAMPLES / "related-images.conf").read_text()
    active.write_text(re.sub(r"^#(?=\w+ = .)", "", text, flags=re.MULTILINE))
    program = f"{sys.prefix}/bin/oslo-config-validator"
    command = (program, "--input-file", active, "--namespace", "related_images")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sample_of_the_policy_is_generated() -> None:
    command = (f"{sys.prefix}/bin/oslopolicy-sample-generator", "--namespace", "related_images")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (SAMPLES / "policy.yaml").read_text() == done.stdout


def test_shellcheck_accepts_the_scripts() -> None:
    done = subprocess.run(
        (f"{sys.prefix}/bin/shellcheck", ETC.parent / ".ci" / "run"), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("service", CONTEXTS, ids=lambda it: it.name)
def test_the_pipelines_have_the_filter_in_the_right_place(service: Service, tmp_path: Path) -> None:
    name, context = CONTEXTS[service]
    whole = tmp_path / name
    whole.write_text((SAMPLES / name).read_text() + FOR_IDENTITY + context)
    found = list(pipeline_checks.check(service, whole, "keystone" if service is GLANCE else None))
    assert found
    assert {one.result for one in found} == {OK}


def test_the_options_of_uwsgi_are_right() -> None:
    found = list(uwsgi_checks.check(SAMPLES / "uwsgi-glance-api.ini"))
    assert {one.result for one in found} == {OK}


def test_the_metrics_of_the_rules_exist() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    used = {
        name
        for group in groups
        for rule in group["rules"]
        for name in re.findall(r"related_images\w+", rule["expr"])
    }
    suffixes = ("_total", "_bucket", "_sum", "_count")
    known = {f"{metric.name}{it}" for metric in metrics.REGISTRY.collect() for it in suffixes}
    assert len(used) == 3
    assert used <= known


def test_promtool_accepts_the_rules() -> None:
    command = (installed("promtool", "prometheus"), "check", "rules", str(RULES))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda it: it.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    # it checks that the programs exist; a timer needs its service
    for one in UNITS:
        text = re.sub(r"/usr/local/bin/[\w-]+", "/bin/true", one.read_text())
        (tmp_path / one.name.replace("@", "@acme")).write_text(text)
    program = installed("systemd-analyze", "systemd")
    command = (program, "verify", "--man=no", str(tmp_path / unit.name.replace("@", "@acme")))
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dynamic_user_has_a_home_directory() -> None:
    """openstacksdk fails without one, and systemd sets none for a dynamic user."""
    for unit in UNITS:
        text = unit.read_text()
        assert ("DynamicUser=yes" in text) == ("Environment=HOME=" in text)


@pytest.mark.parametrize("unit", UNITS, ids=lambda it: it.name)
def test_the_commands_of_the_units_exist(unit: Path) -> None:
    text = unit.read_text().replace("\\\n", " ")
    for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
        in_environment = re.sub(r"^/usr/bin/env (\w+=\S+ +)*", "", line)
        program, *words = shlex.split(in_environment)
        options = [word for word in words if word.startswith("--")]
        named = words[: next(i for i, word in enumerate(words) if word.startswith("--"))]
        command = (f"{sys.prefix}/bin/{Path(program).name}", *named, "--help")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert [one for one in options if one not in done.stdout] == []
