"""The OpenAPI document of the filter's routes, generated from the table of routes.

Parameters are described by the filters that parse them, bodies by the schemas of
:mod:`related_images.protocol.schemas`.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from related_images.middleware.route_request import Operation
from related_images.protocol import parameters, paths, schemas
from related_images.protocol.schemas import Json

VERSION: Final = "3.1.0"

ERRORS: Final = {
    HTTPStatus.BAD_REQUEST: "The request is malformed",
    HTTPStatus.UNAUTHORIZED: "The request has no valid token",
    HTTPStatus.FORBIDDEN: "The policy refuses the request, or the installation is bound to others",
    HTTPStatus.NOT_FOUND: "The resource does not exist, or the caller cannot see it",
    HTTPStatus.CONFLICT: "The request conflicts with recorded relations",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than 1 MiB",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database is unavailable",
}
"""The description of each error status."""

RETRY_AFTER: Final = {
    "description": "Seconds to wait before the next attempt",
    "required": True,
    "schema": {"type": "integer"},
}

COMMON_ERRORS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""The error statuses of every operation."""


def document(routes: Mapping[str, Mapping[str, Operation]]) -> Json:
    """Return the OpenAPI document of ``routes``, which are operations by path and method."""
    return {
        "openapi": VERSION,
        "info": {
            "title": "Relations of images",
            "version": "2",
            "description": "The routes that related-images adds to the Images API v2. For any "
            "other method of these paths the response is 405 with Allow.",
        },
        "security": [{"token": []}],
        "paths": {paths.API + path: _path(path, methods) for path, methods in routes.items()},
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}
            },
            "responses": {status.name: _error_response(status) for status in ERRORS},
            "schemas": schemas.COMPONENTS,
        },
    }


def _path(path: str, methods: Mapping[str, Operation]) -> Json:
    ids = [
        {"name": name, "in": "path", "required": True, "schema": schemas.IDS[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    operations = {method.lower(): _operation(methods[method]) for method in methods}
    return {"parameters": ids, **operations} if ids else operations


def _operation(operation: Operation) -> Json:
    errors = sorted((*COMMON_ERRORS, *operation.errors))
    described: Json = {
        "operationId": _camel(operation.handler.__name__),
        "summary": operation.summary,
        "parameters": [_parameter(name, one) for name, one in operation.filters.items()],
        "responses": {
            **{
                str(status.value): _response(*response)
                for status, response in operation.responses.items()
            },
            **{
                str(status.value): {"$ref": f"#/components/responses/{status.name}"}
                for status in errors
            },
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, **_content(operation.body)}
    return described


def _parameter(name: str, filter: parameters.Filter) -> Json:
    parameter = {
        "name": name,
        "in": "query",
        "description": filter.description,
        "schema": filter.schema,
    }
    return parameter | {"required": True} if filter.required else parameter


def _response(description: str, schema: str | None = None) -> Json:
    return {"description": description, **(_content(schema) if schema else {})}


def _error_response(status: HTTPStatus) -> Json:
    response = _response(ERRORS[status], "error")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {"Retry-After": RETRY_AFTER}
    return response


def _content(schema: str) -> Json:
    return {"content": {"application/json": {"schema": schemas.reference(schema)}}}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)
