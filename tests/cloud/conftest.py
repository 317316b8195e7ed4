"""The cloud that all tests of this package share, and the actions of users in it."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Final

import psutil
import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.processes import KEEP_ENVIRONMENT, MARK, marked, new_mark
from tests.cloud.starting import cloud as start
from tests.cloud.user_actions import CreatedServers, do_everything

GRACE: Final = 60
"""Seconds that killed processes have to disappear."""


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    mark = new_mark()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv(KEEP_ENVIRONMENT, "1")
        # SIGTERM must end the cloud too, so that none of its processes is left over
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with start(tmp_path_factory.mktemp("cloud")) as started:
                yield started
        finally:
            signal.signal(signal.SIGTERM, before)
            left = _left_over(mark)
    assert left == set()


@pytest.fixture(scope="session")
def created(cloud: Cloud) -> CreatedServers:
    return do_everything(cloud)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _left_over(mark: str) -> set[psutil.Process]:
    """Kill the processes of the cloud that still run after its end, and return them."""
    deadline = time.monotonic() + GRACE
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return left
