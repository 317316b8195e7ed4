"""The data of an image, in each form in which a program may have it."""

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
    """What is wrong with ``data``, as far as that is known before it is sent.

    :param allowed: what to give instead of something else
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
    # the items of a text, a bytearray and a mapping are no bytes
    is_iterable = isinstance(data, Iterable) and not isinstance(
        data, str | bytearray | memoryview | Mapping
    )
    if is_iterable or hasattr(data, "read"):
        return None
    return f"data of type {type(data).__name__} cannot be sent; {allowed}"


def check_data(data: object) -> None:
    """Make sure that ``data`` can be uploaded.

    :raises UploadInvalid: if it cannot
    """
    wrong = fault(data)
    if isinstance(data, str):
        wrong = (
            "a str cannot be sent; give Path(…) for the file that it names, or text.encode() for "
            "the text itself"
        )
    if wrong:
        raise UploadInvalid(f"{wrong}; nothing was sent")


@contextmanager
def opened(data: Data) -> Iterator[Any]:
    """``data`` as requests streams it; a file is opened from its path and closed afterwards.

    With bytes and files, requests sends their size.
    """
    if isinstance(data, Path):
        with data.open("rb") as file:
            yield file
    elif isinstance(data, bytes) or hasattr(data, "read"):
        yield data
    else:
        yield _chunks(data)


def _chunks(data: Iterable[bytes]) -> Iterator[bytes]:
    """The items of ``data``; requests would send a text as UTF-8, and fail on others."""
    for chunk in data:
        if not isinstance(chunk, bytes):
            raise UploadInvalid(
                f"an item of the data is of type {type(chunk).__name__}, and has to be bytes; the "
                "upload was broken off"
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
