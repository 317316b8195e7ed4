"""Image data to upload: check its type, and open it."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from related_images.client.errors import UploadInvalid

Data = bytes | BinaryIO | Path | Iterable[bytes]

FORMS: Final = "give bytes, an open binary file, a Path or an iterable of bytes"


def fault(data: object, allowed: str = FORMS) -> str | None:
    """Return why ``data`` cannot be sent, as far as that is known before.

    :param data: the data
    :param allowed: the advice for an unsupported type
    :returns: the reason, or ``None``
    """
    if isinstance(data, bytes):
        return None
    if isinstance(data, Path):
        return _fault_of_path(data)
    if isinstance(data, io.TextIOBase):
        return "the file is open as text; open it with mode 'rb'"
    if getattr(data, "closed", False) is True:
        return "the file is closed; open it with mode 'rb'"
    readable = getattr(data, "readable", None)
    if callable(readable) and not readable():
        return "the file is not open for reading; open it with mode 'rb'"
    # the items of str, bytearray, memoryview and mappings are not bytes
    is_iterable = isinstance(data, Iterable) and not isinstance(
        data, str | bytearray | memoryview | Mapping
    )
    if is_iterable or hasattr(data, "read"):
        return None
    return f"data of type {type(data).__name__} cannot be sent; {allowed}"


def check_data(data: object) -> None:
    """Check that ``data`` can be uploaded.

    :raises UploadInvalid: if its type cannot be sent, or its file cannot be read
    """
    reason = fault(data)
    if isinstance(data, str):
        reason = (
            "a str cannot be sent; give Path(…) for the name of a file, or text.encode() for a text"
        )
    if reason:
        raise UploadInvalid(f"{reason}; nothing was sent")


@contextmanager
def opened(data: Data) -> Iterator[Any]:
    """Yield ``data`` as ``requests`` can stream it; open and close the file of a path.

    For bytes and files, ``requests`` sends the size.
    """
    if isinstance(data, Path):
        with data.open("rb") as file:
            yield file
    elif isinstance(data, bytes) or hasattr(data, "read"):
        yield data
    else:
        yield _chunks(data)


def _chunks(data: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the items of ``data``; ``requests`` would encode str, and fail for other types."""
    for chunk in data:
        if not isinstance(chunk, bytes):
            raise UploadInvalid(
                f"an item of the data has the type {type(chunk).__name__} and must be bytes; the "
                "upload was aborted"
            )
        yield chunk


def _fault_of_path(path: Path) -> str | None:
    if not path.exists():
        return f"there is no file {path}"
    if path.is_dir():
        return f"{path} is a directory; give the path of a file"
    if not os.access(path, os.R_OK):
        return f"the file {path} cannot be read; check its permissions"
    return None
