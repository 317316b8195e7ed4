"""One request to a route of ours: what handlers ask of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from related_images.middleware.responses import WSGIApp
from related_images.protocol import parameters


@dataclass(frozen=True)
class RouteRequest:
    """One request to a route of ours, with the ``ids`` in its path and its ``query``."""

    app: WSGIApp
    database: Database
    caller: Caller
    environ: Environ
    ids: Mapping[str, str]
    query: paging.Query

    def instance(self) -> model.InstanceRef:
        """The instance in the path."""
        return model.InstanceRef(self.ids["installation_uuid"], self.ids["instance_id"])

    def image_id(self) -> str:
        """The image in the path."""
        return validation.image_id(self.ids["image_id"])


Handler = Callable[[RouteRequest], WSGIApp]
Answers = Mapping[HTTPStatus, tuple[str] | tuple[str, str]]
"""What each status says with which a request is done, and the schema of its body."""


@dataclass(frozen=True)
class Operation:
    """What a method of a path does: its handler, what it takes, and how it is described.

    ``refusals`` are the statuses that it may answer besides those of every operation. ``body`` is
    the schema of the body that it takes.
    """

    handler: Handler
    summary: str
    answers: Answers
    refusals: Sequence[HTTPStatus] = ()
    filters: parameters.Filters = field(default_factory=dict)
    body: str | None = None


def query_of(environ: Environ) -> list[tuple[str, str]]:
    """The parameters of a query.

    :raises ParameterMalformed: if they are not UTF-8
    """
    written = environ.get("QUERY_STRING", "")
    if not written:
        return []
    try:
        # of the query alone: what WebOb reads refers to its environ, and is kept in it
        return list(Request({"QUERY_STRING": written}).GET.items())
    except UnicodeError as error:
        raise ParameterMalformed(
            "the query is not UTF-8 in percent-encoding; encode each parameter as UTF-8"
        ) from error


def fields(body: dict[str, Any], needed: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
    """The body, which has the ``needed`` fields and none but these and the ``optional`` ones.

    :raises FieldInvalid: naming the field
    """
    known = [*needed, *optional]
    missing = [name for name in needed if name not in body]
    unknown = [name for name in body if name not in known]
    if missing or unknown:
        wrong = (
            f"{missing[0]} is missing" if missing else f"{validation.shown(unknown[0])} is unknown"
        )
        raise FieldInvalid(f"the field {wrong}; known are {', '.join(known)}")
    return body
