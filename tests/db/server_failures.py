"""Failures of a database server: it hangs, it closes connections, its tables are locked."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool


def run(url: str, *statements: str) -> list[str]:
    """Run statements on a connection of their own; return the first column of the last result."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.execute(text(statement))
        result = connection.execute(text(statements[-1]))
        return [str(value) for value in result.scalars()] if result.returns_rows else []


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Stop all processes of the server: it accepts connections and does not respond."""
    pids = _server_pids(url)
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


@contextmanager
def locked(url: str, statement: str | None = None) -> Iterator[None]:
    """Lock the tables, or what the ``statement`` locks, in another connection."""
    usual = {
        "sqlite": "BEGIN IMMEDIATE",
        "mysql": "LOCK TABLES related_relation WRITE, related_instance WRITE, related_state WRITE",
        "postgresql": "LOCK TABLE related_relation, related_instance, related_state",
    }[make_url(url).get_backend_name()]
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text(statement or usual))
        try:
            yield
        finally:
            connection.rollback()


@contextmanager
def saying(words: bytes) -> Iterator[int]:
    """Run a service that sends ``words`` to each client; yield its port."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(words)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def silent() -> Iterator[int]:
    """Run a service that accepts connections and sends nothing; yield its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield server.getsockname()[1]


def drop_connections(url: str) -> None:
    """Close all connections to this database, as a restart does."""
    if url.startswith("postgresql"):
        run(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return
    others = "SELECT id FROM information_schema.processlist WHERE db = database()"
    for number in run(url, f"{others} AND id <> connection_id()"):
        run(url, f"KILL {number}")


def refuse_writes(url: str) -> str:
    """Make the database read-only, and return the URL for it."""
    parsed = make_url(url)
    if url.startswith("sqlite"):
        return f"sqlite:///file:{parsed.database}?mode=ro&uri=true"
    if url.startswith("postgresql"):
        run(url, f"ALTER DATABASE {parsed.database} SET default_transaction_read_only = on")
        return url
    user = f"r{str(parsed.database)[:16]}"
    run(url, f"CREATE USER {user}", f"GRANT SELECT ON {parsed.database}.* TO {user}")
    return parsed.set(username=user).render_as_string(hide_password=False)


def _server_pids(url: str) -> list[int]:
    if url.startswith("postgresql"):
        (directory,) = run(url, "SHOW data_directory")
        pid = Path(directory, "postmaster.pid").read_text().split()[0]
    else:
        (file,) = run(
            url, "SELECT IF(@@pid_file LIKE '/%', @@pid_file, CONCAT(@@datadir, @@pid_file))"
        )
        pid = Path(file).read_text().strip()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid), *map(int, children)]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a process that served an earlier connection
            os.kill(pid, number)
