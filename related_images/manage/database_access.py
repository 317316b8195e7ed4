"""Open the database of a command, and explain why it cannot be used."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from related_images import config
from related_images.db import circuit_breaker, dialects, schema
from related_images.db.database import Database, usable
from related_images.errors import ConfigurationError, StoreUnavailable
from related_images.manage import paste_file

TIMEOUT: Final = 20.0
"""Seconds that a command waits for the database."""


@contextmanager
def open_database(args: argparse.Namespace) -> Iterator[Database]:
    """Open the database of a command, after a check of its schema.

    :param args: the parsed arguments
    :raises ConfigurationError: if the setting of the database is missing or malformed
    :raises StoreUnavailable: if the database or its schema cannot be used; also from the body of
        the ``with`` statement. The message has the reason and the next step.
    """
    with connected(args) as connection:
        schema.verify(connection)
    with database_url(args) as url:
        # the command prints the error itself
        logging.getLogger(circuit_breaker.__name__).setLevel(logging.CRITICAL)
        yield Database(url.render_as_string(hide_password=False), TIMEOUT)


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Connection]:
    """Connect to the database of a command, without a check of its schema.

    :param args: the parsed arguments
    :raises ConfigurationError: see :func:`open_database`
    :raises StoreUnavailable: see :func:`open_database`
    """
    with database_url(args) as url:
        _require_file(url)
        with schema.connected(url) as connection:
            yield connection


@contextmanager
def database_url(args: argparse.Namespace) -> Iterator[URL]:
    """Yield the URL of the database of a command.

    :param args: the parsed arguments
    :raises ConfigurationError: see :func:`open_database`
    :raises StoreUnavailable: see :func:`open_database`
    """
    with at(_connection(args)) as url:
        yield url


@contextmanager
def at(connection: str) -> Iterator[URL]:
    """Yield the URL of a database, and explain the errors of the body of the ``with`` statement.

    :param connection: the value of the setting ``connection``
    :raises ConfigurationError: if it is malformed
    :raises StoreUnavailable: if the body cannot use the database
    """
    url = usable(connection)
    try:
        yield url
    except DBAPIError as error:
        raise _failure(url, error) from error
    except StoreUnavailable as error:
        if isinstance(error.__cause__, DBAPIError):
            raise _failure(url, error.__cause__) from error
        raise type(error)(f"{dialects.shown(url)}: {error}") from error


def _connection(args: argparse.Namespace) -> str:
    files = config.files_in(args.config_file, args.config_dir)
    if args.paste is not None:
        return paste_file.connection(args.paste, files)
    local = {} if args.connection is None else {"connection": args.connection}
    connection = config.load("command line", local, config.read(files)).connection
    if is_default(args, connection) and _reads_files(args):
        raise ConfigurationError(
            f"no configuration file sets the database: {', '.join(files) or 'no file found'}; "
            f"set `connection` in [{config.GROUP}] of a file, or use --connection"
        )
    return connection


def is_default(args: argparse.Namespace, connection: str) -> bool:
    """Return whether the database is the default one, and the command line does not name it.

    :param args: the parsed arguments
    :param connection: the URL of the database
    """
    return args.connection is None and connection == config.DEFAULT_CONNECTION


def _reads_files(args: argparse.Namespace) -> bool:
    return bool(args.config_file or args.config_dir)


def _require_file(url: URL) -> None:
    """Raise if the file of a SQLite database is missing: SQLite would create it."""
    path = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and not path.startswith("file:")
    if is_file and not Path(path).exists():
        raise StoreUnavailable(f"the file does not exist; to create it, {dialects.UPGRADE}")


def _failure(url: URL, error: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"{dialects.shown(url)} cannot be used: {dialects.said(error.orig, url)}; check the "
        "address, that the database server is running, and that this user may read and write"
    )
