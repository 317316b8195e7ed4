from collections.abc import Callable
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


def given_in(query: str) -> paging.Given:
    return query_of({"QUERY_STRING": query})


def test_a_marker_leads_back_to_where_it_was_made() -> None:
    position = RelationPosition(NOON, UUID, "i:1", UUID, "backup")
    assert paging.relation_position(paging.relation_marker(RELATION)) == position
    assert paging.instance_position(paging.instance_marker(INSTANCE)) == InstancePosition(
        UUID, "i:1", None
    )


def test_a_marker_keeps_where_an_instance_stood_among_the_overdue() -> None:
    overdue = Instance(UUID, "i:1", None, None, None, {}, NOON)
    place = InstancePosition(UUID, "i:1", NOON)
    assert paging.instance_position(paging.instance_marker(overdue)) == place


@pytest.mark.parametrize("read", READERS)
def test_no_marker_is_no_position(read: Callable[[str | None], object]) -> None:
    assert read(None) is None


def test_the_longest_id_goes_through_a_marker() -> None:
    longest = Instance(UUID, "x" * 255, None, None, None, {})
    assert paging.instance_position(paging.instance_marker(longest)) == InstancePosition(
        UUID, "x" * 255, None
    )


def test_the_marker_of_one_list_is_none_of_another() -> None:
    with pytest.raises(MarkerUnknown):
        paging.instance_position(paging.relation_marker(RELATION))
    with pytest.raises(MarkerUnknown):
        paging.relation_position(paging.instance_marker(INSTANCE))


@pytest.mark.parametrize("read", READERS)
@given(marker=st.text() | st.from_regex("[A-Za-z0-9_=-]*", fullmatch=True))
def test_a_made_up_marker_is_refused(read: Callable[[str | None], object], marker: str) -> None:
    with pytest.raises(MarkerUnknown):
        read(marker)


@pytest.mark.parametrize(
    ("text", "limit"), [("1", 1), ("100", 100), ("1000", 1000), ("1001", 1000), ("999999999", 1000)]
)
def test_a_limit_is_capped(text: str, limit: int) -> None:
    assert paging.read(given_in(f"limit={text}"), parameters.PAGE).limit == limit


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "1e3", "%D9%A3", "9" * 5000, "%001"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(LimitMalformed):
        paging.read(given_in(f"limit={text}"), parameters.PAGE)


def test_links_keep_all_but_the_marker() -> None:
    query = paging.read(
        given_in("kind=boot&limit=2&marker=m&label=a%3Ab"), parameters.FILTERS | parameters.PAGE
    )
    assert query.kept == [("kind", "boot"), ("limit", "2"), ("label", "a:b")]
    assert query.marker == "m"
    assert query.filters == {"kind": "boot", "label": "a:b"}


def test_an_unknown_parameter_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(
        ParameterUnknown, match="'sort_key' is not known here; known are installation_uuid, "
    ):
        paging.read(given_in("sort_key=x"), parameters.FILTERS)


def test_where_none_is_known_the_query_is_to_be_left_out() -> None:
    with pytest.raises(ParameterUnknown, match="'limit' is not known here; leave the query out"):
        paging.read(given_in("limit=1"), {})


def test_a_needed_parameter_that_is_missing_is_named() -> None:
    with pytest.raises(ParameterMalformed, match="image_ids is needed here"):
        paging.read([], parameters.USAGE_FILTERS)


def test_a_parameter_may_not_be_repeated() -> None:
    with pytest.raises(ParameterMalformed, match="twice"):
        paging.read(given_in("limit=1&limit=1"), parameters.PAGE)


WRONG = [
    *("installation_uuid=x", "instance_id=a%20b", "instance_id=", "image_id=x", "project_id="),
    "project_id=p-1%20",
    *("project_id=%00", "project_id=" + "x" * 256, "kind=image", "label=a%20b", "source=user"),
    *("created_after=yesterday", "created_before=", "latest_before=x"),
]


@pytest.mark.parametrize("query", WRONG)
def test_a_malformed_filter_is_refused(query: str) -> None:
    with pytest.raises(BadInput):
        paging.read(given_in(query), parameters.INSTANCE_FILTERS)


@given(st.text())
def test_any_query_is_understood_or_refused(query: str) -> None:
    try:
        read = paging.read(given_in(query), parameters.INSTANCE_FILTERS | parameters.PAGE)
    except BadInput:
        return
    assert 1 <= read.limit <= 1000
