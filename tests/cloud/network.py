"""A replacement for Neutron that has no networks. The servers of the test cloud need none.

It lists one extension, because without it Nova does not resize servers across cells.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

EXTENSIONS: Final[dict[str, list[Any]]] = {"extensions": [{"alias": "binding-extended"}]}


class _Nothing(BaseHTTPRequestHandler):
    """Return an empty list for every request, except for the list of extensions."""

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.rstrip("/").rpartition("/")[2]
        body = json.dumps(_list_of(name.removesuffix(".json").replace("-", "_"))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _list_of(things: str) -> dict[str, list[Any]]:
    return {things: EXTENSIONS.get(things, [])}


@contextmanager
def network() -> Iterator[str]:
    """Run the service, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
