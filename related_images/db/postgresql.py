"""Connections of psycopg with a deadline, direct or through a pooler such as PgBouncer.

libpq has no read timeout, and a server that hangs does not enforce its ``statement_timeout``. The
waits of psycopg are generators (:func:`psycopg.waiting.wait`), so that this module can end them.
"""

import time
from collections.abc import Generator, Mapping
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict
from sqlalchemy import Engine, event

from related_images.db.deadline import deadline

Awaited = TypeVar("Awaited")
Ready = TypeVar("Ready")
Result = TypeVar("Result")

_OWN: Final = ("context", "prepare_threshold")
"""The parameters of :meth:`psycopg.Connection.connect` that are not parameters of libpq."""

_REFUSED: Final = "unsupported startup parameter"
"""Part of the error with which PgBouncer refuses the parameter ``options``."""


class NoAnswer(psycopg.OperationalError):
    """The server did not respond before the deadline."""


class Connection(psycopg.Connection[Any]):
    """A connection whose waits end at the :data:`deadline` of the current thread."""

    is_pooled = False
    """Whether a pooler may run each transaction in another server process."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait as :meth:`psycopg.Connection.wait` does, until the deadline.

        :raises NoAnswer: if the deadline has passed; the connection is closed then
        """
        try:
            return super().wait(_in_time(gen, deadline.end), *args, **kwargs)
        except NoAnswer:
            self.close()  # a late response must not be read as that of the next statement
            raise

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Any:
        return _in_time(super()._connect_gen(*args, **kwargs), deadline.end)


def _in_time(
    steps: Generator[Awaited, Ready, Result], end: float
) -> Generator[Awaited, Ready, Result]:
    """Run the generator ``steps``, and raise :exc:`NoAnswer` after ``end``."""
    try:
        awaited = next(steps)
        while True:
            # psycopg resumes the generator at least every 0.1 s
            ready = yield awaited
            if time.monotonic() > end:
                raise NoAnswer("the server did not respond in time")
            awaited = steps.send(ready)
    except StopIteration as over:
        result: Result = over.value
        return result


class Connector:
    """Opens the connections of an engine.

    :param seconds: the timeout of a connection, for all hosts of the URL together
    :param limits: the server settings of each session, by name
    """

    def __init__(self, seconds: float, limits: Mapping[str, object]) -> None:
        self._seconds = seconds
        self._limits = limits
        self._options_refused = False

    def prepare(self, engine: Engine) -> None:
        """Install this connector in the ``engine``."""
        event.listen(engine, "do_connect", self._connect)
        dialect: Any = engine.dialect
        dialect.do_begin = self._limit

    def _connect(
        self, _dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]
    ) -> Connection:
        own: dict[str, Any] = {name: parameters.pop(name) for name in _OWN if name in parameters}
        hosts = conninfo_attempts(conninfo_to_dict(**parameters))
        errors: list[psycopg.OperationalError] = []
        with deadline.within(self._seconds):
            for left, host in zip(range(len(hosts), 0, -1), hosts, strict=True):
                # a host that does not respond must leave time for the others
                with deadline.within((deadline.end - time.monotonic()) / left):
                    try:
                        return self._open(dict(host), own)
                    except psycopg.OperationalError as error:
                        errors.append(error)
        raise _combine(errors)

    def _open(self, host: dict[str, Any], own: Mapping[str, Any]) -> Connection:
        given = host.pop("options", "")
        if self._options_refused:
            return _opened({**host, "options": given}, own)
        ours = " ".join(f"-c {name}={value}" for name, value in self._limits.items())
        try:
            return _opened({**host, "options": f"{given} {ours}".strip()}, own)
        except psycopg.OperationalError as error:
            if _REFUSED not in str(error):
                raise
        opened = _opened({**host, "options": given}, own)
        self._options_refused = True
        return opened

    def _limit(self, pooled: Any) -> None:
        """Set the limits for one transaction, if a pooler shares the server process."""
        connection: Connection = pooled.driver_connection
        if connection.is_pooled and not connection.autocommit and self._limits:
            settings = ", ".join(
                f"set_config('{name}', '{value}', true)" for name, value in self._limits.items()
            )
            connection.execute(f"SELECT {settings}")


def _opened(host: dict[str, Any], own: Mapping[str, Any]) -> Connection:
    if not host["options"]:
        del host["options"]
    connection = Connection.connect(autocommit=True, **host, **own)
    (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
    connection.is_pooled = process != connection.info.backend_pid
    if connection.is_pooled and "prepare_threshold" not in own:
        # a prepared statement exists in one server process only
        connection.prepare_threshold = None
    connection.autocommit = False
    return connection


def _combine(errors: list[psycopg.OperationalError]) -> psycopg.OperationalError:
    """Return one error with the messages of all hosts."""
    if len(errors) == 1:
        return errors[0]
    return type(errors[-1])("; ".join(str(error) for error in errors))
