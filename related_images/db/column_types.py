"""How values are laid down: small, exact, and the same on every database."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Uuid,
    literal,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from related_images.model import (
    BACKFILL,
    BACKUP,
    BOOT,
    MANUAL,
    NOTIFICATION,
    SERVICE,
    SNAPSHOT,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

KIND_CODES: Final = {SNAPSHOT: 1, BACKUP: 2, BOOT: 3}
SOURCE_CODES: Final = {SERVICE: 1, NOTIFICATION: 2, BACKFILL: 3, MANUAL: 4}
"""What stands in a row for a word. A code once released is never given to another word."""

UNKNOWN: Final = "unknown"
"""The word for every code that this version does not know, because a newer one wrote it."""

KEY: Final = BigInteger().with_variant(Integer, "sqlite")
"""A row's own number; SQLite numbers rows by itself only in a column of type INTEGER."""


class UuidText(TypeDecorator[str]):
    """A UUID as 16 bytes (PostgreSQL: its own type), in Python lower-case text."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=False))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.BINARY(16))
        return dialect.type_descriptor(LargeBinary(16))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return bytes.fromhex(value.replace("-", ""))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None or isinstance(value, str):
            return value
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC as microseconds since 1970: eight bytes everywhere, and it sorts."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MICROSECOND


class Coded(TypeDecorator[str]):
    """One of a few words as a small number.

    A code without a word is read as :data:`UNKNOWN`, so that an older version can read rows of a
    newer one during an upgrade.
    """

    impl = SmallInteger
    cache_ok = True

    def __init__(self, codes: dict[str, int]) -> None:
        super().__init__()
        self.codes = tuple(codes.items())
        self._code_of = dict(codes)
        self._word_of = {code: word for word, code in codes.items()}

    def process_bind_param(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else self._code_of[value]

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else self._word_of.get(value, UNKNOWN)


def is_known(column: ColumnElement[str], codes: dict[str, int]) -> ColumnElement[bool]:
    """Whether this version has a word for the code in the column.

    :param codes: the codes that the column holds: :data:`KIND_CODES` or :data:`SOURCE_CODES`
    """
    # each spelled out: a list of values is put into the statement anew at each execution
    return column.in_([literal(word, column.type) for word in codes])


def exact_text(length: int) -> TypeEngine[str]:
    """Text that is compared letter by letter, case included, on every database."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
