"""The way of a command to its database, and what it says when there is no way."""

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

PATIENCE: Final = 20.0
"""Seconds that a command waits for the database."""


@contextmanager
def open_database(given: argparse.Namespace) -> Iterator[Database]:
    """The database that the command line names, with the schema that this program needs.

    :raises ConfigurationError: if it names none that can be used
    :raises StoreUnavailable: with the reason and the next step
    """
    with inspected(given) as connection:
        schema.verify(connection)
    with named(given) as url:
        # a command fails once, and says so itself
        logging.getLogger(circuit_breaker.__name__).setLevel(logging.CRITICAL)
        yield Database(url.render_as_string(hide_password=False), PATIENCE)


@contextmanager
def inspected(given: argparse.Namespace) -> Iterator[Connection]:
    """A connection to the database that the command line names, whatever tables are there.

    :raises ConfigurationError: if it names none that can be used
    :raises StoreUnavailable: with the reason and the next step
    """
    with named(given) as url:
        _require_file(url)
        with schema.connected(url) as connection:
            yield connection


@contextmanager
def named(given: argparse.Namespace) -> Iterator[URL]:
    """The URL that the command line names; what fails at it is told with the next step.

    :raises ConfigurationError: if it names none that can be used
    :raises StoreUnavailable: with the reason and the next step
    """
    with at(_connection(given)) as url:
        yield url


@contextmanager
def at(connection: str) -> Iterator[URL]:
    """The URL in the setting ``connection``; what fails at it is told with the next step.

    :raises ConfigurationError: if it cannot be used
    :raises StoreUnavailable: with the reason and the next step
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


def _connection(given: argparse.Namespace) -> str:
    files = config.files_in(given.config_file, given.config_dir)
    if given.paste is not None:
        return paste_file.connection(given.paste, files)
    stated = {} if given.connection is None else {"connection": given.connection}
    found = config.load("command line", stated, config.read(files)).connection
    if found == config.DEFAULT_CONNECTION and given.connection is None and _reads_files(given):
        raise ConfigurationError(
            f"no configuration file names the database: {', '.join(files) or 'there is none'}; "
            f"write `connection` into [{config.GROUP}] of one, or name it with --connection"
        )
    return found


def _reads_files(given: argparse.Namespace) -> bool:
    return bool(given.config_file or given.config_dir)


def _require_file(url: URL) -> None:
    """Opening a SQLite file that is not there would make an empty one."""
    path = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and not path.startswith("file:")
    if is_file and not Path(path).exists():
        raise StoreUnavailable(f"there is no such file; {schema.UPGRADE} to make it")


def _failure(url: URL, error: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"{dialects.shown(url)} cannot be used: {dialects.said(error.orig, url)}; check that the "
        "address is right, that the server runs, and that this user may read and write there"
    )
