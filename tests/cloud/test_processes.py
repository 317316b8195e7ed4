"""All processes of the cloud are known, so none of them can be left over."""

import os
import sys
from pathlib import Path
from typing import Final

import psutil

from tests.cloud.cloud import Cloud, eventually
from tests.cloud.processes import MARK, Processes, marked, new_mark

ASIDE: Final = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
"""
"""A program that starts a process in another session, and ends."""


def test_every_process_of_the_cloud_bears_the_mark(cloud: Cloud) -> None:
    started = set(psutil.Process().children(recursive=True))
    others = started - marked(os.environ[MARK])
    # RabbitMQ starts processes that end soon
    assert {process for process in others if is_alive(process)} == set()
    names = {process.name() for process in started if is_alive(process)}
    assert names >= {"mariadbd", "epmd", "beam.smp"}
    cloud.processes.check()


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_process_in_a_session_of_its_own_is_found(tmp_path: Path) -> None:
    mark = new_mark()
    Processes(tmp_path).run("aside", sys.executable, "-c", ASIDE, **{MARK: mark})
    eventually(lambda: len(marked(mark)) == 1, "the one that is left")
    (process,) = marked(mark)
    process.kill()
    eventually(lambda: marked(mark) == set(), "its end")
