from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from related_images.errors import (
    BadInput,
    LimitMalformed,
    MarkerUnknown,
    ParameterMalformed,
    ParameterUnknown,
)
from related_images.middleware import paging
from related_images.middleware.route_request import query_of
from related_images.model import (
    Instance,
    InstancePosition,
    Relation,
    RelationPosition,
)
from related_images.protocol import parameters

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOON = datetime(2026, 1, 31, 12, 0, 0, 7, tzinfo=UTC)
RELATION = Relation(
    UUID, "i:1|".strip("|"), UUID, "backup", None, "service", "secret", NOON, None, None
)
INSTANCE = Instance(UUID, "i:1", "secret", None, None, {})
READERS: list[Callable[[str | None], object]] = [
    paging.relation_position,
    paging.instance_position,
]


def given_in(query: str) -> paging.Parameters:
    return query_of({"QUERY_STRING": query})


@pytest.mark.parametrize("kind", ["backup", "kind-of-a-newer-version"])
def test_marker_round_trip(kind: str) -> None:
    position = RelationPosition(NOON, UUID, "i:1", UUID, kind)
    marker = paging.relation_marker(replace(RELATION, kind=kind))
    assert paging.relation_position(marker) == position
    assert paging.instance_position(paging.instance_marker(INSTANCE)) == InstancePosition(
        UUID, "i:1", None
    )


def test_marker_keeps_latest_at_of_an_instance() -> None:
    overdue = Instance(UUID, "i:1", None, None, None, {}, latest_at=NOON)
    place = InstancePosition(UUID, "i:1", NOON)
    assert paging.instance_position(paging.instance_marker(overdue)) == place


@pytest.mark.parametrize("read", READERS)
def test_missing_marker_gives_no_position(read: Callable[[str | None], object]) -> None:
    assert read(None) is None


def test_longest_id_round_trip_in_a_marker() -> None:
    longest = Instance(UUID, "x" * 255, None, None, None, {})
    assert paging.instance_position(paging.instance_marker(longest)) == InstancePosition(
        UUID, "x" * 255, None
    )


def test_marker_of_another_list_is_refused() -> None:
    with pytest.raises(MarkerUnknown):
        paging.instance_position(paging.relation_marker(RELATION))
    with pytest.raises(MarkerUnknown):
        paging.relation_position(paging.instance_marker(INSTANCE))


@pytest.mark.parametrize("read", READERS)
@given(marker=st.text() | st.from_regex("[A-Za-z0-9_=-]*", fullmatch=True))
def test_forged_marker_is_refused(read: Callable[[str | None], object], marker: str) -> None:
    with pytest.raises(MarkerUnknown):
        read(marker)


@pytest.mark.parametrize(
    ("text", "limit"), [("1", 1), ("100", 100), ("1000", 1000), ("1001", 1000), ("999999999", 1000)]
)
def test_limit_is_reduced_to_the_maximum(text: str, limit: int) -> None:
    assert paging.read(given_in(f"limit={text}"), parameters.PAGE).limit == limit


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "1e3", "%D9%A3", "9" * 5000, "%001"])
def test_malformed_limit_is_refused(text: str) -> None:
    with pytest.raises(LimitMalformed):
        paging.read(given_in(f"limit={text}"), parameters.PAGE)


def test_links_keep_all_parameters_except_the_marker() -> None:
    query = paging.read(
        given_in("kind=boot&limit=2&marker=m&label=a%3Ab"), parameters.FILTERS | parameters.PAGE
    )
    assert query.kept == [("kind", "boot"), ("limit", "2"), ("label", "a:b")]
    assert query.marker == "m"
    assert query.filters == {"kind": "boot", "label": "a:b"}


def test_unknown_parameter_is_refused_and_known_ones_are_named() -> None:
    with pytest.raises(
        ParameterUnknown, match="'sort_key' is unknown; allowed are: installation_uuid, "
    ):
        paging.read(given_in("sort_key=x"), parameters.FILTERS)


def test_route_without_parameters_refuses_a_query() -> None:
    with pytest.raises(ParameterUnknown, match="'limit' is unknown; this route has no parameters"):
        paging.read(given_in("limit=1"), {})


def test_missing_required_parameter_is_named() -> None:
    with pytest.raises(ParameterMalformed, match="image_ids is missing"):
        paging.read([], parameters.USAGE_FILTERS)


def test_repeated_parameter_is_refused() -> None:
    with pytest.raises(ParameterMalformed, match="twice"):
        paging.read(given_in("limit=1&limit=1"), parameters.PAGE)


WRONG = [
    *("installation_uuid=x", "instance_id=a%20b", "instance_id=", "image_id=x", "project_id="),
    "project_id=p-1%20",
    *("project_id=%00", "project_id=" + "x" * 256, "kind=image", "label=a%20b", "source=user"),
    *("created_after=yesterday", "created_before=", "latest_before=x"),
]


@pytest.mark.parametrize("query", WRONG)
def test_malformed_filter_is_refused(query: str) -> None:
    with pytest.raises(BadInput):
        paging.read(given_in(query), parameters.INSTANCE_FILTERS)


@given(st.text())
def test_any_query_is_parsed_or_refused(query: str) -> None:
    try:
        read = paging.read(given_in(query), parameters.INSTANCE_FILTERS | parameters.PAGE)
    except BadInput:
        return
    assert 1 <= read.limit <= 1000
