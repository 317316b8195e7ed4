import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from related_images import model, validation
from related_images.errors import (
    FieldInvalid,
    ImageIdMalformed,
    KindUnknown,
    LabelMalformed,
    ParameterMalformed,
    TupleMalformed,
)

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOT_UUIDS = ["", UUID[:-1], UUID + "\n", "{" + UUID + "}", UUID.replace("-", ""), "g" * 36, "x", 7]
NOT_IDS = ["", "a" * 256, "a b", "a\n", "a/b", "ä", "a,b", None, 3]


@pytest.mark.parametrize("text", NOT_UUIDS)
def test_malformed_installation_uuid_is_refused(text: object) -> None:
    with pytest.raises(TupleMalformed, match="generate-installation-uuid"):
        validation.installation_uuid(text)


@pytest.mark.parametrize("text", [*NOT_UUIDS, UUID.upper()])
def test_image_id_must_be_in_lower_case(text: object) -> None:
    with pytest.raises(ImageIdMalformed):
        validation.image_id(text)


@pytest.mark.parametrize("text", NOT_IDS)
def test_malformed_server_id_is_refused(text: str) -> None:
    with pytest.raises(TupleMalformed):
        model.InstanceRef(UUID, text)


def test_installation_uuid_is_stored_in_lower_case() -> None:
    assert model.InstanceRef(UUID.upper(), "i") == model.InstanceRef(UUID, "i")


def test_longest_ids_and_labels_are_accepted() -> None:
    assert model.InstanceRef(UUID, "a.Z_0:-" + "x" * 248).instance_id.endswith("x")
    assert validation.label("l" * 64) == "l" * 64


@pytest.mark.parametrize("text", ["", "l" * 65, "a b", "ä", 3])
def test_malformed_label_is_refused(text: object) -> None:
    with pytest.raises(LabelMalformed):
        validation.label(text)


@pytest.mark.parametrize("text", ["", "Backup", "backup ", "image", None, ["backup"]])
def test_unknown_kind_is_refused(text: object) -> None:
    with pytest.raises(KindUnknown, match="snapshot, backup, shelved, boot, use"):
        model.kind(text)


def test_allowed_kinds_can_be_restricted() -> None:
    assert model.kind("backup", model.MADE_FROM) == "backup"
    with pytest.raises(KindUnknown, match=r"allowed are snapshot, backup, shelved$"):
        model.kind("boot", model.MADE_FROM)


@pytest.mark.parametrize(
    "value", ["", "x" * 256, "a\0b", "a\nb", "\ud800", "a ", " a", " ", None, 3]
)
def test_unstorable_text_is_refused(value: object) -> None:
    assert not validation.is_text(value)
    with pytest.raises(FieldInvalid, match=r"^name="):
        validation.text("name", value)


def test_text_in_every_alphabet_is_accepted() -> None:
    assert validation.text("name", "Wolke 7, облако, 雲 🌥") == "Wolke 7, облако, 雲 🌥"


@given(st.text() | st.integers() | st.binary())
def test_shown_value_is_short_printable_ascii(value: object) -> None:
    text = validation.shown(value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 80


def test_times_are_formatted_in_utc() -> None:
    time = datetime(2026, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert validation.format_time(time) == "2026-01-31T12:00:00.000000Z"
    assert validation.format_seconds(time) == "2026-01-31T12:00:00Z"
    assert validation.format_time(None) is validation.format_seconds(None) is None


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))
def test_time_round_trip(time: datetime) -> None:
    assert validation.parse_time("created_after", str(validation.format_time(time))) == time


def test_time_without_a_zone_is_in_utc() -> None:
    assert validation.parse_time("t", "2026-01-31T12:00:00").tzinfo == UTC


@pytest.mark.parametrize("text", ["", "now", "2026-13-01", "0001-01-01T00:00:00+14:00", "x" * 99])
def test_malformed_time_is_refused_with_the_name_of_its_parameter(text: str) -> None:
    with pytest.raises(ParameterMalformed, match=r"^created_after="):
        validation.parse_time("created_after", text)


def test_a_time_before_the_year_1000_has_four_digits_of_a_year() -> None:
    time = validation.parse_time("since", "0683-08-26T13:23:33.98Z")
    assert validation.format_time(time) == "0683-08-26T13:23:33.980000Z"


def mapping(*snapshot_ids: object) -> str:
    return json.dumps([{"source_type": "snapshot", "snapshot_id": one} for one in snapshot_ids])


def test_block_device_mapping_has_each_volume_snapshot_once() -> None:
    assert validation.volume_snapshot_ids(mapping(UUID, UUID)) == (UUID,)
    assert validation.volume_snapshot_ids('[{"source_type": "blank"}]') == ()


@pytest.mark.parametrize(
    "given",
    [
        *(None, 5, [], {}, "", "5", "null", '"text"', "[5]", "[null]", "no JSON"),
        '[{"source_type": "snapshot"}]',
        mapping([UUID]),
        mapping(None),
        mapping("../volumes"),
        mapping(UUID.upper()),
        mapping(*(f"{number:08}{UUID[8:]}" for number in range(101))),
        "[" * 50_000,
        "[" + "9" * 50_000 + "]",
        " " * 65_534 + "[]",
    ],
)
def test_malformed_block_device_mapping_is_refused(given: object) -> None:
    with pytest.raises(ParameterMalformed, match="block_device_mapping") as raised:
        validation.volume_snapshot_ids(given)
    assert len(str(raised.value)) < 500
