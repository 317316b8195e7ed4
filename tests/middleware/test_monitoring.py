"""The metrics of several processes and the healthcheck, without Glance."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_middleware import Healthcheck

from related_images.errors import ConfigurationError
from related_images.middleware.filter import LOADED
from related_images.middleware.monitoring import MULTIPROC_DIR, metrics_factory
from tests import wsgi
from tests.filters import StubGlance
from tests.middleware.conftest import MakeFilter

COUNT = 'from related_images import metrics; metrics.RECORDED.labels("boot").inc(2)'
SCRAPE = """
from related_images.middleware.monitoring import metrics_factory
from tests import wsgi
print(wsgi.call(metrics_factory({}), "GET", "/", {}).body.decode())
"""


def test_a_scrape_has_the_sums_of_all_processes(tmp_path: Path) -> None:
    for program in (COUNT, COUNT, SCRAPE):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {MULTIPROC_DIR: str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert 'related_images_recorded_total{kind="boot"} 4.0' in done.stdout.splitlines()


def test_an_option_of_the_metrics_app_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'path'"):
        metrics_factory({}, path="/x")


def test_a_missing_directory_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="is not a directory"):
        metrics_factory({})


def test_the_healthcheck_app_finds_the_backend(
    make_filter: MakeFilter, stub_glance: StubGlance
) -> None:
    guarded = make_filter(stub_glance)
    assert guarded in LOADED
    app = Healthcheck.app_factory({}, backends="related_images", detailed="true")
    answer = wsgi.call(app, "GET", "/", {})
    assert answer.status == 200
    assert b"relations can be recorded" in answer.body
