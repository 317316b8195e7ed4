"""Start, check and end the processes of the test cloud."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil

from tests.servers import PATIENCE

MARK: Final = "RELATED_IMAGES_TEST_CLOUD"
"""The environment variable of every process of a cloud. Their child processes inherit it."""

KEEP_ENVIRONMENT: Final = "SPT_NOENV"
"""With this variable, a process that changes its title does not overwrite its environment."""

SAID: Final = 5000
"""The number of characters at the end of a log that an error shows."""


class Ended(AssertionError):
    """A process ended unexpectedly."""


class Processes:
    """The programs of one cloud. Each has its own session and its own log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, name: str, *command: str, **environment: str) -> None:
        """Run a program, and wait until it ends.

        :raises Ended: if it fails
        """
        code = self._popen(name, command, environment).wait(5 * PATIENCE)
        if code:
            raise Ended(f"{name} ended with {code}: {self.said(name)}")

    def start(
        self, name: str, *command: str, inherited: Sequence[int] = (), **environment: str
    ) -> None:
        """Start a program.

        :param inherited: file descriptors that the program inherits
        :raises Ended: if a program of this name was started and not stopped: it would be left over
        """
        if name in self._running:
            raise Ended(f"{name} was started before and not stopped")
        self._running[name] = self._popen(name, command, environment, inherited)

    def stop(self, name: str, sent: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a program and to all processes that it started; return its exit code."""
        process = self._running.pop(name)
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, sent)
        return process.wait(PATIENCE)

    def stop_all(self) -> None:
        """End all programs, the newest first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def check(self) -> None:
        """
        :raises Ended: if a program has ended
        """
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                raise Ended(f"{name} ended with {process.returncode}: {self.said(name)}")

    def said(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-SAID:]

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _popen(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        inherited: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=inherited,
            )


def new_mark() -> str:
    return uuid4().hex


def marked(mark: str) -> set[psutil.Process]:
    """Return all processes with this mark, even if they left the session of their program."""
    return {process for process in psutil.process_iter() if _environment(process).get(MARK) == mark}


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}
