import pytest

from related_images.errors import (
    KindUnknown,
    LabelMalformed,
    ProjectMalformed,
    TupleConflict,
    TupleIncomplete,
    TupleMalformed,
)
from related_images.model import InstanceRef
from related_images.protocol import headers

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TUPLE = {"X-Installation-UUID": UUID, "X-Instance-ID": "i-1"}
KIND, LABEL = {"X-Relation-Kind": "backup"}, {"X-Relation-Label": "daily"}
PROJECT = {"X-Instance-Project-ID": "demo"}
TYPE, OF_SERVER = {"X-Resource-Type": "volume"}, {"X-Resource-Type": "server"}


def test_header_names_match_the_design() -> None:
    assert headers.REQUEST == (
        "X-Installation-UUID",
        "X-Instance-ID",
        "X-Resource-Type",
        "X-Relation-Kind",
        "X-Relation-Label",
        "X-Instance-Project-ID",
    )
    assert headers.RECORDED == "X-Relation-Recorded"
    assert headers.FILTERS_APPLIED == "X-Relation-Filters-Applied"
    assert headers.QUERY == (
        "installation_uuid",
        "instance_id",
        "relation_resource_type",
        "relation_kind",
        "relation_label",
    )


def test_no_headers_give_no_assertion() -> None:
    assert headers.read({}) is None


@pytest.mark.parametrize(
    "more", [{}, KIND, LABEL, PROJECT, TYPE, OF_SERVER, KIND | LABEL | PROJECT | TYPE]
)
def test_assertion_round_trip(more: dict[str, str]) -> None:
    assertion = headers.read(TUPLE | more)
    assert assertion is not None
    assert assertion.instance == InstanceRef(UUID, "i-1", more.get("X-Resource-Type", "server"))
    assert assertion.as_headers() == TUPLE | more


@pytest.mark.parametrize(
    "given",
    [{name: text} for name, text in (TUPLE | KIND | LABEL | PROJECT).items()] + [KIND | LABEL],
)
def test_incomplete_instance_headers_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(TupleIncomplete, match=next(iter(given))):
        headers.read(given)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"X-Installation-UUID": "x"}, TupleMalformed),
        ({"X-Installation-UUID": f"{UUID},{UUID}"}, TupleMalformed),
        ({"X-Instance-ID": ""}, TupleMalformed),
        ({"X-Instance-ID": "i-1,i-1"}, TupleMalformed),
        ({"X-Relation-Kind": "image"}, KindUnknown),
        ({"X-Relation-Kind": ""}, KindUnknown),
        ({"X-Relation-Label": "a b"}, LabelMalformed),
        ({"X-Instance-Project-ID": ""}, ProjectMalformed),
        ({"X-Instance-Project-ID": "demo "}, ProjectMalformed),
        ({"X-Instance-Project-ID": "demo,demo"}, ProjectMalformed),
        ({"X-Instance-Project-ID": "a\0"}, ProjectMalformed),
        ({"X-Instance-Project-ID": "x" * 256}, ProjectMalformed),
    ],
)
def test_malformed_value_is_refused(wrong: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        headers.read(TUPLE | wrong)


def test_headers_and_query_are_combined() -> None:
    both = headers.combined(TUPLE, {"instance_id": "i-1", "relation_kind": "backup"})
    assert both == TUPLE | KIND


def test_conflicting_headers_and_query_are_refused() -> None:
    with pytest.raises(TupleConflict, match="X-Instance-ID"):
        headers.combined(TUPLE, {"instance_id": "i-2"})
