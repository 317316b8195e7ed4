"""The OpenAPI document of our routes says what the code does, and the filter does what it says."""

import copy
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS

from related_images.middleware import api, attaching, paging, routing
from related_images.protocol import paths, schemas
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "openapi-relations.yaml"
SPOKEN: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
COMPONENTS = SPOKEN["components"]
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
EXAMPLES = int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "15"))
"""Requests of each sort that an operation is tried with."""


def named(parameters: list[dict[str, str]]) -> list[str]:
    keys = [parameter["$ref"].rpartition("/")[2] for parameter in parameters]
    return [COMPONENTS["parameters"][key]["name"] for key in keys]


def test_every_route_and_method_is_told_and_no_other() -> None:
    told = {path: METHODS & set(item) for path, item in SPOKEN["paths"].items()}
    assert told == {
        paths.API + path: {method.lower() for method in methods}
        for path, methods in routing.ROUTES.items()
    }


def test_every_parameter_is_told_and_no_other() -> None:
    known = {
        paths.RELATIONS: [*paging.FILTERS],
        paths.IMAGE_RELATIONS: [*paging.IMAGE_FILTERS],
        paths.INSTANCES: [*paging.INSTANCE_FILTERS],
        paths.DESCENDANTS: ["depth", "kind"],
        paths.ANCESTRY: [],
        paths.USAGES: [*paging.USAGE_FILTERS],
        paths.RELATION: [*paging.DETACHMENT],
    }
    paged = routing.LISTS - {api.list_usages}
    for path, methods in routing.ROUTES.items():
        for method, handler in methods.items():
            operation = SPOKEN["paths"][paths.API + path][method.lower()]
            expected = known[path] if handler in routing.QUERIED else []
            expected = expected + ["limit", "marker"] * (handler in paged)
            assert named(operation.get("parameters", [])) == expected, (method, path)


def test_the_ids_in_a_path_are_told() -> None:
    for path, item in SPOKEN["paths"].items():
        told = named(item.get("parameters", []))
        assert path.format(**dict.fromkeys(told, "")).count("{") == 0
        assert path.count("{") == len(told)


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_shapes_are_those_that_are_published(name: str) -> None:
    told, published = COMPONENTS["schemas"][name], schemas.SCHEMAS[name]
    assert told["required"] == published["required"]
    assert set(told["properties"]) == set(published["properties"])
    if "items" not in told["properties"].get(name, {}):
        assert told["properties"] == published["properties"]


def test_the_fields_of_bodies_are_told() -> None:
    relation = COMPONENTS["schemas"]["new_relation"]
    assert tuple(relation["required"]) == attaching.NEEDED
    assert tuple(relation["properties"]) == attaching.NEEDED + attaching.OPTIONAL


def tried() -> dict[str, Any]:
    """The document without what cannot be made up: a token, and a marker that was given out."""
    spoken = copy.deepcopy(SPOKEN)
    del spoken["security"], spoken["components"]["securitySchemes"]
    for item in spoken["paths"].values():
        for method in METHODS & set(item):
            kept = item[method].get("parameters", [])
            item[method]["parameters"] = [
                one for one in kept if not one["$ref"].endswith("/marker")
            ]
    return spoken


OPERATIONS = [
    (path, method)
    for path, item in SPOKEN["paths"].items()
    for method in sorted(METHODS & set(item))
]


@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_is_told_is_done(
    cloud: Cloud, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    spoken = schemathesis.openapi.from_dict(tried())
    spoken.app = cloud.app
    operation = spoken[path][method.upper()]
    # what text is printable, a schema cannot say
    left_out: Any = [CHECKS.get_one("positive_data_acceptance")]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers=ADMIN | SERVICE_TOKEN)
        case.validate_response(response, excluded_checks=left_out)

    with suppress(Unsatisfiable):  # a route that takes nothing has nothing wrong to be given
        hold()
