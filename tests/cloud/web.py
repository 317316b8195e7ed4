"""Serve the WSGI application of a service.

Start it with ``python -m tests.cloud.web MODULE DESCRIPTOR LOG``.
"""

import importlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from related_images.integrations import reporting
from related_images.integrations.http_server import HttpServer
from tests.servers import PATIENCE

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

THREADS: Final = 8


def main(module: str, descriptor: str, log: str) -> None:
    # the services would parse these arguments as their own options
    del sys.argv[1:]
    # how busy the machine is decides nothing
    reporting.SECONDS = float(PATIENCE)  # type: ignore[misc]
    listener = socket.socket(fileno=int(descriptor))
    load = lambda: cast("WSGIApplication", importlib.import_module(module).application)  # noqa: E731
    HttpServer(load, listener, THREADS, Path(log), f"{module} answers\n").run()


if __name__ == "__main__":
    main(*sys.argv[1:])
