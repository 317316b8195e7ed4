"""URLs as they may be shown: what is secret in them is left out."""

import re
from typing import Final
from urllib.parse import parse_qsl

HIDDEN: Final = "***"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s\"'<>]+")
_AT = re.compile("@|%40", re.IGNORECASE)


def without_credentials(url: str) -> str:
    """``url`` without its user and password, the values of its query, and its fragment.

    Where it is not clear what belongs to a password, such as one with a slash, more is left out.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    return scheme + separator + _without_query(_without_user(rest))


def hide_credentials(text: str, url: str = "") -> str:
    """``text`` with each URL in it as :func:`without_credentials` gives it.

    :param url: one that the text may show, whatever characters it has
    """
    if url:
        text = text.replace(url, without_credentials(url))
    return _URL.sub(lambda found: without_credentials(found[0]), text)


def _without_user(rest: str) -> str:
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if _AT.search(authority):
        within = re.split("[?#]", rest, maxsplit=1)[0]
    elif ":" in authority:
        within = rest  # the user's name, whose password has characters that belong elsewhere
    else:
        return rest
    ends = [found.end() for found in _AT.finditer(within)]
    return f"{HIDDEN}@{rest[ends[-1] :]}" if ends else rest


def _without_query(rest: str) -> str:
    path, separator, query = rest.partition("#")[0].partition("?")
    names = [name for name, value in parse_qsl(query) if value]
    shown = "&".join(f"{name}={HIDDEN}" for name in names) or (HIDDEN if query else "")
    return path + separator + shown
