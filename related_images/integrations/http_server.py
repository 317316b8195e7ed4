"""One process with several threads under gunicorn, serving one WSGI application."""

import http.client
import os
import signal
from collections.abc import Callable
from pathlib import Path
from socket import socket
from threading import Thread
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_PATIENCE = 120
"""Seconds that the application may take to load, and to answer for the first time."""


class HttpServer(BaseApplication):  # type: ignore[misc]
    """Serves what ``load`` gives, streaming both ways, until SIGTERM or SIGINT.

    :param load: called in the process that serves, after the fork; if it fails, one line on
        standard error says why, and the exit code is 3
    :param listener: a listening socket
    :param log: the file that takes what gunicorn and the application write
    :param greeting: written to standard output once the first request was answered
    """

    def __init__(
        self,
        load: Callable[[], "WSGIApplication"],
        listener: socket,
        threads: int,
        log: Path,
        greeting: str,
    ) -> None:
        self._load_app = load
        self._greeting = greeting
        self._address = _way_in(listener)
        self._log = log
        self._options: dict[str, Any] = {
            "bind": f"fd://{listener.detach()}",
            "worker_class": "gthread",
            "threads": threads,
            "proc_name": "related-images",
            "keepalive": 15,
            "timeout": _PATIENCE,
            "errorlog": str(log),
            "capture_output": True,
            "control_socket_disable": True,
            "post_worker_init": self._greet_when_answering,
        }
        # gunicorn points the process's own two at its log
        self._stdout = os.fdopen(os.dup(1), "w", buffering=1)
        self._stderr = os.fdopen(os.dup(2), "w", buffering=1)
        super().__init__(prog="related-images")

    def load_config(self) -> None:
        for name, value in self._options.items():
            # gunicorn has no control socket before 25.1
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> "WSGIApplication":
        # A terminal sends Ctrl-C here and to the parent, who then sends a signal too: two at once
        # can hang the interpreter while it ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self._load_app()
        except Exception as error:
            self._stderr.write(f"cannot serve: {error}; {self._log} has the rest\n")
            raise

    def _greet_when_answering(self, worker: Any) -> None:
        if worker.age == 1:
            Thread(target=self._greet, daemon=True).start()

    def _greet(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=_PATIENCE)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
        self._stdout.write(self._greeting)


def _way_in(listener: socket) -> tuple[str, int]:
    """Where a program on this machine reaches ``listener``."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port
