"""Column types."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import insert, select, text

from related_images import model
from related_images.db import column_types, stored_state
from related_images.db.database import Database
from related_images.db.tables import image, relation
from related_images.model import Installation, ServiceUser
from tests.db.samples import NOVA, image_id, new, record


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (column_types.KIND_CODES, model.KINDS),
        (column_types.SOURCE_CODES, model.SOURCES),
    ],
)
def test_every_kind_and_source_of_the_model_has_a_code_of_its_own(
    codes: dict[str, int], words: tuple[str, ...]
) -> None:
    assert set(codes) == set(words)
    assert len(set(codes.values())) == len(words)
    assert column_types.UNKNOWN not in words


def test_released_codes_do_not_change() -> None:
    assert column_types.KIND_CODES == {
        "snapshot": 1,
        "backup": 2,
        "boot": 3,
        "shelved": 4,
        "use": 5,
    }
    assert column_types.SOURCE_CODES == {
        "service": 1,
        "notification": 2,
        "backfill": 3,
        "manual": 4,
    }


@pytest.mark.parametrize(
    "time",
    [
        column_types.EPOCH,
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 21, 12, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 7, 1, 14, 0, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times_are_stored_exactly_and_read_in_utc(database: Database, time: datetime) -> None:
    uuid = image_id()
    database.write(
        lambda connection: (
            connection.execute(insert(image).values(uuid=uuid, deleted_at=time)).rowcount
        )
    )
    found = database.read(
        lambda connection: connection.execute(
            select(image.c.deleted_at).where(image.c.uuid == uuid)
        ).scalar_one()
    )
    assert found == time
    assert found.utcoffset() == timedelta(0)


def test_a_uuid_is_read_in_lower_case(database: Database) -> None:
    upper = "6F0C3A3E-3F1C-4A53-9B0C-0D5A6C1F2EFF"
    record(database, new(image=upper))
    found = database.read(lambda connection: connection.execute(select(image.c.uuid)).scalar_one())
    assert found == upper.lower()


def test_words_are_stored_as_small_numbers(database: Database) -> None:
    record(database, new(kind="boot", source="manual"))
    row = database.read(
        lambda connection: connection.execute(
            text(f"SELECT kind, source FROM {relation.name}")  # noqa: S608
        ).one()
    )
    assert tuple(row) == (3, 4)


def test_a_stored_value_is_replaced(database: Database) -> None:
    for value in ("one", "two"):
        database.write(stored_state.put, "name", value)
    assert database.read(stored_state.get, "name") == "two"
    assert database.read(stored_state.get, "another") is None


def test_names_may_contain_any_character(database: Database) -> None:
    from related_images.db import installations

    given = Installation(NOVA, "Zürich-東京-🚀", (ServiceUser("東京"),), column_types.EPOCH)
    database.write(installations._register, given)
    assert database.read(installations._find, NOVA) == given
