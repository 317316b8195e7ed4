"""A proxy that answers some requests with 503, before or after the service carried them out."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from tests.cloud.cloud import PATIENCE

HOP_BY_HOP: Final = {"connection", "transfer-encoding", "content-length"}


@contextmanager
def flaky(url: str, odds: float, seed: int) -> Iterator[str]:
    """Yield the URL of a proxy of the service at ``url``.

    :param odds: the share of requests that fail
    """
    target, chance = urlsplit(url), random.Random(seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            fails, before = chance.random() < odds, chance.random() < 0.5
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fails and before:
                self.give(503, {}, b"{}")
                return
            assert target.hostname
            connection = HTTPConnection(target.hostname, target.port, timeout=PATIENCE)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            connection.request(self.command, target.path + self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fails:
                self.give(503, {}, b"{}")
            else:
                self.give(answer.status, dict(answer.getheaders()), content)

        def give(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
