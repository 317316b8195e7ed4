"""The wheel, installed without extras in an empty environment."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", target)
    run(*pip, ROOT, cwd=target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "env", cwd=home)
    run(home / "env/bin/pip", "install", "--quiet", wheel, cwd=home)
    return home


def test_wheel_contains_only_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top.split("-")[0] for top in tops} == {"related_images"}
    plugin = "integrations/horizon"
    for needed in (
        "py.typed",
        "etc/paste.ini",
        "migrations/env.py",
        f"{plugin}/enabled/_9010_related_images.py",
        f"{plugin}/static/related_images/related-images.module.js",
        f"{plugin}/templates/related_images/lineage.html",
    ):
        assert f"related_images/{needed}" in names
    assert any(name.startswith("related_images/migrations/versions/0001") for name in names)


def test_bare_install_migrates_and_loads(environment: Path) -> None:
    related_images = environment / "env/bin/related-images"
    url = "sqlite:///bare.db"
    run(related_images, "db", "upgrade", "--connection", url, cwd=environment)
    run(related_images, "db", "check", "--connection", url, cwd=environment)
    loading = (
        "from paste.deploy import loadfilter; import related_images.middleware as m; "
        "f = loadfilter('config:paste.ini', name='related-images', relative_to='.'); "
        "print(type(f(lambda e, s: [])).__name__, m.InstanceAwareMiddleware.__name__)"
    )
    (environment / "paste.ini").write_text(
        f"[filter:related-images]\nuse = egg:related-images#instance_aware\nconnection = {url}\n"
    )
    output = run(environment / "env/bin/python", "-c", loading, cwd=environment)
    assert output.split() == ["InstanceAwareMiddleware"] * 2


def test_bare_install_is_small(environment: Path) -> None:
    listed = run(environment / "env/bin/pip", "list", "--format", "freeze", cwd=environment)
    names = {line.split("==")[0].lower() for line in listed.splitlines()}
    assert not names & {"glance", "nova", "keystoneauth1", "openstacksdk"}


def test_client_needs_no_database_and_no_server(environment: Path) -> None:
    python = environment / "env/bin/python"
    run(environment / "env/bin/pip", "install", "--quiet", "keystoneauth1", cwd=environment)
    importing = "import sys, related_images.client; print(*sys.modules)"
    loaded = set(run(python, "-c", importing, cwd=environment).split())
    assert not loaded & {"sqlalchemy", "alembic", "webob", "cliff", "paste.deploy", "glanceclient"}
