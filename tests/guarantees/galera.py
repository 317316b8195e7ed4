"""MariaDB servers to kill and restart: a single one or a Galera cluster."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pymysql

from tests import servers

PROVIDERS: Final = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
PATIENCE: Final = 90.0
"""The time in seconds until a node must be ready, with state transfer."""


class Node:
    """A server with its own data directory; with ``cluster``, a node of that cluster.

    :ivar port: the port for clients
    """

    def __init__(self, directory: Path, number: int, cluster: "list[Node] | None" = None) -> None:
        self.directory = directory / str(number)
        self.port, self.group_port = servers.free_port(), servers.free_port()
        self.transfer_ports = (servers.free_port(), servers.free_port())
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.directory.mkdir()
        self._user = "mysql" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.directory, self._user, self._user)
        servers._run(
            [
                *(servers._program("mariadb-install-db"), "--no-defaults"),
                *(*self._places(), "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ],
            user=self._user,
            group=self._user,
        )

    def _places(self) -> tuple[str, str]:
        """Return the options for the directories, none of which another server uses."""
        return f"--datadir={self.directory}/data", f"--tmpdir={self.directory}"

    def start(self, *, bootstrap: bool = False) -> None:
        """Start the server and wait until it is ready; ``bootstrap`` creates a new cluster."""
        command = [
            *(servers._program("mariadbd"), "--no-defaults", *self._places()),
            *(f"--port={self.port}", f"--socket={self.directory}/socket"),
            *("--bind-address=127.0.0.1", "--max-connections=200"),
            f"--log-error={self.directory}/log",
            # a commit survives a kill of the process, not a crash of the machine
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=0"),
            *self._cluster_options(),
            *(["--wsrep-new-cluster"] if bootstrap else []),
        ]
        self._process = subprocess.Popen(
            command,
            cwd=self.directory,
            stderr=subprocess.DEVNULL,
            user=self._user,
            group=self._user,
        )
        self._wait()

    def kill(self) -> None:
        """Kill the server."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str) -> str | None:
        """Return the last column of the first row of the result."""
        with (
            pymysql.connect(host="127.0.0.1", port=self.port, user="root", read_timeout=30) as link,
            link.cursor() as cursor,
        ):
            cursor.execute(statement)
            row = cursor.fetchone()
            return None if row is None else str(row[-1])

    def _cluster_options(self) -> list[str]:
        if self._cluster is None:
            return []
        group = f"tcp://127.0.0.1:{self.group_port}"
        state_port, increment_port = self.transfer_ports
        provider = [
            *(f"gmcast.listen_addr={group}", f"ist.recv_addr=127.0.0.1:{increment_port}"),
            *("base_host=127.0.0.1", f"base_port={self.group_port}"),
        ]
        peers = ",".join(f"127.0.0.1:{node.group_port}" for node in self._cluster)
        return [
            *("--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--wsrep-on=ON"),
            *(f"--wsrep-provider={_provider()}", "--wsrep-sst-method=rsync"),
            *(f"--wsrep-cluster-address=gcomm://{peers}", "--wsrep-cluster-name=related"),
            *("--wsrep-node-address=127.0.0.1", f"--wsrep-node-name=n{self.port}"),
            f"--wsrep-sst-receive-address=127.0.0.1:{state_port}",
            f"--wsrep-provider-options={';'.join(provider)}",
        ]

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            try:
                if self.ask(_ANSWERS if self._cluster is None else _READY) in ("1", "ON"):
                    return
            except pymysql.MySQLError:
                pass
            time.sleep(0.1)
        log = (self.directory / "log").read_text(errors="replace")[-2000:]
        raise TimeoutError(f"the server on port {self.port} does not answer: {log}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE)


_ANSWERS: Final = "SELECT 1"
_READY: Final = "SHOW STATUS LIKE 'wsrep_ready'"


def _provider() -> str:
    for path in PROVIDERS:
        if Path(path).exists():
            return path
    raise servers.ServerMissing("galera-4 is not installed on this machine")


@contextmanager
def cluster(size: int = 3) -> Iterator[list[Node]]:
    """Run a cluster of ``size`` nodes, all of which accept writes."""
    _provider()
    with _home() as directory:
        nodes: list[Node] = []
        nodes += [Node(directory, number, nodes) for number in range(size)]
        try:
            for number, node in enumerate(nodes):
                node.start(bootstrap=number == 0)
            yield nodes
        finally:
            for node in nodes:
                node.kill()


@contextmanager
def alone() -> Iterator[Node]:
    """Run a single server."""
    with _home() as directory:
        node = Node(directory, 0)
        node.start()
        try:
            yield node
        finally:
            node.kill()


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # the server runs as another user
        yield Path(name)
