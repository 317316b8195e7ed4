"""Our own routes: one table of path and method to operation, and the mapper that finds them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from routes import Mapper

from related_images.db import Database
from related_images.middleware import lineage_handlers, openapi, paging, route_handlers
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.responses import MethodNotAllowed, WSGIApp, written
from related_images.middleware.route_request import Operation, RouteRequest, query_of
from related_images.protocol import parameters, paths, schemas

OK, CREATED, NO_CONTENT = HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
FORBIDDEN, NOT_FOUND, CONFLICT = HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT
TOO_LARGE: Final = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def _schema(name: str) -> Operation:
    def show_schema(call: RouteRequest) -> WSGIApp:
        return written(schemas.SCHEMAS[name])

    show_schema.__name__ = f"show_schema_{name}"
    summary = f"The JSON schema of {name}"
    return Operation(show_schema, summary, {OK: ("A JSON schema", "json_schema")})


def show_openapi(call: RouteRequest) -> WSGIApp:
    return written(document())


@cache
def document() -> schemas.Json:
    """The OpenAPI document of our routes."""
    return openapi.document(ROUTES)


ROUTES: Final[dict[str, dict[str, Operation]]] = {
    paths.RELATIONS: {
        "GET": Operation(
            route_handlers.list_relations,
            "Relations, newest first",
            {OK: ("A page of relations", "relations")},
            filters=parameters.FILTERS | parameters.PAGE,
        ),
        "POST": Operation(
            route_handlers.attach,
            "Attach an image that exists to an instance (a recording role)",
            {
                OK: ("The relation was there", "relation"),
                CREATED: ("The relation was recorded", "relation"),
            },
            (FORBIDDEN, NOT_FOUND, CONFLICT, TOO_LARGE),
            body="new_relation",
        ),
    },
    paths.IMAGE_RELATIONS: {
        "GET": Operation(
            route_handlers.list_image_relations,
            "Relations of one image",
            {OK: ("A page of relations", "relations")},
            (NOT_FOUND,),
            parameters.IMAGE_FILTERS | parameters.PAGE,
        )
    },
    paths.RELATION: {
        "DELETE": Operation(
            route_handlers.detach,
            "Detach an image from an instance (a recording role or an administrator)",
            {
                OK: (
                    "The report is taken back, and the relation stays since others report it too",
                    "relation",
                ),
                NO_CONTENT: ("The relation is gone",),
            },
            (FORBIDDEN, NOT_FOUND),
            parameters.DETACHMENT,
        )
    },
    paths.ANCESTRY: {
        "GET": Operation(
            lineage_handlers.list_ancestry,
            "The chain of images and instances an image comes from, nearest first",
            {OK: ("A page of ancestors", "ancestry")},
            (NOT_FOUND,),
            parameters.PAGE,
        )
    },
    paths.DESCENDANTS: {
        "GET": Operation(
            lineage_handlers.list_descendants,
            "Everything that was made from an image",
            {OK: ("A page of descendants", "descendants")},
            (NOT_FOUND,),
            parameters.DESCENDANT_FILTERS | parameters.PAGE,
        )
    },
    paths.INSTANCES: {
        "GET": Operation(
            route_handlers.list_instances,
            "Instances and their images",
            {OK: ("A page of instances", "instances")},
            filters=parameters.INSTANCE_FILTERS | parameters.PAGE,
        )
    },
    paths.INSTANCE: {
        "GET": Operation(
            route_handlers.show_instance,
            "One instance",
            {OK: ("The instance", "instance")},
            (NOT_FOUND,),
        ),
        "DELETE": Operation(
            route_handlers.end_instance,
            "Record that the instance was deleted (a recording role or an administrator)",
            {NO_CONTENT: ("It is noted",)},
            (FORBIDDEN, NOT_FOUND),
        ),
    },
    paths.USAGES: {
        "GET": Operation(
            route_handlers.list_usages,
            "How much images are used, of those that are asked for",
            {OK: ("One row for each image, in the order asked for", "usages")},
            filters=parameters.USAGE_FILTERS,
        )
    },
    paths.INSTALLATIONS: {
        "GET": Operation(
            route_handlers.list_installations,
            "Registered installations (an administrator)",
            {OK: ("All of them", "installations")},
            (FORBIDDEN,),
        ),
        "POST": Operation(
            route_handlers.register_installation,
            "Register an installation (an administrator)",
            {
                OK: ("It was registered", "installation"),
                CREATED: ("It is registered now", "installation"),
            },
            (FORBIDDEN, CONFLICT, TOO_LARGE),
            body="new_installation",
        ),
    },
    paths.INSTALLATION: {
        "DELETE": Operation(
            route_handlers.unregister_installation,
            "Forget the registration; relations stay (an administrator)",
            {NO_CONTENT: ("It is forgotten",)},
            (FORBIDDEN, NOT_FOUND),
        )
    },
    paths.INFO: {
        "GET": Operation(
            route_handlers.show_info,
            "What this deployment does",
            {OK: ("Version, kinds, limits and options", "info")},
        )
    },
    **{paths.SCHEMA.format(name=name): {"GET": _schema(name)} for name in schemas.SCHEMAS},
    paths.OPENAPI: {
        "GET": Operation(show_openapi, "This document", {OK: ("OpenAPI 3.1", "json_schema")})
    },
}


@dataclass(frozen=True)
class Route:
    """A request to a path of ours: its operation, or the methods that are ``allowed`` instead."""

    operation: Operation | None
    allowed: tuple[str, ...]
    ids: Mapping[str, str]


_ID: Final = re.compile(r"{(\w+)}")

WORDS: Final = frozenset(_ID.sub("", path).rstrip("/").rpartition("/")[2] for path in ROUTES)
"""The last fixed word of each path: a path without any of them is not ours, which is soon seen."""


def _mapper() -> Mapper:
    """Each method of a path, then the same path with the answer to every other method."""
    made = Mapper(controller_scan=None, explicit=True)
    for path, methods in ROUTES.items():
        # what Routes takes for an id by itself leaves a line break at the end out
        ids = dict.fromkeys(_ID.findall(path), "[^/]+")
        for method in methods:
            only = {"method": [method]}
            made.connect(path, action=method, _path=path, requirements=ids, conditions=only)
        made.connect(path, action=None, _path=path, requirements=ids)
    made.create_regs([])  # now, not at the first request: two threads may bring that at once
    return made


_MAPPER: Final = _mapper()


def match(path: str, method: str) -> Route | None:
    """The route of ours that a request for ``path``, below ``/v2``, is; ``None`` if it is none."""
    found: dict[str, Any] | None = _MAPPER.match(path, {"REQUEST_METHOD": method})
    if found is None:
        return None
    answered, template = found.pop("action"), found.pop("_path")
    if template.format(**found) != path:  # Routes lets a path end in a line break
        return None
    methods = ROUTES[template]
    return Route(None if answered is None else methods[answered], tuple(methods), found)


def answer(
    app: WSGIApp, database: Database, caller: Caller, route: Route, environ: Environ
) -> WSGIApp:
    """The answer to a request to the ``route``.

    :raises NotIdentified: if nobody vouches for the caller
    :raises MethodNotAllowed: if the path does not answer the method
    :raises BadInput: if the query is not one that is taken there
    """
    caller.must_be_identified()
    operation = route.operation
    if operation is None:
        raise MethodNotAllowed(environ["REQUEST_METHOD"], route.allowed)
    query = paging.read(query_of(environ), operation.filters)
    return operation.handler(RouteRequest(app, database, caller, environ, route.ids, query))
