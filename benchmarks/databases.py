"""Databases that are filled once per run, and their servers."""

from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from benchmarks import filling
from benchmarks.filling import Cloud
from tests import servers


class Databases:
    """Empty and filled databases of each kind in one directory; the servers stop at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: dict[str, servers.DatabaseServer] = {}
        self._filled: dict[tuple[str, Cloud], str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Databases":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def empty(self, kind: str) -> str:
        """Return the URL of a new database.

        :raises tests.servers.ServerMissing: if there is no such server on this machine
        """
        if kind == "sqlite":
            return f"sqlite:///{self._directory}/{uuid4()}.db"
        if kind not in self._servers:
            start = {"mariadb": servers.mariadb, "postgresql": servers.postgresql}[kind]
            self._servers[kind] = self._stack.enter_context(start())
        return self._servers[kind].create()

    def filled(self, kind: str, cloud: Cloud) -> str:
        """Return the URL of a database with the relations of ``cloud``."""
        if (kind, cloud) not in self._filled:
            url = self.empty(kind)
            filling.fill(url, cloud)
            self._filled[kind, cloud] = url
        return self._filled[kind, cloud]
