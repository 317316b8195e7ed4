"""The embedded default: the real Glance, with SQLite and a file store under one data directory.

Glance keeps its configuration in globals, so there is one such Glance a process.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final, cast

from related_images.errors import ConfigurationError, NotServed
from related_images.integrations.development_identity import development_identity_factory

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = [
    "CONFIG_DIRECTORY",
    "PASTE_FILE",
    "claim",
    "configure",
    "development_identity_factory",
    "load_app",
    "prepare",
    "serve",
    "write_configuration",
]

PASTE_FILE = "OS_PASTE_DEPLOY__CONFIG_FILE"
"""The environment variable by which Glance takes another paste file than the shipped one."""

CONFIG_DIRECTORY = "OS_GLANCE_CONFIG_DIR"
_CONFIG = "glance-api.conf"
_DATABASE = "glance.db"
_SYNCED = "glance-version"
_LOCK = "serve.lock"
_GRACE: Final = 5.0
"""Seconds in which the processes of a `serve` that was killed notice it and end."""

_MUCH_MORE: Final = 10
_LOOKED_AT: Final = 400
"""Rows of each index, so that looking takes milliseconds; as SQLite's documentation advises."""

_HOME: Final = "# in "
_CONFIG_TEXT = """\
{home}{directory}
# The Glance that `related-images serve` runs. This file is written once: what you change stays.
# The pipeline is the one shipped with related-images unless {variable} names a file.

[DEFAULT]
enabled_backends = local:file
enabled_import_methods = [glance-direct,web-download]
log_file = {directory}/glance-api.log

[database]
connection = sqlite:///{directory}/{database}?timeout=30
# the same file, so that who only reads need not wait for who writes
slave_connection = sqlite:///{directory}/{database}?timeout=30

[glance_store]
default_backend = local

[local]
filesystem_store_datadir = {directory}/images

[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging

[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks

[related_images]
connection = sqlite:///{directory}/related-images.db
"""


def prepare(directory: Path) -> None:
    """Make ``directory`` the home of a Glance: what is missing is made, what is there stays.

    Afterwards this process and its children are configured for it, see :func:`configure`.

    :param directory: an absolute path
    :raises NotServed: if Glance or gunicorn is not installed, the directory cannot be written, or
        its database cannot be brought to the schema of the Glance installed
    :raises ConfigurationError: if the path cannot stand in Glance's configuration
    """
    _require_installed("glance", "gunicorn")
    _refuse_odd_path(directory)
    with _told_if_unusable(directory):
        for name in ("images", "staging", "tasks"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        write_configuration(directory)
        _refuse_copy(directory)
        _synchronise(directory)
        _have_counted(directory / _DATABASE)
    configure(directory)


@contextmanager
def _told_if_unusable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotServed(
            f"the data directory {directory} cannot be used: {error.strerror}: {error.filename}; "
            "make it writable or choose another with --data-dir"
        ) from error


def claim(directory: Path) -> None:
    """Keep every other process from serving ``directory`` for as long as this one runs.

    The lock is the file's, so that the kernel releases it however the process ends.

    :param directory: made if it is not there
    :raises NotServed: if another process serves it, or it cannot be written
    """
    with _told_if_unusable(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _GRACE
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            owner = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise NotServed(
                f"the data directory {directory} is served by another process, {owner}; stop "
                "that one, or choose another directory with --data-dir"
            )
        time.sleep(0.1)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    # left open on purpose: closing it would release the lock


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_configuration(directory: Path) -> None:
    """Write Glance's configuration into ``directory`` unless there is one."""
    text = _CONFIG_TEXT.format(
        home=_HOME, directory=directory, database=_DATABASE, variable=PASTE_FILE
    )
    with suppress(FileExistsError), (directory / _CONFIG).open("x", encoding="utf-8") as file:
        file.write(text)


def _refuse_copy(directory: Path) -> None:
    """Glance keeps absolute paths, in its database too: a copy would go on in the original."""
    text = (directory / _CONFIG).read_text("utf-8", "replace")
    homes = re.findall(rf"^\ufeff?{_HOME}(/.*)$", text, re.MULTILINE)
    if homes and Path(homes[0]).resolve() != directory.resolve():
        raise NotServed(
            f"the data directory {directory} was made as {homes[0]} and names its files there; "
            "move it back, or choose an empty directory with --data-dir"
        )


def configure(directory: Path) -> None:
    """Point this process and its children at the configuration in ``directory``."""
    os.environ[CONFIG_DIRECTORY] = str(directory)
    os.environ.setdefault(PASTE_FILE, str(files("related_images.etc") / "paste.ini"))


def load_app() -> "WSGIApplication":
    """Build Glance's WSGI application from the configuration of this process."""
    from glance.common.wsgi_app import init_app

    app = cast("WSGIApplication", init_app())
    _let_writers_queue()
    return app


def serve(directory: Path, listener: socket, threads: int, greeting: str) -> None:
    """Serve a prepared ``directory`` until SIGTERM or SIGINT; ends in :exc:`SystemExit`.

    :param listener: a listening socket
    :param greeting: written to standard output once the first request was answered
    """
    from related_images.integrations.http_server import HttpServer

    HttpServer(load_app, listener, threads, directory / "server.log", greeting).run()


def _let_writers_queue() -> None:
    """Have writers lock SQLite at their beginning.

    Glance reads before it writes; two such transactions side by side, and one fails at once,
    however long it might wait.
    """
    from glance.db.sqlalchemy.api import get_engine
    from sqlalchemy import event

    engine = get_engine()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "before_cursor_execute", _begin_immediately, retval=True)


def _begin_immediately(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters


def _require_installed(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotServed(
                f"{module} is not installed here; `pip install 'related-images[glance]'` brings it"
            )


def _refuse_odd_path(directory: Path) -> None:
    # what is no UTF-8 comes as lone surrogates
    odd = set(re.findall("[$?#\n\r\ud800-\udfff]", str(directory)))
    if odd:
        raise ConfigurationError(
            f"the data directory {str(directory)!r} has {' '.join(map(repr, sorted(odd)))} in its "
            "path, which Glance's configuration cannot hold; choose another with --data-dir"
        )


def _synchronise(directory: Path) -> None:
    """Bring Glance's database to the schema of the Glance installed, in a process of its own."""
    version = importlib.metadata.version("glance")
    synced = directory / _SYNCED
    if synced.exists() and synced.read_text() == version and (directory / _DATABASE).exists():
        return
    manage = [sys.executable, "-m", "glance.cmd.manage", "--config-file", str(directory / _CONFIG)]
    result = subprocess.run([*manage, "db", "sync"], capture_output=True, text=True, check=False)
    if result.returncode:
        log = directory / "glance-db-sync.log"
        log.write_text(result.stdout + result.stderr)
        raise NotServed(
            f"Glance {version} cannot use {directory / _DATABASE}: {_reason(result.stderr)}; "
            f"{log} has the rest. Use the Glance that made it, or another --data-dir"
        )
    _let_readers_go_on(directory / _DATABASE)
    synced.write_text(version)


def _let_readers_go_on(database: Path) -> None:
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # SQLite keeps it in the file


def _have_counted(database: Path) -> None:
    """Have SQLite look at what is there, if that became much more since it last did.

    Nothing else tells it, and not knowing it goes through all images to find ten by their ids.
    No start depends on it.
    """
    if not database.exists():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        (last,) = connection.execute("SELECT MAX(rowid) FROM images").fetchone()
        if (last or 0) > _MUCH_MORE * _counted(connection):
            connection.execute(f"PRAGMA analysis_limit={_LOOKED_AT}")
            connection.execute("ANALYZE")


def _counted(connection: sqlite3.Connection) -> int:
    """How many images SQLite found when it last looked."""
    asked = "SELECT stat FROM sqlite_stat1 WHERE tbl = 'images' LIMIT 1"
    with suppress(sqlite3.OperationalError):  # it never did, and has no such table
        for (stat,) in connection.execute(asked):
            return int(stat.split()[0])
    return 0


def _reason(text: str) -> str:
    """The last error that Glance's log names."""
    named = re.findall(r"[\w.]+(?:Error|Exception): .+", text)
    return str(named[-1]) if named else "no reason given"
