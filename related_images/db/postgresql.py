"""psycopg under a deadline, directly or through a pooler such as PgBouncer.

libpq has no limit on an answer, and a hung server does not keep its own limit on a statement.
psycopg yields wherever it would wait, so that a wait can be ended there.
"""

import time
from collections.abc import Generator, Mapping
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict
from sqlalchemy import Connection as Session
from sqlalchemy import Engine, event

from related_images.db.deadline import deadline

Awaited = TypeVar("Awaited")
Ready = TypeVar("Ready")
Result = TypeVar("Result")

_OWN: Final = ("context", "prepare_threshold")
"""What psycopg takes beside the parameters of libpq."""

_REFUSED: Final = "unsupported startup parameter"
"""What PgBouncer says of the parameter ``options``."""


class NoAnswer(psycopg.OperationalError):
    """The server did not answer by the deadline."""


class Connection(psycopg.Connection[Any]):
    """A connection of which each wait ends by the :data:`deadline` of the thread that waits."""

    is_pooled = False
    """Whether a pooler is in between, which may give each transaction to another server process."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().wait(_in_time(gen, deadline.end), *args, **kwargs)
        except NoAnswer:
            self.close()  # the answer may come yet, to whoever asks next
            raise

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Any:
        return _in_time(super()._connect_gen(*args, **kwargs), deadline.end)


def _in_time(
    steps: Generator[Awaited, Ready, Result], end: float
) -> Generator[Awaited, Ready, Result]:
    """The same steps, as long as there is time for them."""
    try:
        awaited = next(steps)
        while True:
            # psycopg goes on after a tenth of a second at the latest, ready or not
            ready = yield awaited
            if time.monotonic() > end:
                raise NoAnswer("the server did not answer in time")
            awaited = steps.send(ready)
    except StopIteration as over:
        result: Result = over.value
        return result


class Connector:
    """Opens connections for an engine, each within ``seconds`` whichever of the hosts answers.

    :param limits: settings of the server for each session, by name
    """

    def __init__(self, seconds: float, limits: Mapping[str, object]) -> None:
        self._seconds = seconds
        self._limits = limits
        self._options_refused = False

    def prepare(self, engine: Engine) -> None:
        """Have the ``engine`` connect in this way."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "begin", self._limit)

    def _connect(
        self, _dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]
    ) -> Connection:
        own: dict[str, Any] = {name: parameters.pop(name) for name in _OWN if name in parameters}
        hosts = conninfo_attempts(conninfo_to_dict(**parameters))
        errors: list[psycopg.OperationalError] = []
        with deadline.within(self._seconds):
            for left, host in zip(range(len(hosts), 0, -1), hosts, strict=True):
                # a host that is silent must leave some time to the others
                with deadline.within((deadline.end - time.monotonic()) / left):
                    try:
                        return self._open(dict(host), own)
                    except psycopg.OperationalError as error:
                        errors.append(error)
        raise _first_of(errors)

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

    def _limit(self, session: Session) -> None:
        """Limit this transaction where the server process that runs it is known to no session."""
        connection: Any = session.connection.driver_connection
        if connection.is_pooled and not connection.autocommit and self._limits:
            settings = ", ".join(
                f"set_config('{name}', '{value}', true)" for name, value in self._limits.items()
            )
            session.exec_driver_sql(f"SELECT {settings}")


def _opened(host: dict[str, Any], own: Mapping[str, Any]) -> Connection:
    if not host["options"]:
        del host["options"]
    connection = Connection.connect(autocommit=True, **host, **own)
    (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
    connection.is_pooled = process != connection.info.backend_pid
    if connection.is_pooled and "prepare_threshold" not in own:
        # what was prepared by one server process is not known to the next
        connection.prepare_threshold = None
    connection.autocommit = False
    return connection


def _first_of(errors: list[psycopg.OperationalError]) -> psycopg.OperationalError:
    """One error that says what each host did."""
    if len(errors) == 1:
        return errors[0]
    return type(errors[-1])("; ".join(str(error) for error in errors))
