"""The OpenAPI document of the filter's routes matches the code and the responses."""

import copy
import json
import os
import re
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS

from related_images.jsonform import types_of
from related_images.middleware import routing
from related_images.model import Ancestor, Dependent, Descendant, Installation, Origin, Usage
from related_images.protocol import paths, schemas
from tests import filters
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, user_of

DOCUMENT: dict[str, Any] = json.loads(json.dumps(routing.document()))
COMPONENTS = DOCUMENT["components"]
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
EXAMPLES = int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "15"))
"""The number of requests of each type that are sent to an operation."""
OPERATIONS = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in sorted(METHODS & set(item))
]


def named(parameters: list[dict[str, str]]) -> list[str]:
    return [parameter["name"] for parameter in parameters]


@pytest.mark.parametrize("who", [ADMIN, user_of("anybody")], ids=["administrator", "user"])
def test_document_is_returned_to_every_caller(cloud: Cloud, who: dict[str, str]) -> None:
    answer = cloud.call("GET", "/v2/schemas/openapi-relations", who)
    assert (answer.status, answer.json) == (200, DOCUMENT)


def test_document_has_every_route_and_method_and_no_other() -> None:
    described = {path: METHODS & set(item) for path, item in DOCUMENT["paths"].items()}
    assert described == {
        paths.API + path: {method.lower() for method in methods}
        for path, methods in routing.ROUTES.items()
    }


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_has_a_summary_and_its_responses(path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation["summary"]
    responses = operation["responses"]
    assert {"400", "401", "503"} < set(responses)
    assert any(status.startswith("2") for status in responses)
    for status, response in responses.items():
        if status >= "400":
            assert response["$ref"].rpartition("/")[2] in COMPONENTS["responses"]


def test_every_operation_has_its_own_id() -> None:
    ids = [DOCUMENT["paths"][path][method]["operationId"] for path, method in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert {"listRelations", "attach", "endInstance", "showSchemaRelation"} < set(ids)


def test_document_has_every_parameter_and_no_other() -> None:
    filters = ["installation_uuid", "resource_type", "instance_id", "image_id", "project_id"]
    filters += ["kind", "label", "source", "created_after", "created_before", "in_use", "leftover"]
    page = ["limit", "marker"]
    known = {
        paths.RELATIONS: [*filters, *page],
        paths.IMAGE_RELATIONS: [name for name in filters if name != "image_id"] + page,
        paths.INSTANCES: [*filters, "latest_before", *page],
        paths.DESCENDANTS: ["depth", "kind", *page],
        paths.ANCESTRY: page,
        paths.DEPENDENTS: ["live", "depth", "resource_type", "project_id", *page],
        paths.DEPENDENT_SUMMARY: ["group_by", *page],
        paths.USAGES: ["image_ids"],
        paths.ORIGINS: [
            *("installation_uuid", "resource_type", "instance_id", "project_id"),
            *("created_after", "created_before", *page),
        ],
    }
    for path, expected in known.items():
        assert named(DOCUMENT["paths"][paths.API + path]["get"]["parameters"]) == expected
    detach = DOCUMENT["paths"][paths.API + paths.RELATION]["delete"]
    assert named(detach["parameters"]) == ["resource_type", "own_report", "created_at"]


def test_document_has_the_path_parameters() -> None:
    for path, item in DOCUMENT["paths"].items():
        described = named(item.get("parameters", []))
        assert path.format(**dict.fromkeys(described, "")).count("{") == 0
        assert path.count("{") == len(described)


def test_every_reference_resolves() -> None:
    for reference in re.findall(r'"#/components/([^"]*)"', json.dumps(DOCUMENT)):
        sort, _, name = reference.partition("/")
        assert name in COMPONENTS[sort]


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_components_match_the_published_schemas(name: str) -> None:
    described, published = COMPONENTS["schemas"][name], schemas.SCHEMAS[name]
    assert set(described["required"]) == set(published["required"])
    assert set(described["properties"]) == set(published["properties"])
    if "items" not in described["properties"].get(name, {}):
        assert described["properties"] == published["properties"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("usages", Usage),
        ("ancestry", Ancestor),
        ("descendants", Descendant),
        ("dependents", Dependent),
        ("origins", Origin),
    ],
)
def test_items_of_other_lists_have_the_fields_of_the_model(name: str, shape: type) -> None:
    described = COMPONENTS["schemas"][name]["properties"][name]["items"]
    assert set(described["properties"]) == set(described["required"]) == set(types_of(shape))


def test_installation_has_the_fields_of_the_model() -> None:
    assert set(COMPONENTS["schemas"]["installation"]["properties"]) == set(types_of(Installation))


@pytest.mark.parametrize("name", schemas.COMPONENTS)
def test_every_component_is_a_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(COMPONENTS["schemas"][name])


def tried() -> dict[str, Any]:
    """Return the document without values that cannot be generated: the token and the marker."""
    spoken = copy.deepcopy(DOCUMENT)
    del spoken["security"], spoken["components"]["securitySchemes"]
    for item in spoken["paths"].values():
        for method in METHODS & set(item):
            kept = item[method]["parameters"]
            item[method]["parameters"] = [one for one in kept if one["name"] != "marker"]
    return spoken


@pytest.fixture(scope="module")
def separate(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """The same Glance with an empty database.

    Random registrations have witnesses that never report, so the use of every image is unknown.
    """
    url = filters.migrated(tmp_path_factory.mktemp("separate"))
    return Cloud(filters.filtering(cloud.bare, url, database_timeout="60"), cloud.bare)


@pytest.mark.slow
@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_responses_match_the_document(
    separate: Cloud, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    spoken = schemathesis.openapi.from_dict(tried())
    spoken.app = separate.app
    operation = spoken[path][method.upper()]
    # a JSON schema cannot express printable text
    left_out: Any = [CHECKS.get_one("positive_data_acceptance")]
    batches = [(paths.API + name, "post") for name in (paths.ORIGINS, paths.RELATIONS)]
    if (path, method) in batches:
        # a malformed item has an error of its own, in a response with 200
        left_out.append(CHECKS.get_one("negative_data_rejection"))

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers=ADMIN | SERVICE_TOKEN)
        case.validate_response(response, excluded_checks=left_out)

    with suppress(Unsatisfiable):  # an operation without parameters cannot get malformed ones
        hold()
