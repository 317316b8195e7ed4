"""Column types: compact, exact, and with the same behavior on every database.

A page reads a thousand values. So each type has functions of its own for parameters and for values
of a result, where :class:`~sqlalchemy.types.TypeDecorator` would call two or three for each value.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    Uuid,
    literal,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from related_images.model import (
    BACKFILL,
    BACKUP,
    BOOT,
    CINDER_API,
    CINDER_BUS,
    MANUAL,
    NOTIFICATION,
    NOVA_API,
    NOVA_BUS,
    SERVICE,
    SHELVED,
    SNAPSHOT,
    USE,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

KIND_CODES: Final = {SNAPSHOT: 1, BACKUP: 2, BOOT: 3, SHELVED: 4, USE: 5}
SOURCE_CODES: Final = {SERVICE: 1, NOTIFICATION: 2, BACKFILL: 3, MANUAL: 4}
WITNESS_CODES: Final = {NOVA_API: 1, NOVA_BUS: 2, CINDER_API: 3, CINDER_BUS: 4}
"""The numbers that rows hold for words. A released code never changes its meaning."""

UNKNOWN: Final = "unknown"
"""The word for a code that a newer version wrote and this version does not know."""

KEY: Final = BigInteger().with_variant(Integer, "sqlite")
"""The type of a primary key; SQLite generates keys only in a column of type INTEGER."""


Value = TypeVar("Value")
Read = Callable[[Any], Value]
"""Converts a value of a result, as the driver returns it, to that of Python."""
Write = Callable[[Any], Any]
"""Converts a parameter to what the driver takes."""


class UuidText(TypeDecorator[str]):
    """A UUID: lower-case text in Python, ``uuid`` in PostgreSQL, 16 bytes in other databases."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=False))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.BINARY(16))
        return dialect.type_descriptor(LargeBinary(16))

    def bind_processor(self, dialect: Dialect) -> Write | None:
        if dialect.name == "postgresql":
            return self.load_dialect_impl(dialect).bind_processor(dialect)
        return _write_uuid

    def result_processor(self, dialect: Dialect, coltype: Any) -> Read[str | None] | None:
        if dialect.name == "postgresql":
            return self.load_dialect_impl(dialect).result_processor(dialect, coltype)
        return _read_uuid


def _write_uuid(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text.replace("-", ""))


def _read_uuid(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC, stored as microseconds since 1970: eight bytes, in the order of time."""

    impl = BigInteger
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Write:
        return _write_time

    def result_processor(self, dialect: Dialect, coltype: Any) -> Read[datetime | None]:
        return _read_time


def _write_time(time: datetime | None) -> int | None:
    return None if time is None else (time - EPOCH) // MICROSECOND


def _read_time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else EPOCH + microseconds * MICROSECOND


class Coded(TypeDecorator[str]):
    """A word from a fixed set, stored as a small number.

    A code without a word is read as :data:`UNKNOWN`, so that during an upgrade an older version can
    read the rows of a newer one.

    :param codes: the code of each word
    """

    impl = SmallInteger
    cache_ok = True

    def __init__(self, codes: dict[str, int]) -> None:
        super().__init__()
        self.codes = tuple(codes.items())
        self._code_of: dict[str | None, int | None] = dict(codes.items())
        self._code_of[None] = None
        self._word_of: dict[int | None, str | None] = {code: word for word, code in codes.items()}
        self._word_of[None] = None

    def bind_processor(self, dialect: Dialect) -> Write:
        return self._code_of.__getitem__

    def result_processor(self, dialect: Dialect, coltype: Any) -> Read[str | None]:
        word_of = self._word_of.get
        return lambda code: word_of(code, UNKNOWN)


class IdList(TypeDecorator[tuple[str, ...]]):
    """IDs, which have no spaces, stored as a text with spaces between them; empty if it is null."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Write:
        return lambda ids: None if ids is None else " ".join(ids)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Read[tuple[str, ...]]:
        return lambda text: tuple(text.split()) if text else ()


def is_known(column: ColumnElement[str], codes: dict[str, int]) -> ColumnElement[bool]:
    """Return the condition that this version knows the code in the column.

    :param codes: the codes of that column: :data:`KIND_CODES` or :data:`SOURCE_CODES`
    """
    # one parameter for each code: SQLAlchemy expands a list parameter at each execution
    return column.in_([literal(word, column.type) for word in codes])


def exact_text(length: int) -> TypeEngine[str]:
    """Return a text type that compares exactly, case included, on every database.

    :param length: the maximum, in characters
    """
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
