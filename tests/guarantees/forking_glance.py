"""The real Glance with the filter in a process that is forked for every round of requests.

Glance is loaded once. A round runs in a child, which is killed at a failpoint and leaves behind
what a killed server leaves. Run as ``python -m tests.guarantees.forking_glance DIRECTORY``: it
reads one JSON order per line and writes one JSON line for each.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

from related_images import failpoints
from related_images.failpoints import Point
from related_images.integrations import glance
from tests import servers, wsgi

INSTALLATION = "5c2b7a52-7d0e-4d7e-9f43-3a1f5a0c9b11"
SERVICE = "nova:service:member,service"
ADMIN = "root:admin:admin"
IMAGE = {"disk_format": "raw", "container_format": "bare"}
THREADS = 3
TURNS = 8


class ForkingGlance:
    """The client of the forking process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "ForkingGlance":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(servers.PATIENCE)

    def kill_at(self, point: Point, nth: int) -> int:
        """Send requests until ``point`` is reached for the ``nth`` time; return the signal."""
        ended: int = self._order({"point": point.name, "nth": nth})
        return ended

    def images(self) -> dict[str, str]:
        """Return the instance of each image in Glance, by image ID."""
        found: dict[str, str] = self._order({"list": "/v2/images?limit=1000"})
        return found

    def images_of(self, instance: str) -> dict[str, str]:
        """Return the image list restricted to the instance."""
        query = f"installation_uuid={INSTALLATION}&instance_id={instance}&limit=1000"
        found: dict[str, str] = self._order({"list": f"/v2/images?{query}"})
        return found

    def _order(self, order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the forking process ended"
        return json.loads(answer)


def _serve_orders(directory: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    glance.prepare(directory)
    with (directory / "glance-api.conf").open("a") as configuration:
        configuration.write(f"database_timeout = {servers.PATIENCE}\n")
    from related_images.db import schema

    schema.upgrade(f"sqlite:///{directory}/related-images.db")
    app = glance.load_app()
    for line in sys.stdin:
        answers.write(json.dumps(_carry_out(app, json.loads(line))) + "\n")


def _carry_out(app: Any, order: dict[str, Any]) -> Any:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _in_child(app, order, writing)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else os.waitstatus_to_exitcode(status)


def _in_child(app: Any, order: dict[str, Any], answer: int) -> None:
    try:
        if "list" in order:
            os.write(answer, json.dumps(_listed(app, order["list"])).encode())
        else:
            _make_requests(app, Point[order["point"]], order["nth"])
    finally:
        os._exit(0)


def _listed(app: Any, path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    following: str | None = path
    while following:
        page = _request(app, "GET", following, ADMIN).json
        found |= {image["id"]: image["name"] for image in page["images"]}
        following = page.get("next")
    return found


def _make_requests(app: Any, point: Point, nth: int) -> None:
    left = iter(range(nth - 1, -1, -1))

    def kill(reached: Point) -> None:
        if reached is point and next(left, 0) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.hook = kill
    writers = [threading.Thread(target=_write, args=(app,)) for _ in range(THREADS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def _write(app: Any) -> None:
    for turn in range(TURNS):
        instance, image_id = f"i-{uuid4().hex[:2]}", str(uuid4())
        tuple_ = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": instance}
        body = {"id": image_id, "name": instance, **IMAGE}
        _request(app, "POST", "/v2/images", SERVICE, tuple_, body)
        refused = {**body, "id": str(uuid4()), "disk_format": "none such"}
        _request(app, "POST", "/v2/images", SERVICE, tuple_, refused)
        boot = {"installation_uuid": INSTALLATION, "instance_id": "booted", "kind": "boot"}
        _request(app, "POST", "/v2/relations", SERVICE, {}, {**boot, "image_id": image_id})
        gone = f"/v2/images/{image_id}/relations/{INSTALLATION}/booted/boot"
        _request(app, "DELETE", gone, SERVICE)
        if turn % 2:
            _request(app, "DELETE", f"/v2/images/{image_id}", ADMIN)


def _request(
    app: Any,
    method: str,
    path: str,
    token: str,
    headers: dict[str, str] | None = None,
    body: Any = None,
) -> servers.Answer:
    sent = {"X-Auth-Token": token, **(headers or {})}
    return wsgi.run(app, wsgi.environ_of(method, path, sent, body))


if __name__ == "__main__":
    _serve_orders(Path(sys.argv[1]))
