"""URLs in messages, without the credentials that they may carry."""

import re
from typing import Final
from urllib.parse import urlsplit

HIDDEN: Final = "***"
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_VALUE: Final = re.compile(r"=[^&;]*")


def without_credentials(url: str) -> str:
    """``url`` without its user information, and without the values of its query.

    A query may be a signature or a token; one that has no ``name=value`` is hidden as a whole.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN  # as with half of an IPv6 address
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{HIDDEN}@{host}" if "@" in parts.netloc else host
    query = _VALUE.sub(f"={HIDDEN}", parts.query) if "=" in parts.query else HIDDEN
    shown = parts._replace(netloc=netloc, query=query if parts.query else "", fragment="")
    return shown.geturl()


def hide_credentials(text: str) -> str:
    """``text`` with every URL in it shown by :func:`without_credentials`."""
    return _URL.sub(lambda found: without_credentials(found.group()), text)
