"""A client of a served Glance with a persistent connection."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import filling
from benchmarks.databases import Databases
from tests.servers import ServedGlance

SERVICE: Final = ServedGlance.token("nova", "service", "member", "service")
ADMIN: Final = ServedGlance.token("root", "admin", "admin")


def member(project: str) -> str:
    return ServedGlance.token("alice", project, "member")


def of_instance(number: int) -> dict[str, str]:
    """Return the instance headers of a generated instance."""
    return {
        "X-Installation-UUID": filling.INSTALLATION,
        "X-Instance-ID": filling.instance_id(number),
    }


@contextmanager
def on(
    kind: str, directory: Path, databases: Databases, options: Mapping[str, str]
) -> Iterator[tuple[ServedGlance, str]]:
    """Serve Glance with a database of this kind; yield it with the URL of that database.

    :param options: options of the filter
    """
    url, conf = f"sqlite:///{directory}/glance.db", ""
    if kind != "sqlite":
        url = databases.empty(kind)
        conf = f"[database]\nconnection = {url}\nslave_connection ="
    with ServedGlance(directory, options, glance_conf=conf) as served:
        yield served, url


class Client:
    """A client's connection to a served Glance."""

    def __init__(self, served: ServedGlance) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None
    ) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(
            method, path, content, {"Content-Type": "application/json", **headers}
        )
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def get(self, path: str, token: str = ADMIN, **headers: str) -> bytes:
        return self.send("GET", path, {"X-Auth-Token": token, **headers})[1]

    def images(
        self, query: str, token: str = ADMIN, headers: Mapping[str, str] | None = None
    ) -> set[str]:
        """Return the IDs of the images in a list."""
        sent = {"X-Auth-Token": token, **(headers or {})}
        status, body = self.send("GET", f"/v2/images?{query}", sent)
        if status != 200:
            raise RuntimeError(f"the image list was answered with {status}: {body!r}")
        return {image["id"] for image in json.loads(body)["images"]}

    def create(self, headers: Mapping[str, str]) -> None:
        image = {"name": "measured", "disk_format": "raw", "container_format": "bare"}
        status, body = self.send("POST", "/v2/images", headers, image)
        if status != 201:
            raise RuntimeError(f"an image was answered with {status}: {body!r}")
