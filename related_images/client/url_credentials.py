"""Remove secrets from URLs before they are shown."""

import re
from typing import Final
from urllib.parse import parse_qsl

HIDDEN: Final = "***"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s\"'<>]+")
_AT = re.compile("@|%40", re.IGNORECASE)


def without_credentials(url: str) -> str:
    """Return ``url`` without user, password, values of the query, and fragment.

    If the end of a password is ambiguous, for example because of a slash in it, more is removed.

    :param url: the URL, which may be malformed
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    return scheme + separator + _without_query(_without_user(rest))


def hide_credentials(text: str, url: str = "") -> str:
    """Replace each URL in ``text`` by the result of :func:`without_credentials`.

    :param text: any text
    :param url: a URL that the text may contain, possibly with spaces or quotes
    """
    if url:
        text = text.replace(url, without_credentials(url))
    return _URL.sub(lambda found: without_credentials(found[0]), text)


def _without_user(rest: str) -> str:
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if _AT.search(authority):
        within = re.split("[?#]", rest, maxsplit=1)[0]
    elif ":" in authority:
        within = rest  # a user, and a password with "/", "?" or "#"
    else:
        return rest
    ends = [found.end() for found in _AT.finditer(within)]
    return f"{HIDDEN}@{rest[ends[-1] :]}" if ends else rest


def _without_query(rest: str) -> str:
    path, separator, query = rest.partition("#")[0].partition("?")
    names = [name for name, value in parse_qsl(query) if value]
    shown = "&".join(f"{name}={HIDDEN}" for name in names) or (HIDDEN if query else "")
    return path + separator + shown
