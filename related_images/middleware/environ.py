"""Read a WSGI environ: the instance headers, the path as Glance reads it, the body."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

from related_images.errors import BodyIncomplete, BodyTooLarge
from related_images.protocol import headers, paths

Environ = dict[str, Any]

BODY_LIMIT: Final = 1024 * 1024
"""The largest body that is read, in bytes; Glance's own schema allows less for an image."""


def environ_key(header: str) -> str:
    """Return the key of a request header in a WSGI environ."""
    return "HTTP_" + header.upper().replace("-", "_")


_KEYS: Final = {name: environ_key(name) for name in headers.STRIPPED}
HEADER_KEYS: Final = frozenset(_KEYS.values())

_DOMAIN: Final = re.compile(r"https?://[^/]*")
_SLASHES: Final = re.compile(r"//+")
_MINOR: Final = re.compile(r"/v2\.\d{1,2}(?=/)")


def pop_headers(environ: Environ) -> tuple[dict[str, str], bool]:
    """Remove the instance headers and ``X-Relation-Force`` from the environ.

    :returns: the values of the instance headers by name, and whether a deletion is forced
    """
    values = {name: environ.pop(_KEYS[name], None) for name in headers.STRIPPED}
    forced = str(values.pop(headers.FORCE)).lower() == headers.FORCED
    return {name: value for name, value in values.items() if value is not None}, forced


def path_below_api(environ: Environ) -> str | None:
    """Return the path below ``/v2`` as Glance's URL map sees it; ``None`` for other paths.

    Like ``paste.urlmap``, this reads several slashes as one and a complete URL as its path. The
    mount point (``SCRIPT_NAME``) is in front of ``/v2`` or contains it.
    """
    path: str = environ.get("PATH_INFO", "")
    if path.startswith("/v2/") and "//" not in path:
        return path[3:]
    path = _normalized(path)
    below = _below_version(path)
    if below is not None:
        return below
    return path if environ.get("SCRIPT_NAME", "").endswith(paths.API) else None


def _normalized(path: str) -> str:
    return _SLASHES.sub("/", _DOMAIN.sub("", path, count=1) if path.startswith("http") else path)


def _below_version(path: str) -> str | None:
    """Return the path below the version of the API that it begins with; ``None`` without one."""
    if path.startswith("/v2/"):
        return path[3:]
    minor = _MINOR.match(path)
    return path[minor.end() :] if minor else None


class Parameter(NamedTuple):
    """A query parameter, and its ``raw`` text in the query string."""

    name: str
    value: str
    raw: str


def parameters(query: str) -> list[Parameter]:
    """Return the parameters of a query string; like Glance, read a semicolon as an ampersand."""
    found = []
    for raw in query.replace(";", "&").split("&"):
        if raw:
            name, _, value = raw.partition("=")
            found.append(Parameter(unquote_plus(name), unquote_plus(value), raw))
    return found


def set_path_below_api(environ: Environ, path: str) -> None:
    """Set the path of the environ to ``path`` below ``/v2``, at the same mount point."""
    has_version = _below_version(_normalized(environ.get("PATH_INFO", ""))) is not None
    # a proxy may state a mount point that ends in /v2 although the path has the version too
    is_mounted = not has_version and environ.get("SCRIPT_NAME", "").endswith(paths.API)
    environ["PATH_INFO"] = path if is_mounted else paths.API + path


def read_body(environ: Environ) -> bytes:
    """Return the whole request body.

    :raises BodyTooLarge: if it is longer than :data:`BODY_LIMIT`
    :raises BodyIncomplete: if the connection broke, or the body is shorter than Content-Length
    """
    length = _content_length(environ)
    if length is not None and length > BODY_LIMIT:
        raise _too_large()
    stream = environ["wsgi.input"]
    if length is None and not environ.get("wsgi.input_terminated"):
        if not _is_chunked_by_uwsgi(environ):
            return b""
        stream = _UwsgiChunks()
    body = _read(stream, BODY_LIMIT + 1 if length is None else length)
    if len(body) > BODY_LIMIT:
        raise _too_large()
    if length is not None and len(body) < length:
        raise BodyIncomplete(
            f"Content-Length is {length}, but the body has {len(body)} bytes; send it again"
        )
    return body


def _content_length(environ: Environ) -> int | None:
    text = environ.get("CONTENT_LENGTH", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _is_chunked_by_uwsgi(environ: Environ) -> bool:
    encoding = environ.get("HTTP_TRANSFER_ENCODING", "")
    return encoding.lower() == "chunked" and "uwsgi.version" in environ


class _UwsgiChunks:
    """A chunked body, which uWSGI provides by ``uwsgi.chunked_read()``, not by ``wsgi.input``.

    ``glance.common.wsgi._UWSGIChunkFile`` reads it in the same way.
    """

    def read(self, size: int) -> bytes:
        """Return the next chunk, whatever its size; empty at the end of the body."""
        import uwsgi  # exists only in a uWSGI process

        piece: bytes = uwsgi.chunked_read()
        return piece


def _read(stream: Any, size: int) -> bytes:
    pieces: list[bytes] = []
    while size > 0:
        try:
            piece = stream.read(size)
        except OSError as error:  # WSGI servers raise it when the connection breaks
            raise BodyIncomplete(f"the body cannot be read: {error}; send it again") from error
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {BODY_LIMIT} bytes, the limit of this route; send a smaller body"
    )


def glance_context(environ: Mapping[str, Any]) -> Any:
    """Return the context of Glance's context filter; ``None`` if it is not before this filter."""
    return environ.get("webob.adhoc_attrs", {}).get("context")


def request_id(environ: Mapping[str, Any]) -> str | None:
    """Return the request ID from Glance's context or request-id filter, if it has one."""
    context = glance_context(environ)
    return getattr(context, "request_id", None) or environ.get("openstack.request_id")
