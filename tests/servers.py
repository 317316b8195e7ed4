"""Temporary servers on free loopback ports: databases, and the real Glance as ``serve`` runs it."""

import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Final
from uuid import uuid4
from wsgiref.headers import Headers

import psycopg
import pymysql
from sqlalchemy.engine import make_url

from related_images.integrations import glance

ROOT = Path(__file__).parent.parent
SHIPPED_PASTE = ROOT / "etc" / "paste.ini"

PATIENCE = 60
"""The timeout for a server to respond or to end, in seconds."""

FIRST_PORT = 10_000
_CHANCE = random.SystemRandom()
"""A separate generator: plugins seed the global one, so that processes choose the same ports."""

RELATED_IMAGES = "import sys; from related_images.manage import main; sys.exit(main())"


class ServerMissing(Exception):
    """The programs of a server are not installed."""


@dataclass(frozen=True)
class DatabaseServer:
    """A running database server; ``create`` creates an empty database and returns its URL."""

    url: str
    run: Callable[[str], None]

    def create(self) -> str:
        name = f"t{uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"


def free_port() -> int:
    """Return a free port of loopback below the range of ephemeral ports.

    The kernel assigns ephemeral ports to outgoing connections, so that a connection of a concurrent
    test could take the port before the server binds it.
    """
    while True:
        port = _CHANCE.randrange(FIRST_PORT, _first_ephemeral_port())
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 0
    return first if first > 2 * FIRST_PORT else 32_768


MYSQL_DRIVER: Final = os.environ.get("RELATED_IMAGES_MYSQL_DRIVER", "pymysql")
"""The driver in the URLs of MariaDB."""


@contextmanager
def mariadb(*, options: Sequence[str] = ()) -> Iterator[DatabaseServer]:
    install, server = _program("mariadb-install-db"), _program("mariadbd")
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    port = free_port()

    def run(statement: str) -> None:
        with (
            pymysql.connect(host="127.0.0.1", port=port, user="root") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    with tempfile.TemporaryDirectory() as directory:
        # at its start, a server deletes the temporary tables of others in the same directory
        places = (f"--datadir={directory}/data", f"--tmpdir={directory}")
        normal = "--auth-root-authentication-method=normal"
        _run([install, "--no-defaults", *as_root, *places, normal, "--skip-test-db"])
        command = [
            *(server, "--no-defaults", *as_root, *places, f"--port={port}"),
            *(f"--socket={directory}/socket", "--bind-address=127.0.0.1"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"),
            *("--innodb-flush-method=nosync", "--max-connections=2000", *options),
        ]
        with _process(command, lambda: run("SELECT 1"), signal.SIGTERM, pymysql.OperationalError):
            yield DatabaseServer(f"mysql+{MYSQL_DRIVER}://root@127.0.0.1:{port}", run)


@contextmanager
def postgresql() -> Iterator[DatabaseServer]:
    initdb, server = _program("initdb"), _program("postgres")
    as_postgres = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    port = free_port()

    def run(statement: str) -> None:
        address = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    with tempfile.TemporaryDirectory() as directory:
        if as_postgres:
            shutil.chown(directory, **as_postgres)
        data = f"{directory}/data"
        plain = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        _run([initdb, f"--pgdata={data}", *plain, "--no-sync"], **as_postgres)
        command = [
            *(server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", directory, "-F"),
            *("-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
            *("-c", "max_connections=800"),
        ]
        ready = lambda: run("SELECT 1")  # noqa: E731
        with _process(command, ready, signal.SIGINT, psycopg.OperationalError, **as_postgres):
            yield DatabaseServer(f"postgresql+psycopg://postgres@127.0.0.1:{port}", run)


@contextmanager
def pgbouncer(server: DatabaseServer, mode: str, **settings: str) -> Iterator[DatabaseServer]:
    """PgBouncer in front of PostgreSQL, with fewer connections than concurrent clients."""
    program, behind, port = _program("pgbouncer"), make_url(server.url), free_port()
    as_postgres = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": mode,
        "default_pool_size": "3",
        "max_client_conn": "500",
        **settings,
    }
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}"

    def ready() -> None:
        address = f"{url.replace('+psycopg', '')}/postgres"
        psycopg.connect(address, prepare_threshold=None).close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pgbouncer.ini")
        lines = [f"{name} = {value}" for name, value in given.items()]
        to = f"* = host={behind.host} port={behind.port} user={behind.username}"
        path.write_text("\n".join(["[databases]", to, "[pgbouncer]", *lines, ""]))
        for each in (directory, path) if as_postgres else ():
            shutil.chown(each, **as_postgres)
        command = [program, str(path)]
        with _process(command, ready, signal.SIGTERM, psycopg.OperationalError, **as_postgres):
            yield DatabaseServer(url, server.run)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServedGlance:
    """The real Glance in its own process, as ``related-images serve`` runs it.

    :param options: options of the filter; ``database_timeout`` is long unless given, so that a busy
        machine does not fail the test
    :param with_filter: whether the pipeline has the filter
    :param glance_conf: lines for ``glance-api.conf``
    :param paste: the paste file instead of the shipped one; it may name modules of the tests
    """

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, str] | None = None,
        *,
        with_filter: bool = True,
        glance_conf: str = "",
        paste: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log = directory / "serve.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._paste = paste if with_filter else paste_without(directory, "related-images")
        self._process: subprocess.Popen[bytes] | None = None
        glance.write_configuration(directory)
        given = {"database_timeout": str(PATIENCE), **(options or {})}
        self._configure("[related_images]", *(f"{k} = {v}" for k, v in given.items()))
        self._configure(glance_conf)

    def __enter__(self) -> "ServedGlance":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def purge(self, image_id: str) -> None:
        """Remove the rows of the image, as ``glance-manage db purge_images_table`` does."""
        with closing(sqlite3.connect(self.directory / "glance.db", PATIENCE)) as glance, glance:
            for rows in (
                "DELETE FROM image_locations WHERE image_id = ?",
                "DELETE FROM image_members WHERE image_id = ?",
                "DELETE FROM image_properties WHERE image_id = ?",
                "DELETE FROM image_tags WHERE image_id = ?",
            ):
                glance.execute(rows, (image_id,))
            gone = glance.execute("DELETE FROM images WHERE id = ?", (image_id,))
            assert gone.rowcount == 1

    @staticmethod
    def token(user: str, project: str, *roles: str) -> str:
        return f"{user}:{project}:{','.join(roles or ('member',))}"

    def request(
        self,
        method: str,
        path: str,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Send one request; a ``body`` that is not bytes is sent as JSON."""
        identity = {"X-Auth-Token": token} if token else {}
        return ask(self.port, method, path, {**identity, **(headers or {})}, body)

    def start(self) -> None:
        greeted = self._greetings()

        def greets() -> None:
            assert self._greetings() > greeted

        arguments = ["serve", "--port", str(self.port), "--data-dir", str(self.directory)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RELATED_IMAGES, *arguments],
                env=_environment(self._paste),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_until(greets, self._process, (AssertionError,))
        except TimeoutError as error:
            self.kill()
            raise AssertionError(f"serve does not answer: {self.log.read_text()}") from error

    def stop(self) -> None:
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all its processes with SIGKILL."""
        self.end(signal.SIGKILL)

    def end(self, sent: signal.Signals) -> int:
        """Send a signal to all its processes, as a terminal does; return the exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, sent)
        return process.wait(PATIENCE)

    def restart(self) -> None:
        self.stop()
        self.start()

    def lose_tables(self) -> None:
        """Make the database unusable for the filter from the next request on."""
        with closing(sqlite3.connect(self.directory / "related-images.db")) as connection:
            connection.execute("DROP TABLE related_relation")
            connection.commit()

    def peak_memory(self) -> int:
        """Return the peak memory of the worker in bytes since the last call, and reset it."""
        worker = Path(f"/proc/{self._worker()}")
        status = dict(line.split(":", 1) for line in (worker / "status").read_text().splitlines())
        (worker / "clear_refs").write_text("5")
        return int(status["VmHWM"].split()[0]) * 1024

    def _worker(self) -> int:
        assert self._process is not None
        master = self._process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])

    def _greetings(self) -> int:
        return self.log.read_text().count(self.url) if self.log.exists() else 0

    def _configure(self, *lines: str) -> None:
        with (self.directory / "glance-api.conf").open("a") as file:
            file.write("\n".join(["", *lines, ""]))


def ask(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Answer:
    """Send one request to a server on loopback; a ``body`` that is not bytes is sent as JSON."""
    sent, content = as_body(body)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, content, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, Headers(response.getheaders()), response.read())
    finally:
        connection.close()


def paste_without(directory: Path, *filters: str) -> Path:
    """Copy the shipped paste file without ``filters`` in its pipelines; return its path."""
    lines = [_without(line, filters) for line in SHIPPED_PASTE.read_text().splitlines()]
    path = directory / "paste.ini"
    path.write_text("\n".join(lines))
    return path


def _without(line: str, filters: tuple[str, ...]) -> str:
    if not line.startswith("pipeline ="):
        return line
    return " ".join(word for word in line.split() if word not in filters)


def as_body(body: Any) -> tuple[dict[str, str], bytes | None]:
    """Return the headers and the bytes of ``body``."""
    if body is None:
        return {}, None
    if isinstance(body, bytes):
        return {"Content-Type": "application/octet-stream"}, body
    return {"Content-Type": "application/json"}, json.dumps(body).encode()


def _environment(paste: Path | None) -> dict[str, str]:
    inherited = {name: text for name, text in os.environ.items() if name != glance.PASTE_FILE}
    return inherited | ({glance.PASTE_FILE: str(paste), "PYTHONPATH": str(ROOT)} if paste else {})


def _program(name: str) -> str:
    places = [os.environ.get("PATH", ""), "/usr/sbin", *sorted(glob("/usr/lib/postgresql/*/bin"))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise ServerMissing(f"{name} is not installed on this machine")
    return found


def _run(command: list[str], **options: Any) -> None:
    result = subprocess.run(command, capture_output=True, check=False, cwd="/", **options)
    if result.returncode:
        raise AssertionError(f"{command[0]} failed: {result.stdout!r} {result.stderr!r}")


@contextmanager
def _process(
    command: list[str],
    answers: Callable[[], None],
    end: signal.Signals,
    *not_yet: type[Exception],
    **options: Any,
) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd="/", **options)
    try:
        _wait_until(answers, process, not_yet)
        yield
    finally:
        process.send_signal(end)
        process.wait(PATIENCE)


def _wait_until(
    answers: Callable[[], None],
    process: subprocess.Popen[bytes],
    not_yet: tuple[type[Exception], ...],
) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return answers()
        except not_yet:
            time.sleep(0.05)
    raise TimeoutError(f"{process.args!r} does not answer")
