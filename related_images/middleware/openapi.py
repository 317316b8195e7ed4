"""The OpenAPI document of our own routes, made of what answers them.

Paths and methods are those of the table of routes, parameters are the filters that read them, and
bodies are the schemas of :mod:`related_images.protocol.schemas`.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from related_images.middleware.route_request import Operation
from related_images.protocol import parameters, paths, schemas
from related_images.protocol.schemas import Json

VERSION: Final = "3.1.0"

REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "The request itself is wrong",
    HTTPStatus.UNAUTHORIZED: "The identity service confirms no token",
    HTTPStatus.FORBIDDEN: "The caller may not do this",
    HTTPStatus.NOT_FOUND: "It is not there, or not for this caller",
    HTTPStatus.CONFLICT: "It contradicts what is recorded",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is over 1 MiB",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database cannot be used now",
}
"""What each status says with which a request is refused."""

RETRY_AFTER: Final = {
    "description": "Seconds to wait",
    "required": True,
    "schema": {"type": "integer"},
}

ALWAYS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""What every operation may answer."""


def document(routes: Mapping[str, Mapping[str, Operation]]) -> Json:
    """The document of ``routes``, by path and method."""
    return {
        "openapi": VERSION,
        "info": {
            "title": "Relations of images",
            "version": "2",
            "description": "The routes that related-images adds to the Images API v2. Every other "
            "method of a path is answered with 405 and Allow.",
        },
        "security": [{"token": []}],
        "paths": {paths.API + path: _path(path, methods) for path, methods in routes.items()},
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}
            },
            "responses": {status.name: _refusal(status) for status in REFUSALS},
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
    refusals = sorted((*ALWAYS, *operation.refusals))
    told: Json = {
        "operationId": _camel(operation.handler.__name__),
        "summary": operation.summary,
        "parameters": [_parameter(name, one) for name, one in operation.filters.items()],
        "responses": {
            **{str(status.value): _answer(*answer) for status, answer in operation.answers.items()},
            **{
                str(status.value): {"$ref": f"#/components/responses/{status.name}"}
                for status in refusals
            },
        },
    }
    if operation.body is not None:
        told["requestBody"] = {"required": True, **_content(operation.body)}
    return told


def _parameter(name: str, filter: parameters.Filter) -> Json:
    told = {"name": name, "in": "query", "description": filter.means, "schema": filter.schema}
    return told | {"required": True} if filter.needed else told


def _answer(means: str, schema: str | None = None) -> Json:
    return {"description": means, **(_content(schema) if schema else {})}


def _refusal(status: HTTPStatus) -> Json:
    told = _answer(REFUSALS[status], "error")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = {
            "description": "Seconds to wait",
            "required": True,
            "schema": {"type": "integer"},
        }
        told["headers"] = {"Retry-After": seconds}
    return told


def _content(schema: str) -> Json:
    return {"content": {"application/json": {"schema": schemas.reference(schema)}}}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)
