"""The resources in a real heat-engine, in a separate virtual environment, with a real Glance."""

import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VENV = ".venv-heat"
DOWNLOADS = """
[import_filtering_opts]
allowed_hosts = [127.0.0.1]
allowed_ports = [{port}]
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python with Heat, which cannot be installed together with Glance."""
    build = subprocess.run(
        ["make", f"VENV={VENV}", f"{VENV}/.installed-heat"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return ROOT / VENV / "bin" / "python"


@contextmanager
def files(directory: Path) -> Iterator[int]:
    """Serve files to import, and yield the port."""
    directory.mkdir()
    for name in ("disk.raw", "other.raw"):
        (directory / name).write_bytes(name.encode() * 100)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_stacks_of_heat(python: Path, tmp_path: Path) -> None:
    with files(tmp_path / "files") as port:
        result = run(python, tmp_path, port)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout


def run(python: Path, directory: Path, port: int) -> subprocess.CompletedProcess[str]:
    """Run the tests in ``engine`` with a Glance, one without the filter, and one without tables."""
    downloads = DOWNLOADS.format(port=port)
    with (
        ServedGlance(directory / "glance", {"guard": "in-use"}, glance_conf=downloads) as glance,
        ServedGlance(directory / "plain", with_filter=False, glance_conf=downloads) as plain,
        ServedGlance(directory / "down", glance_conf=downloads) as down,
    ):
        down.lose_tables()
        return subprocess.run(
            [python, "-m", "pytest", "--confcutdir=tests/heat", "tests/heat/engine"],
            cwd=ROOT,
            env=os.environ
            | {
                "RELATED_IMAGES_TEST_GLANCE": glance.url,
                "RELATED_IMAGES_TEST_PLAIN_GLANCE": plain.url,
                "RELATED_IMAGES_TEST_DOWN_GLANCE": down.url,
                "RELATED_IMAGES_TEST_FILES": f"http://127.0.0.1:{port}",
            },
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
