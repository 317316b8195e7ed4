"""The JSON and the published schemas match the dataclasses from which they are generated."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jsonschema
import pytest

from related_images.errors import BadInput
from related_images.jsonform import JsonForm, types_of
from related_images.model import (
    KINDS,
    SOURCES,
    Ancestor,
    Descendant,
    Filters,
    Images,
    Installation,
    Instance,
    InstanceRef,
    Kind,
    Relation,
    ServiceUser,
    Usage,
)
from related_images.protocol import parameters, schemas

UUID: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOON: Final = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
REF: Final = InstanceRef(UUID, "i:1")
RELATION: Final = Relation(UUID, "i:1", UUID, "backup", "daily", "service", "p", NOON, NOON, None)
IMAGES: Final = Images(2, NOON, NOON + timedelta(days=1), UUID)
INSTANCE: Final = Instance(UUID, "i:1", "p", UUID, NOON, {"backup": IMAGES, "boot": IMAGES})
ALL: Final[list[JsonForm]] = [
    REF,
    RELATION,
    replace(RELATION, label=None, project_id=None, image_created_at=None, image_deleted_at=NOON),
    replace(RELATION, kind="shelved", ended_at=NOON),
    IMAGES,
    INSTANCE,
    replace(INSTANCE, project_id=None, boot_image_id=None, ended_at=None, images={}),
    Usage(UUID, 3, 0, NOON, True),
    Usage(UUID),
    Installation(UUID, "east", (), NOON),
    Installation(UUID, "east", (ServiceUser("a"), ServiceUser("b", ("server",))), NOON),
    Ancestor(UUID, (REF,), "snapshot", NOON, None, "p", NOON),
    Descendant(UUID, 2, UUID, (REF, REF), "backup", NOON, NOON),
]


@pytest.mark.parametrize("item", ALL)
def test_json_round_trip_matches_the_schema(item: JsonForm) -> None:
    written = json.loads(json.dumps(item.as_json()))
    assert type(item).from_json(written) == item
    properties = schemas.properties(type(item))
    assert list(written) == list(properties) == list(types_of(type(item)))
    schema = {"properties": properties, "required": list(properties)}
    jsonschema.validate(written, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(("name", "item"), [("relation", RELATION), ("instance", INSTANCE)])
def test_published_schema_has_the_fields_and_two_links(
    name: str, item: Relation | Instance
) -> None:
    published = schemas.SCHEMAS[name]["properties"]
    assert list(published) == [*item.as_json(), "self", "schema"] == list(schemas.linked(item))


@dataclass(frozen=True, slots=True)
class RelationWithNewField(Relation):
    """A relation with an additional field."""

    checked_at: datetime | None = None


def test_new_field_is_one_edit() -> None:
    values: dict[str, Any] = {it.name: getattr(RELATION, it.name) for it in fields(RELATION)}
    grown = RelationWithNewField(**values, checked_at=NOON)
    assert grown.as_json() == RELATION.as_json() | {"checked_at": "2026-01-31T12:00:00.123456Z"}
    assert RelationWithNewField.from_json(grown.as_json()) == grown
    assert schemas.properties(RelationWithNewField)["checked_at"] == {
        "type": ["string", "null"],
        "format": "date-time",
    }


def test_clients_accept_newer_responses() -> None:
    newer: dict[str, Any] = {"kind": "clone", "source": "scheduler", "checked_at": "now"}
    newer["resource_type"] = "volume-group"
    read = Relation.from_json(RELATION.as_json() | newer)
    assert read == replace(RELATION, kind="clone", source="scheduler", resource_type="volume-group")
    kinds: Mapping[Kind, Any] = {"clone": IMAGES.as_json() | {"size": 7}}
    assert Instance.from_json(INSTANCE.as_json() | {"images": kinds}).images == {"clone": IMAGES}
    assert not {"clone", "scheduler"} & {*KINDS, *SOURCES}


def test_clients_accept_older_responses() -> None:
    assert Usage.from_json({"image_id": UUID, "instances": 1, "live_instances": 1}) == Usage(
        UUID, 1, 1
    )


def test_a_response_without_a_resource_type_is_about_servers() -> None:
    shown = RELATION.as_json()
    del shown["resource_type"]
    assert Relation.from_json(shown).instance == InstanceRef(UUID, "i:1")


@pytest.mark.parametrize("name", [it.name for it in fields(Relation) if it.default is MISSING])
def test_missing_field_is_an_error(name: str) -> None:
    shown = RELATION.as_json()
    del shown[name]
    with pytest.raises(KeyError, match=name):
        Relation.from_json(shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("created_at", "yesterday"),
        ("created_at", 7),
        ("installation_uuid", "x"),
        ("instance_id", "/"),
        ("resource_type", "Bad type;"),
        ("resource_type", ["server"]),
        ("resource_type", None),
    ],
)
def test_malformed_times_ids_and_types_are_refused(name: str, value: object) -> None:
    with pytest.raises(BadInput):
        Relation.from_json(RELATION.as_json() | {name: value})


def test_instance_of_a_relation() -> None:
    assert RELATION.instance == INSTANCE.instance == REF


def test_filters_match_the_api() -> None:
    assert {it.name for it in fields(Filters)} == {*parameters.FILTERS, "visible_to"}
