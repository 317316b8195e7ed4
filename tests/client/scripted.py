"""An HTTP server on the loopback interface that records requests and sends scripted responses.

It tests what a real Glance does not do on demand: lost and incomplete responses, error pages of a
proxy.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def tuple_headers(self) -> dict[str, str]:
        wanted = ("x-installation-uuid", "x-instance-id", "x-relation-kind", "x-relation-label")
        return {name: self.headers[name] for name in wanted if name in self.headers}


@dataclass(frozen=True)
class Reply:
    """A response.

    :ivar cut: ``True`` to close the connection before the last bytes
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


HANG_UP = None
Script = Callable[[Asked], Reply | None]


def shown(body: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"} | named)


INFO = shown({"version": "0", "kinds": ["snapshot", "backup", "boot"]})


class Scripted:
    """Responds with the result of ``script``, except to the request for the version of the filter.

    :ivar asked: all requests so far
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.info: Reply | None = INFO
        self.script: Script = lambda asked: Reply(404)

    def answer(self, asked: Asked) -> Reply | None:
        self.asked.append(asked)
        if asked.path.rstrip("/") in ("", "/image"):
            return shown(self._versions(asked.path.rstrip("/")), 300)
        if asked.path.endswith("/v2/info/relations"):
            return self.info
        return self.script(asked)

    def _versions(self, mount: str) -> Any:
        links = [{"rel": "self", "href": f"{self.url}{mount}/v2/"}]
        return {"versions": [{"id": "v2.16", "status": "CURRENT", "links": links}]}

    def of(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]


@contextmanager
def serving() -> Iterator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            parts = urlsplit(self.path)
            headers = {name.lower(): text for name, text in self.headers.items()}
            body = self.rfile.read(length)
            reply = scripted.answer(Asked(self.command, parts.path, parts.query, headers, body))
            self.close_connection = True
            if reply is not None:
                self.give(reply)

        def give(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, text in reply.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(reply.body) + reply.cut))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted = Scripted(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
