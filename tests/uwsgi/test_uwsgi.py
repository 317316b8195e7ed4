"""The real Glance with the filter in the real uWSGI: three processes with two threads each."""

import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.client import GlanceUnreachable, RelationsClient
from related_images.client.glance import IDS
from related_images.db import reconcile
from related_images.integrations import glance
from tests import filters
from tests.servers import PATIENCE, Answer, ask, free_port

pytestmark = pytest.mark.slow

UWSGI = Path(sys.executable).with_name("uwsgi")
ROOT = Path(__file__).parents[2]
HEALTH = "/healthcheck/relations"
INSTALLATION = filters.new_uuid()
NOVA = {"X-Auth-Token": "alice:demo:member", "X-Service-Token": "nova:service:service"}
IMAGE = {"disk_format": "raw", "container_format": "bare"}
PREPARE = """\
import sys
from pathlib import Path
from related_images import config
from related_images.client import relations
from related_images.integrations import glance
from related_images.db import reconcile
from related_images.db import schema
glance.prepare(Path(sys.argv[1]))
schema.upgrade(config.load("related_images", {"oslo_config_project": "glance"}).connection)
"""


@dataclass(frozen=True)
class Served:
    """Glance in uWSGI."""

    port: int
    master: int

    def request(
        self, method: str, path: str, headers: dict[str, str], body: object = None
    ) -> Answer:
        return ask(self.port, method, path, headers, body)

    def record(self, instance: str = "web-1") -> Answer:
        headers = filters.instance_headers(INSTALLATION, instance)
        return self.request("POST", "/v2/images", NOVA | headers, IMAGE)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text()
        return [int(pid) for pid in children.split()]

    def recorded(self) -> float:
        """Return the number of recorded relations in one scrape."""
        answer = self.request("GET", "/metrics", {})
        assert answer.status == 200
        found = re.findall(
            r'^related_images_recorded_total{kind="snapshot"} (\S+)$',
            answer.body.decode(),
            re.MULTILINE,
        )
        return sum(map(float, found))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    data, shared, port = tmp_path / "data", tmp_path / "metrics", free_port()
    shared.mkdir()
    subprocess.run([sys.executable, "-c", PREPARE, str(data)], check=True, cwd=ROOT)
    configured = {
        glance.CONFIG_DIRECTORY: str(data),
        glance.PASTE_FILE: str(ROOT / "etc" / "paste.ini"),
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        *(str(UWSGI), "--http-socket", f"127.0.0.1:{port}", "--http-auto-chunked"),
        *("--http-chunked-input", "--enable-threads", "--master", "--die-on-term"),
        *("--processes", "3", "--threads", "2", "--need-app", "--module", "tests.uwsgi.glance_app"),
        *("--virtualenv", sys.prefix),
    ]
    log = (tmp_path / "uwsgi.log").open("wb")
    with (
        log,
        subprocess.Popen(
            command,
            env=os.environ | configured,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as run,
    ):
        try:
            wait_for(port, run, tmp_path / "uwsgi.log")
            yield Served(port, run.pid)
        finally:
            os.killpg(run.pid, signal.SIGKILL)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for(port: int, run: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert run.poll() is None, log.read_text()
        try:
            ask(port, "GET", "/")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def test_scrape_returns_the_sum_of_all_workers_even_after_one_was_replaced(
    served: Served,
) -> None:
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda number: served.record(f"web-{number}").status, range(24)))
    assert done == [201] * 24
    assert [served.recorded() for _ in range(5)] == [24.0] * 5
    killed = served.workers()[0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in served.workers() and len(served.workers()) == 3)
    assert served.record().status == 201
    assert [served.recorded() for _ in range(5)] == [25.0] * 5


def test_recording_healthcheck_has_its_own_url(served: Served, tmp_path: Path) -> None:
    assert served.request("GET", HEALTH, {}).status == 200
    with closing(sqlite3.connect(tmp_path / "data" / "related-images.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        eventually(lambda: served.request("GET", HEALTH, {}).status == 503)
        assert served.record().status == 503
        assert served.request("GET", "/healthcheck", {}).status == 200
    eventually(lambda: [served.request("GET", HEALTH, {}).status for _ in range(9)] == [200] * 9)


def test_chunked_body_is_recorded(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    with closing(connection):
        body = json.dumps(IMAGE).encode()
        headers = {"Content-Type": "application/json"}
        headers |= NOVA | filters.instance_headers(INSTALLATION, "web-1")
        pieces = iter([body[:10], body[10:]])
        connection.request("POST", "/v2/images", pieces, headers, encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, response.headers["X-Relation-Recorded"]) == (201, "snapshot")
        assert json.loads(response.read())["disk_format"] == "raw"


def test_default_buffer_holds_the_ids_that_the_commands_send(served: Served) -> None:
    ids = ",".join(str(uuid4()) for _ in range(max(IDS, reconcile.BATCH)))
    long_token = {"X-Auth-Token": f"alice:demo:member,{'r' * 1000}"}
    assert served.request("GET", f"/v2/usages?image_ids={ids}", long_token).status == 200
    assert served.request("GET", f"/v2/images?id=in:{ids}&limit=50", long_token).status == 200


def test_a_request_that_does_not_fit_is_explained(served: Served) -> None:
    token = Token(f"http://127.0.0.1:{served.port}", NOVA["X-Auth-Token"])
    client = RelationsClient(Adapter(Session(token), service_type="image"))
    with pytest.raises(GlanceUnreachable, match="buffer-size of uWSGI"):
        list(client.images(kind="backup", name="n" * 5000))
