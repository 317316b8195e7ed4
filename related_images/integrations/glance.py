"""Run a real Glance with SQLite and a file store in one data directory.

Glance keeps its configuration in global variables, so a process can run only one.
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
"""The environment variable that sets the paste file of Glance."""

CONFIG_DIRECTORY = "OS_GLANCE_CONFIG_DIR"
"""The environment variable that sets the directory of Glance's configuration files."""
_CONFIG = "glance-api.conf"
_DATABASE = "glance.db"
_SYNCED = "glance-version"
_LOCK = "serve.lock"
_GRACE: Final = 5.0
"""Seconds until the worker of a killed `serve` has stopped."""

_GROWTH: Final = 10
"""The number of images must grow by this factor before ``ANALYZE`` runs again."""

_ANALYSIS_LIMIT: Final = 400
"""Rows of each index that ``ANALYZE`` reads, in milliseconds; SQLite advises 100 to 1000."""

_DIRECTORY_COMMENT: Final = "# in "
_CONFIG_TEXT = """\
{directory_comment}{directory}
# The Glance that `related-images serve` runs. This file is written once; you may change it.
# Glance uses the paste file of related-images unless {variable} is set.

[DEFAULT]
enabled_backends = local:file
enabled_import_methods = [glance-direct,web-download]
log_file = {directory}/glance-api.log

[database]
connection = sqlite:///{directory}/{database}?timeout=30
# the same file; with a connection of its own, reads do not wait for writes
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
    """Create the files of a Glance in ``directory`` that are missing, and configure this process.

    See :func:`configure` for the latter.

    :param directory: an absolute path
    :raises NotServed: if Glance or gunicorn is not installed, if the directory is not writable or
        is a copy of another directory, or if Glance cannot upgrade its database
    :raises ConfigurationError: if Glance's configuration cannot contain the path
    """
    _require_installed("glance", "gunicorn")
    _check_path(directory)
    with _explain_os_errors(directory):
        for name in ("images", "staging", "tasks"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        write_configuration(directory)
        _check_location(directory)
        _sync_database(directory)
        _analyze(directory / _DATABASE)
    configure(directory)


@contextmanager
def _explain_os_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotServed(
            f"the data directory {directory} cannot be used: {error.strerror}: {error.filename}; "
            "make it writable or choose another with --data-dir"
        ) from error


def claim(directory: Path) -> None:
    """Lock ``directory`` until this process ends, so that no other process serves it.

    The lock is an ``flock``, which the kernel releases even when the process is killed.

    :param directory: created if it is missing
    :raises NotServed: if another process serves the directory, or it is not writable
    """
    with _explain_os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _GRACE
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            owner = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise NotServed(
                f"the data directory {directory} is served by the process {owner}; stop it, or "
                "choose another directory with --data-dir"
            )
        time.sleep(0.1)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    # not closed, because that would release the lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_configuration(directory: Path) -> None:
    """Write ``glance-api.conf`` unless it exists.

    :param directory: the data directory
    """
    text = _CONFIG_TEXT.format(
        directory_comment=_DIRECTORY_COMMENT,
        directory=directory,
        database=_DATABASE,
        variable=PASTE_FILE,
    )
    with suppress(FileExistsError), (directory / _CONFIG).open("x", encoding="utf-8") as file:
        file.write(text)


def _check_location(directory: Path) -> None:
    """Raise if the directory was moved or copied: absolute paths, also in the database, are old."""
    text = (directory / _CONFIG).read_text("utf-8", "replace")
    paths = re.findall(rf"^\ufeff?{_DIRECTORY_COMMENT}(/.*)$", text, re.MULTILINE)
    if paths and Path(paths[0]).resolve() != directory.resolve():
        raise NotServed(
            f"the data directory {directory} was created as {paths[0]} and refers to files there; "
            "move it back, or choose an empty directory with --data-dir"
        )


def configure(directory: Path) -> None:
    """Set the environment variables of Glance, for this process and its children.

    :param directory: the data directory with ``glance-api.conf``
    """
    os.environ[CONFIG_DIRECTORY] = str(directory)
    os.environ.setdefault(PASTE_FILE, str(files("related_images.etc") / "paste.ini"))


def load_app() -> "WSGIApplication":
    """Return Glance's WSGI application, configured by the environment of this process."""
    from glance.common.wsgi_app import init_app

    app = cast("WSGIApplication", init_app())
    _begin_transactions_immediately()
    return app


def serve(directory: Path, listener: socket, threads: int, greeting: str) -> None:
    """Serve Glance until SIGTERM or SIGINT.

    :param directory: a directory after :func:`prepare`
    :param listener: a listening socket
    :param threads: the number of threads
    :param greeting: written to standard output after the first response
    :raises SystemExit: at the end
    """
    from related_images.integrations.http_server import HttpServer

    HttpServer(load_app, listener, threads, directory / "server.log", greeting).run()


def _begin_transactions_immediately() -> None:
    """Make each transaction of Glance acquire SQLite's write lock when it begins.

    Glance's transactions read before they write. If two of them run concurrently, SQLite fails one
    with SQLITE_BUSY immediately, whatever the timeout (https://sqlite.org/lang_transaction.html).
    """
    from glance.db.sqlalchemy.api import get_engine
    from sqlalchemy import event

    engine = get_engine()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "before_cursor_execute", _begin_immediate, retval=True)


def _begin_immediate(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters


def _require_installed(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotServed(
                f"{module} is not installed; run `pip install 'related-images[glance]'`"
            )


def _check_path(directory: Path) -> None:
    # Python decodes bytes that are not UTF-8 to lone surrogates
    unsupported = set(re.findall("[$?#\n\r\ud800-\udfff]", str(directory)))
    if unsupported:
        shown = " ".join(map(repr, sorted(unsupported)))
        raise ConfigurationError(
            f"the path of the data directory {str(directory)!r} has {shown}, which Glance's "
            "configuration cannot contain; choose another directory with --data-dir"
        )


def _sync_database(directory: Path) -> None:
    """Upgrade Glance's database with ``glance-manage db sync`` after Glance was upgraded."""
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
            f"Glance {version} cannot use {directory / _DATABASE}: {_reason(result.stderr)}; see "
            f"{log}; use the version of Glance that created it, or another --data-dir"
        )
    _use_wal(directory / _DATABASE)
    synced.write_text(version)


def _use_wal(database: Path) -> None:
    """Set SQLite's write-ahead log, so that reads do not wait for writes."""
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # SQLite stores the mode in the file


def _analyze(database: Path) -> None:
    """Update SQLite's statistics if there are many more images than at the last update.

    Without statistics SQLite reads all images to find ten by ID. Errors are ignored, because Glance
    works without statistics.
    """
    if not database.exists():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        (last,) = connection.execute("SELECT MAX(rowid) FROM images").fetchone()
        if (last or 0) > _GROWTH * _analyzed_images(connection):
            connection.execute(f"PRAGMA analysis_limit={_ANALYSIS_LIMIT}")
            connection.execute("ANALYZE")


def _analyzed_images(connection: sqlite3.Connection) -> int:
    """Return the number of images in SQLite's statistics."""
    query = "SELECT stat FROM sqlite_stat1 WHERE tbl = 'images' LIMIT 1"
    with suppress(sqlite3.OperationalError):  # before the first ANALYZE there is no such table
        for (stat,) in connection.execute(query):
            return int(stat.split()[0])
    return 0


def _reason(text: str) -> str:
    """Return the last error in the output of ``glance-manage``."""
    errors = re.findall(r"[\w.]+(?:Error|Exception): .+", text)
    return str(errors[-1]) if errors else "no reason given"
