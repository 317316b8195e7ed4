"""Serve a WSGI application with gunicorn, in one process with several threads."""

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

_START_TIMEOUT = 120
"""Seconds until the application must be loaded, and must answer the first request."""


class HttpServer(BaseApplication):  # type: ignore[misc]
    """Serve a WSGI application until SIGTERM or SIGINT. Bodies are streamed in both directions.

    :param load: returns the application; called in the worker process, after the fork. If it
        fails, standard error gets one line with the reason, and the exit code is 3.
    :param listener: a listening socket
    :param threads: the number of threads
    :param log: the file for the output of gunicorn and the application
    :param greeting: written to standard output after the first response
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
        self._address = _local_address(listener)
        self._log = log
        self._options: dict[str, Any] = {
            "bind": f"fd://{listener.detach()}",
            "worker_class": "gthread",
            "threads": threads,
            "proc_name": "related-images",
            "keepalive": 15,
            "timeout": _START_TIMEOUT,
            "errorlog": str(log),
            "capture_output": True,
            "control_socket_disable": True,
            "post_worker_init": self._start_greeting,
        }
        # gunicorn redirects the standard output and error of the process to its log
        self._stdout = os.fdopen(os.dup(1), "w", buffering=1)
        self._stderr = os.fdopen(os.dup(2), "w", buffering=1)
        super().__init__(prog="related-images")

    def load_config(self) -> None:
        """Set the options of gunicorn."""
        for name, value in self._options.items():
            # gunicorn before 25.1 has no option for the control socket
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> "WSGIApplication":
        """Load the application in the worker.

        :raises Exception: as the application does
        """
        # A terminal sends Ctrl-C to the worker and to the arbiter, which signals the worker again.
        # Two signals at once can hang the interpreter during its shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self._load_app()
        except Exception as error:  # the process ends; its log has the traceback
            self._stderr.write(f"cannot serve: {error}; see {self._log}\n")
            raise

    def _start_greeting(self, worker: Any) -> None:
        if worker.age == 1:
            Thread(target=self._greet, daemon=True).start()

    def _greet(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=_START_TIMEOUT)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
        self._stdout.write(self._greeting)


def _local_address(listener: socket) -> tuple[str, int]:
    """Return host and port at which programs on this host reach ``listener``."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port
