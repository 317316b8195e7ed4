from dataclasses import replace
from datetime import UTC, datetime

import jsonschema
import pytest

from related_images.model import Images, Instance, Relation
from related_images.protocol import schemas

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RELATION = Relation(UUID, "i:1", UUID, "backup", "daily", "service", "p", NOON, NOON, None)
INSTANCE = Instance(UUID, "i:1", "p", None, NOON, {"backup": Images(2, NOON, NOON, UUID)})


def fits(name: str, body: schemas.Json) -> bool:
    jsonschema.validate(body, schemas.SCHEMAS[name], cls=jsonschema.Draft202012Validator)
    return True


def test_relation_has_the_fields_of_the_design() -> None:
    assert schemas.linked(RELATION) == {
        "installation_uuid": UUID,
        "instance_id": "i:1",
        "image_id": UUID,
        "kind": "backup",
        "label": "daily",
        "source": "service",
        "project_id": "p",
        "created_at": "2026-01-31T12:00:00.000000Z",
        "image_created_at": "2026-01-31T12:00:00.000000Z",
        "image_deleted_at": None,
        "resource_type": "server",
        "expires_at": None,
        "ended_at": None,
        "volume_snapshot_ids": [],
        "self": f"/v2/images/{UUID}/relations/{UUID}/i:1/backup",
        "schema": "/v2/schemas/relation",
    }


def test_a_link_names_the_type_of_a_resource_that_is_no_server() -> None:
    volume = replace(RELATION, resource_type="volume")
    path = f"/v2/images/{UUID}/relations/{UUID}/i:1/backup"
    assert schemas.linked(volume)["self"] == f"{path}?resource_type=volume"
    assert fits("relation", schemas.linked(volume))


def test_instance_has_the_fields_of_the_design() -> None:
    shown = schemas.linked(INSTANCE)
    assert shown["ended_at"] == "2026-01-31T12:00:00.000000Z"
    assert shown["images"] == {
        "backup": {
            "count": 2,
            "oldest_at": "2026-01-31T12:00:00.000000Z",
            "latest_at": "2026-01-31T12:00:00.000000Z",
            "latest_image_id": UUID,
        }
    }


def test_responses_match_the_published_schemas() -> None:
    relation, instance = schemas.linked(RELATION), schemas.linked(INSTANCE)
    assert fits("relation", relation)
    assert fits("instance", instance)
    assert fits("relations", schemas.page("relations", [relation], "/v2/relations", [], "m"))
    assert fits("instances", schemas.page("instances", [instance], "/v2/instances", [], None))


@pytest.mark.parametrize("name", sorted(schemas.SCHEMAS))
def test_every_published_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.SCHEMAS[name])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schemas.SCHEMAS[name])


def test_links_repeat_the_query_and_end_with_the_marker() -> None:
    query = [("kind", "backup"), ("created_after", "2026-01-31T12:00:00+01:00")]
    page = schemas.page("relations", [], "/v2/relations", query, "m=")
    first = "/v2/relations?kind=backup&created_after=2026-01-31T12%3A00%3A00%2B01%3A00"
    assert page["first"] == first
    assert page["next"] == first + "&marker=m%3D"
    assert schemas.page("relations", [], "/v2/relations", [], None) == {
        "relations": [],
        "first": "/v2/relations",
        "schema": "/v2/schemas/relations",
    }
