"""Requests to a WSGI application in this process."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit
from wsgiref.headers import Headers
from wsgiref.validate import validator

from tests.servers import Answer, as_body

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment


def identity(user: str, project: str, *roles: str) -> dict[str, str]:
    """Return the headers that keystonemiddleware sets for an authenticated caller."""
    return {
        "X-Identity-Status": "Confirmed",
        "X-User-Id": user,
        "X-Project-Id": project,
        "X-Roles": ",".join(roles or ("member", "reader")),
    }


def environ_of(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
) -> "WSGIEnvironment":
    """Return the environ of a request; a ``body`` that is not bytes is sent as JSON."""
    sent, content = as_body(body)
    target = urlsplit(path)
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(target.path).decode("latin-1"),
        "QUERY_STRING": target.query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(content or b""),
        "wsgi.errors": _Errors(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if content is not None:
        environ["CONTENT_LENGTH"] = str(len(content))
    for name, text in {**sent, **(headers or {})}.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    return environ


def call(
    app: "WSGIApplication",
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Answer:
    """Send a request to ``app`` through wsgiref's validator; return the response.

    Glance sends a ``Content-Type`` in responses without content; it is removed before validation.
    """
    return run(validator(_without_needless_type(app)), environ_of(method, path, headers, body))


def _without_needless_type(app: "WSGIApplication") -> "WSGIApplication":
    def inner(environ: "WSGIEnvironment", start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            if status.startswith(("204", "304")):
                headers = [header for header in headers if header[0].lower() != "content-type"]
            return start_response(status, headers, *exc_info)

        return app(environ, start)

    return inner


def run(app: "WSGIApplication", environ: "WSGIEnvironment") -> Answer:
    """Send the request to ``app``; return the whole response."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [(status, headers)]
        return written.append

    body = app(environ, start_response)
    try:
        written.extend(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = started[0]
    return Answer(int(status.split()[0]), Headers(headers), b"".join(written))


class _Errors:
    """An error stream that collects what the application writes."""

    def write(self, text: str) -> None:
        pass

    def writelines(self, lines: list[str]) -> None:
        pass

    def flush(self) -> None:
        pass
