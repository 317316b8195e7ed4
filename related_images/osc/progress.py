"""Progress bars on stderr."""

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any


def progress_bar(**options: Any) -> AbstractContextManager[Any]:
    """Return a bar of tqdm, or nothing to see if tqdm is not installed.

    The extra ``cli`` installs tqdm. An environment with Glance, the filter and the ``openstack``
    command has these commands without it.

    :param options: the options of tqdm
    :returns: a context manager whose value has the method ``update``
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(SimpleNamespace(update=lambda count=1: None))
    bar: AbstractContextManager[Any] = tqdm(**options)
    return bar


def counting_bar(total: int, unit: str) -> AbstractContextManager[Any]:
    """Return a bar for ``total`` steps; it is shown on a terminal only, and not without steps."""
    return progress_bar(total=total, unit=unit, disable=None if total else True)
