"""Whether the options of uWSGI let the filters work."""

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from related_images.manage.findings import Finding, found

SECTION: Final = "uwsgi"
BUFFER: Final = 32_768
"""The smallest size of the buffer for headers, in bytes: long tokens, and lists of image IDs."""
ADVISED_BUFFER: Final = 65_535

_TRUE: Final = ("true", "1", "yes", "on", "")
_ON: Final = {
    "master": "without it, uWSGI does not replace a worker that ends",
    "enable-threads": "without it, the filter in Glance does not detect that a failed database "
    "works again, and the filters in nova-api and cinder-api send no heartbeats",
    "py-call-osafterfork": "without it, libraries do not notice that a worker is a new process",
}


def check(path: Path) -> Iterator[Finding]:
    """Check the options in a file of uWSGI in INI format."""
    # uWSGI allows an option several times and without a value
    parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
    subject = f"uWSGI: {path}"
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
        options = parser[SECTION]
    except (OSError, UnicodeDecodeError):
        yield found(subject, "the file cannot be read; check its path and permissions")
        return
    except (configparser.Error, KeyError):
        yield found(subject, f"it is no INI file with a section [{SECTION}]; give such a file")
        return
    yield found(f"{subject}: buffer-size", _buffer_problem(options, path))
    for name, reason in _ON.items():
        text = options.get(name, "false")
        is_on = text is None or text.strip().lower() in _TRUE
        if name == "enable-threads":
            is_on |= "threads" in options
        advice = f"set {name} = true in [{SECTION}] of {path}; {reason}"
        yield found(f"{subject}: {name}", None if is_on else advice)


def _buffer_problem(options: configparser.SectionProxy, path: Path) -> str | None:
    text = (options.get("buffer-size") or "").strip()
    if text.isdecimal() and int(text) >= BUFFER:
        return None
    return (
        f"set buffer-size = {ADVISED_BUFFER} in [{SECTION}] of {path}; uWSGI drops headers that "
        "do not fit, and a request with a long token then fails as if it had none"
    )
