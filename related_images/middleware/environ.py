"""Reading a WSGI environ: our headers, the path as the registry will take it, the body."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

from related_images.errors import BodyIncomplete, BodyTooLarge
from related_images.protocol import headers, paths

Environ = dict[str, Any]

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that is read; the registry's own schema allows far less for an image."""


def key_of(header: str) -> str:
    """The name of a request header in an environ."""
    return "HTTP_" + header.upper().replace("-", "_")


_KEYS: Final = {name: key_of(name) for name in headers.STRIPPED}
TUPLE_KEYS: Final = frozenset(_KEYS.values())

_DOMAIN: Final = re.compile(r"https?://[^/]*")
_SLASHES: Final = re.compile(r"//+")
_MINOR: Final = re.compile(r"/v2\.\d{1,2}(?=/)")


def take_tuple(environ: Environ) -> tuple[dict[str, str], bool]:
    """Remove our headers from the environ.

    :returns: what is said of an instance, by header, and whether a deletion is forced
    """
    taken = {name: environ.pop(_KEYS[name], None) for name in headers.STRIPPED}
    forced = str(taken.pop(headers.FORCE)).lower() == headers.FORCED
    return {name: value for name, value in taken.items() if value is not None}, forced


def path_below_api(environ: Environ) -> str | None:
    """The path below ``/v2`` as the registry's URL map will see it; ``None`` for other paths.

    The map takes several slashes for one, and a whole URL for its path. The mount point may lie
    before ``/v2`` or contain it.
    """
    path: str = environ.get("PATH_INFO", "")
    if path.startswith("/v2/") and "//" not in path:
        return path[3:]
    path = _SLASHES.sub("/", _DOMAIN.sub("", path, count=1) if path.startswith("http") else path)
    if path.startswith("/v2/"):
        return path[3:]
    minor = _MINOR.match(path)
    if minor:
        return path[minor.end() :]
    return path if environ.get("SCRIPT_NAME", "").endswith(paths.API) else None


class Parameter(NamedTuple):
    """A parameter of a query, and how it was ``written`` there."""

    name: str
    value: str
    written: str


def parameters(query: str) -> list[Parameter]:
    """Each parameter of a query, as Glance reads it: a semicolon is taken for an ampersand."""
    found = []
    for written in query.replace(";", "&").split("&"):
        if written:
            name, _, value = written.partition("=")
            found.append(Parameter(unquote_plus(name), unquote_plus(value), written))
    return found


def set_path_below_api(environ: Environ, path: str) -> None:
    """Point the environ at another ``path`` below ``/v2``."""
    mounted = environ.get("SCRIPT_NAME", "").endswith(paths.API)
    environ["PATH_INFO"] = path if mounted else paths.API + path


def read_body(environ: Environ) -> bytes:
    """The whole body.

    :raises BodyTooLarge: if it is longer than :data:`BODY_LIMIT`
    :raises BodyIncomplete: if the caller went away, or sent less than announced
    """
    announced = _announced_length(environ)
    if announced is not None and announced > BODY_LIMIT:
        raise _too_large()
    stream = environ["wsgi.input"]
    if announced is None and not environ.get("wsgi.input_terminated"):
        if not _comes_in_chunks_of_uwsgi(environ):
            return b""
        stream = _UwsgiChunks()
    body = _read(stream, BODY_LIMIT + 1 if announced is None else announced)
    if len(body) > BODY_LIMIT:
        raise _too_large()
    if announced is not None and len(body) < announced:
        raise BodyIncomplete(f"{announced} bytes of body were announced, {len(body)} came")
    return body


def _announced_length(environ: Environ) -> int | None:
    text = environ.get("CONTENT_LENGTH", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _comes_in_chunks_of_uwsgi(environ: Environ) -> bool:
    encoding = environ.get("HTTP_TRANSFER_ENCODING", "")
    return encoding.lower() == "chunked" and "uwsgi.version" in environ


class _UwsgiChunks:
    """A body in chunks, which uWSGI gives through a function of its own and not in ``wsgi.input``.

    Glance reads it in the same way.
    """

    def read(self, most: int) -> bytes:
        import uwsgi  # it is there only in a process of uWSGI

        piece: bytes = uwsgi.chunked_read()
        return piece


def _read(stream: Any, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0:
        try:
            piece = stream.read(most)
        except OSError as error:  # what servers raise when the connection breaks
            raise BodyIncomplete(f"the body could not be read: {error}") from error
        if not piece:
            break
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"a body of more than {BODY_LIMIT} bytes is not taken here")


def request_id(environ: Mapping[str, Any]) -> str | None:
    """The id that the registry gave this request, from its context or its request-id filter."""
    context = environ.get("webob.adhoc_attrs", {}).get("context")
    return getattr(context, "request_id", None) or environ.get("openstack.request_id")
