"""Doing to a database server what befalls one: it hangs, it drops its connections, it is locked."""

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
    """Run statements from outside; gives the first column of what the last one found."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.execute(text(statement))
        result = connection.execute(text(statements[-1]))
        return [str(value) for value in result.scalars()] if result.returns_rows else []


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Every process of the server is stopped: it takes connections, and answers nothing."""
    pids = _server_pids(url)
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


@contextmanager
def locked(url: str, statement: str | None = None) -> Iterator[None]:
    """Another holds the tables for itself, or what the ``statement`` locks."""
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
    """Another service, which says these words to whoever connects; gives its port."""

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
    """A host that takes connections and says nothing; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield server.getsockname()[1]


def drop_connections(url: str) -> None:
    """End every connection to this database, as a restart does."""
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
    """Make the database one to read only; gives the URL under which it is."""
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
        with suppress(ProcessLookupError):  # one that served a connection of before
            os.kill(pid, number)
