"""The parameters of a restricted image list."""

from datetime import UTC, datetime

import pytest

from related_images.errors import ParameterUnknown
from related_images.protocol import headers, image_list
from related_images.protocol.image_list import Restriction

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OF_SERVER = {"installation_uuid": UUID, "instance_id": "i-1"}
ON_RELATION = {
    "relation_installation_uuid": UUID,
    "relation_resource_type": "volume",
    "relation_kind": "backup",
    "relation_label": "daily",
    "relation_source": "service",
    "relation_created_after": "2026-01-01T00:00:00.000000Z",
    "relation_created_before": "2026-01-02T00:00:00.000000Z",
}
ON_IMAGE = {"relation_in_use": "false", "relation_descends_from": UUID}


def read(given: dict[str, str]) -> Restriction:
    both = headers.combined({}, given)
    return image_list.read(given, headers.read(both) if "instance_id" in given else None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (OF_SERVER, "installation_uuid, instance_id"),
        (OF_SERVER | {"relation_kind": "boot"}, "installation_uuid, instance_id, kind"),
        ({"relation_label": "daily"}, "label"),
        (
            ON_IMAGE | ON_RELATION | OF_SERVER,
            "installation_uuid, instance_id, resource_type, kind, label, source, "
            "created_after, created_before, in_use, descends_from",
        ),
    ],
)
def test_acknowledgement_names_the_applied_filters(given: dict[str, str], expected: str) -> None:
    assert read(given).acknowledgement() == expected


@pytest.mark.parametrize("more", [{}, OF_SERVER])
def test_parameters_round_trip(more: dict[str, str]) -> None:
    given = more | ON_RELATION | ON_IMAGE
    restriction = read(given)
    if more:
        del given["relation_installation_uuid"]  # the instance has it
    assert restriction.query() == given
    assert restriction.created_after == datetime(2026, 1, 1, tzinfo=UTC)
    assert (restriction.in_use, restriction.kinds) == (False, ("backup",))


def test_type_of_an_instance_is_server_unless_given() -> None:
    filters = read(OF_SERVER).filters("p")
    assert (filters.resource_type, filters.visible_to) == ("server", "p")
    assert read({"relation_kind": "boot"}).filters(None).resource_type is None


@pytest.mark.parametrize("name", ON_RELATION)
def test_conditions_on_a_relation_ask_for_images_made_from_a_resource(name: str) -> None:
    restriction = read({name: ON_RELATION[name]})
    assert restriction.asks_for_relation
    kinds = ("backup",) if name == "relation_kind" else ("snapshot", "backup", "shelved")
    assert restriction.kinds == kinds


def test_conditions_on_the_image_ask_for_no_relation() -> None:
    assert not read(ON_IMAGE).asks_for_relation


def test_unknown_parameter_with_the_prefix_is_refused() -> None:
    with pytest.raises(ParameterUnknown, match=r"relation_colour.*relation_in_use"):
        image_list.is_own("relation_colour")
    assert not image_list.is_own("colour")
