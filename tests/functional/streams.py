"""Send and fetch large bodies as streams, and send raw HTTP."""

import hashlib
import http.client
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.servers import PATIENCE, ServedGlance

BLOCK = hashlib.shake_256(b"an image").digest(1024 * 1024)
TOKEN = ServedGlance.token("alice", "demo", "member")


def blocks(mebibytes: int) -> Iterator[bytes]:
    """Yield ``mebibytes`` blocks of 1 MiB that do not repeat."""
    for number in range(mebibytes):
        yield number.to_bytes(8, "big") + BLOCK[8:]


def checksum(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class Way:
    """How a body is sent to Glance: the path, and with Content-Length or chunked."""

    path: str
    chunked: bool


def new_image(served: ServedGlance) -> str:
    image = {"name": "streamed", "disk_format": "raw", "container_format": "bare"}
    answer = served.request("POST", "/v2/images", TOKEN, body=image)
    assert answer.status == 201
    return str(answer.json["id"])


def status(served: ServedGlance, image_id: str) -> str:
    return str(served.request("GET", f"/v2/images/{image_id}", TOKEN).json["status"])


def send(served: ServedGlance, image_id: str, way: Way, mebibytes: int) -> int:
    """Send the body; return the status of the response."""
    headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/octet-stream"}
    if not way.chunked:
        headers["Content-Length"] = str(mebibytes * len(BLOCK))
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10 * PATIENCE)
    path = f"/v2/images/{image_id}/{way.path}"
    connection.request("PUT", path, blocks(mebibytes), headers, encode_chunked=way.chunked)
    answered = connection.getresponse()
    answered.read()
    connection.close()
    return answered.status


def fetched(served: ServedGlance, image_id: str) -> str:
    """Return the checksum of the data that Glance returns."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10 * PATIENCE)
    connection.request("GET", f"/v2/images/{image_id}/file", headers={"X-Auth-Token": TOKEN})
    answer = connection.getresponse()
    found = checksum(iter(lambda: answer.read(65536), b""))
    connection.close()
    return found


class RawConnection:
    """A socket to Glance, for requests that no client library sends."""

    def __init__(self, served: ServedGlance) -> None:
        self.socket = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *requests: bytes) -> None:
        self.socket.sendall(b"".join(requests))

    def answer(self) -> tuple[str, list[str], bytes]:
        """Return the status line, the header names and the body of the next response."""
        line = self._file.readline().decode().strip()
        headers = dict(self._headers())
        body = self._file.read(int(headers.get("content-length", "0")))
        return line, sorted(headers), body

    def is_at_end(self) -> bool:
        return self._file.read(1) == b""

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of one HTTP request."""
    given = [f"{method} {path} HTTP/1.1", "Host: glance", f"X-Auth-Token: {TOKEN}", *headers]
    if body:
        given += [f"Content-Length: {len(body)}", "Content-Type: application/octet-stream"]
    return "\r\n".join([*given, "", ""]).encode() + body
