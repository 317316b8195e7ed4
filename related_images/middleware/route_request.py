"""A request to one of the filter's routes, as its handler gets it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from webob import Request

from related_images import model, validation
from related_images.db import Database
from related_images.errors import FieldInvalid, ParameterMalformed
from related_images.middleware import paging
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.policy import Rule
from related_images.middleware.responses import WSGIApp
from related_images.protocol import parameters, schemas


@dataclass(frozen=True)
class RouteRequest:
    """A request to one of the filter's routes: the IDs in its path, its parsed query."""

    app: WSGIApp
    database: Database
    caller: Caller
    environ: Environ
    ids: Mapping[str, str]
    query: paging.Query

    def instance(self) -> model.InstanceRef:
        """Return the resource that the path and the parameter ``resource_type`` name.

        :raises TupleMalformed: if its installation UUID or its ID is malformed
        """
        return model.InstanceRef(
            self.ids["installation_uuid"],
            self.ids["instance_id"],
            self.query.filters.get(parameters.RESOURCE_TYPE, model.SERVER),
        )

    def image_id(self) -> str:
        """Return the ID of the image in the path.

        :raises ImageIdMalformed: if it is not a UUID in lower case
        """
        return validation.image_id(self.ids["image_id"])


Handler = Callable[[RouteRequest], WSGIApp]
Responses = Mapping[HTTPStatus, tuple[str] | tuple[str, str]]
"""The description of each success status, and the name of the schema of its body."""


@dataclass(frozen=True)
class Operation:
    """A method of a path: its handler, its parameters and its description for OpenAPI.

    ``rule`` is the rule of the policy that permits it to a caller.
    ``errors`` are its error statuses in addition to those of every operation. ``body`` is the name
    of the schema of the request body.
    """

    handler: Handler
    rule: Rule
    summary: str
    responses: Responses
    errors: Sequence[HTTPStatus] = ()
    filters: parameters.Filters = field(default_factory=dict)
    body: str | None = None


def query_of(environ: Environ) -> list[tuple[str, str]]:
    """Return the names and values of the query parameters.

    :raises ParameterMalformed: if they are not percent-encoded UTF-8
    """
    query_string = environ.get("QUERY_STRING", "")
    if not query_string:
        return []
    try:
        # a new environ, since WebOb stores the parsed query in its environ
        return list(Request({"QUERY_STRING": query_string}).GET.items())
    except UnicodeError as error:
        raise ParameterMalformed(
            "the query is not percent-encoded UTF-8; encode each parameter as UTF-8"
        ) from error


def fields(body: dict[str, Any], schema: schemas.Json) -> dict[str, Any]:
    """Return ``body`` after checking that it has all required fields and no unknown ones.

    :param schema: the schema of the body; the types of the fields are not checked
    :raises FieldInvalid: if it does not; the message names the first such field
    """
    known = schema["properties"]
    missing = [name for name in known if name in schema["required"] and name not in body]
    unknown = [name for name in body if name not in known]
    if missing or unknown:
        wrong = (
            f"{missing[0]} is missing" if missing else f"{validation.shown(unknown[0])} is unknown"
        )
        raise FieldInvalid(f"the field {wrong}; allowed are: {', '.join(known)}")
    return body
