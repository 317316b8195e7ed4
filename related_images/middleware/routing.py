"""The filter's own routes: the table of paths, methods and operations, and their mapper."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from oslo_policy.policy import DocumentedRuleDefault, RuleDefault
from routes import Mapper

from related_images.db import Database
from related_images.middleware import (
    dependent_handlers,
    lineage_handlers,
    openapi,
    paging,
    policy,
    route_handlers,
)
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.responses import MethodNotAllowed, WSGIApp, json_response
from related_images.middleware.route_request import Operation, RouteRequest, query_of
from related_images.protocol import parameters, paths, schemas

OK, CREATED, NO_CONTENT = HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT
NOT_FOUND, CONFLICT = HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT
TOO_LARGE: Final = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def _schema(name: str) -> Operation:
    def show_schema(request: RouteRequest) -> WSGIApp:
        return json_response(schemas.SCHEMAS[name])

    show_schema.__name__ = f"show_schema_{name}"
    summary = f"The JSON schema of {name}"
    return Operation(
        show_schema, policy.SHOW_SCHEMA, summary, {OK: ("A JSON schema", "json_schema")}
    )


def show_openapi(request: RouteRequest) -> WSGIApp:
    """Return the OpenAPI document."""
    return json_response(document())


@cache
def document() -> schemas.Json:
    """Return the OpenAPI document of the filter's routes."""
    return openapi.document(ROUTES)


ROUTES: Final[dict[str, dict[str, Operation]]] = {
    paths.RELATIONS: {
        "GET": Operation(
            route_handlers.list_relations,
            policy.LIST_RELATIONS,
            "Relations, newest first",
            {OK: ("A page of relations", "relations")},
            filters=parameters.FILTERS | parameters.PAGE,
        ),
        "POST": Operation(
            route_handlers.attach,
            policy.CREATE_RELATION,
            "Attach an existing image to a resource, or up to 100 images (recording role)",
            {
                OK: (
                    "The relation was recorded before; or one result for each of several relations",
                    "relation_or_recorded_relations",
                ),
                CREATED: ("The relation is recorded", "relation"),
            },
            (NOT_FOUND, CONFLICT, TOO_LARGE),
            body="one_or_more_new_relations",
        ),
    },
    paths.ORIGINS: {
        "GET": Operation(
            route_handlers.list_origins,
            policy.LIST_ORIGINS,
            "From which other resource a resource comes, newest first",
            {OK: ("A page of origins", "origins")},
            filters=parameters.ORIGIN_FILTERS | parameters.PAGE,
        ),
        "POST": Operation(
            route_handlers.report_origins,
            policy.CREATE_ORIGIN,
            "Record the origins of resources (recording role)",
            {OK: ("One result for each origin, in their order", "recorded_origins")},
            (TOO_LARGE,),
            body="new_origins",
        ),
    },
    paths.ORIGIN: {
        "DELETE": Operation(
            route_handlers.remove_origin,
            policy.DELETE_ORIGIN,
            "Remove an origin that was reported wrongly (recording role or administrator)",
            {NO_CONTENT: ("The origin is removed",)},
            (NOT_FOUND,),
            parameters.ORIGIN,
        )
    },
    paths.WITNESSES: {
        "POST": Operation(
            route_handlers.report_coverage,
            policy.REPORT_COVERAGE,
            "Report that a process of a witness lost nothing for a time (recording role)",
            {OK: ("The whole interval that the process covers", "heartbeat")},
            (TOO_LARGE,),
            body="new_heartbeat",
        )
    },
    paths.IMAGE_RELATIONS: {
        "GET": Operation(
            route_handlers.list_image_relations,
            policy.LIST_RELATIONS,
            "Relations of one image",
            {OK: ("A page of relations", "relations")},
            (NOT_FOUND,),
            parameters.IMAGE_FILTERS | parameters.PAGE,
        )
    },
    paths.RELATION: {
        "DELETE": Operation(
            route_handlers.detach,
            policy.DELETE_RELATION,
            "Detach an image from a resource (recording role or administrator)",
            {
                OK: (
                    "The report is rolled back; the relation stays, because others reported it too",
                    "relation",
                ),
                NO_CONTENT: ("The relation is removed",),
            },
            (NOT_FOUND,),
            parameters.DETACHMENT,
        )
    },
    paths.ANCESTRY: {
        "GET": Operation(
            lineage_handlers.list_ancestry,
            policy.SHOW_LINEAGE,
            "The chain of images and resources from which an image was made, nearest first",
            {OK: ("A page of ancestors", "ancestry")},
            (NOT_FOUND,),
            parameters.PAGE,
        )
    },
    paths.DESCENDANTS: {
        "GET": Operation(
            lineage_handlers.list_descendants,
            policy.SHOW_LINEAGE,
            "All images that were made from an image, directly or indirectly",
            {OK: ("A page of descendants", "descendants")},
            (NOT_FOUND,),
            parameters.DESCENDANT_FILTERS | parameters.PAGE,
        )
    },
    paths.DEPENDENTS: {
        "GET": Operation(
            dependent_handlers.list_dependents,
            policy.SHOW_DEPENDENTS,
            "The resources that depend on an image, or on an image that was made from it",
            {OK: ("A page of resources", "dependents")},
            (NOT_FOUND,),
            parameters.DEPENDENT_FILTERS | parameters.PAGE,
        )
    },
    paths.DEPENDENT_SUMMARY: {
        "GET": Operation(
            dependent_handlers.summarize_dependents,
            policy.SHOW_DEPENDENTS,
            "The number of these resources by type, or by project and type",
            {
                OK: (
                    "The numbers; or with group_by a page of projects",
                    "dependent_summary_or_projects",
                )
            },
            (NOT_FOUND,),
            parameters.DEPENDENT_GROUPS | parameters.PAGE,
        )
    },
    paths.INSTANCES: {
        "GET": Operation(
            route_handlers.list_instances,
            policy.LIST_INSTANCES,
            "Resources and their images",
            {OK: ("A page of resources", "instances")},
            filters=parameters.INSTANCE_FILTERS | parameters.PAGE,
        )
    },
    paths.INSTANCE: {
        "GET": Operation(
            route_handlers.show_instance,
            policy.SHOW_INSTANCE,
            "One resource",
            {OK: ("The resource", "instance")},
            (NOT_FOUND,),
            parameters.RESOURCE,
        ),
        "DELETE": Operation(
            route_handlers.end_instance,
            policy.DELETE_INSTANCE,
            "Record that the resource was deleted (recording role or administrator)",
            {NO_CONTENT: ("The deletion is recorded",)},
            (NOT_FOUND,),
            parameters.RESOURCE,
        ),
    },
    paths.USAGES: {
        "GET": Operation(
            route_handlers.list_usages,
            policy.SHOW_USAGES,
            "How many servers and volumes were made from each image of image_ids",
            {OK: ("One row per image, in the order of image_ids", "usages")},
            filters=parameters.USAGE_FILTERS,
        ),
        "POST": Operation(
            route_handlers.find_usages,
            policy.SHOW_USAGES,
            f"The same for up to {schemas.IMAGE_IDS_MAX} images, without changing anything",
            {OK: ("One row per image, in the order of image_ids", "usages")},
            (TOO_LARGE,),
            body="image_ids",
        ),
    },
    paths.RESOURCE_TYPES: {
        "GET": Operation(
            route_handlers.list_resource_types,
            policy.LIST_RESOURCE_TYPES,
            "Registered types of resources that may have leases (administrator)",
            {OK: ("All registered types", "resource_types")},
        ),
        "POST": Operation(
            route_handlers.register_resource_type,
            policy.CREATE_RESOURCE_TYPE,
            "Register a type of resources that may have leases (administrator)",
            {
                OK: ("The type was registered before", "resource_type"),
                CREATED: ("The type is registered", "resource_type"),
            },
            (CONFLICT, TOO_LARGE),
            body="new_resource_type",
        ),
    },
    paths.RESOURCE_TYPE: {
        "DELETE": Operation(
            route_handlers.remove_resource_type,
            policy.DELETE_RESOURCE_TYPE,
            "Remove a type of resources; its expired leases stay (administrator)",
            {NO_CONTENT: ("The type is removed",)},
            (NOT_FOUND, CONFLICT),
        )
    },
    paths.INSTALLATIONS: {
        "GET": Operation(
            route_handlers.list_installations,
            policy.LIST_INSTALLATIONS,
            "Registered installations (administrator)",
            {OK: ("All registered installations", "installations")},
        ),
        "POST": Operation(
            route_handlers.register_installation,
            policy.CREATE_INSTALLATION,
            "Register an installation (administrator)",
            {
                OK: ("The installation was registered before", "installation"),
                CREATED: ("The installation is registered", "installation"),
            },
            (CONFLICT, TOO_LARGE),
            body="new_installation",
        ),
    },
    paths.INSTALLATION: {
        "DELETE": Operation(
            route_handlers.unregister_installation,
            policy.DELETE_INSTALLATION,
            "Remove the registration of an installation; its relations stay (administrator)",
            {NO_CONTENT: ("The registration is removed",)},
            (NOT_FOUND,),
        )
    },
    paths.INFO: {
        "GET": Operation(
            route_handlers.show_info,
            policy.SHOW_INFO,
            "The capabilities and the state of this deployment",
            {OK: ("Version, kinds, limits and options", "info")},
        )
    },
    **{paths.SCHEMA.format(name=name): {"GET": _schema(name)} for name in schemas.SCHEMAS},
    paths.OPENAPI: {
        "GET": Operation(
            show_openapi, policy.SHOW_SCHEMA, "This document", {OK: ("OpenAPI 3.1", "json_schema")}
        )
    },
}


@dataclass(frozen=True)
class Route:
    """A match of a path. Without an operation, the path supports only the ``allowed`` methods."""

    operation: Operation | None
    allowed: tuple[str, ...]
    ids: Mapping[str, str]


_ID: Final = re.compile(r"{(\w+)}")

LAST_SEGMENTS: Final = frozenset(
    _ID.sub("", path).rstrip("/").rpartition("/")[2] for path in ROUTES
)
"""The last fixed segment of each path. Without any of them, no path matches: a cheap check."""


def _mapper() -> Mapper:
    """Return a mapper with each method of each path, followed by the path for other methods."""
    mapper = Mapper(controller_scan=None, explicit=True)
    for path, methods in ROUTES.items():
        # the default pattern of Routes drops a line break at the end
        ids = dict.fromkeys(_ID.findall(path), "[^/]+")
        for method in methods:
            only = {"method": [method]}
            mapper.connect(path, action=method, _path=path, requirements=ids, conditions=only)
        mapper.connect(path, action=None, _path=path, requirements=ids)
    mapper.create_regs([])  # now, since two threads may send the first requests at the same time
    return mapper


_MAPPER: Final = _mapper()


def match(path: str, method: str) -> Route | None:
    """Return the route of ``path`` (below ``/v2``), or ``None`` if the filter has no such path."""
    found: dict[str, Any] | None = _MAPPER.match(path, {"REQUEST_METHOD": method})
    if found is None:
        return None
    action, template = found.pop("action"), found.pop("_path")
    if template.format(**found) != path:  # Routes matches a path that ends in a line break
        return None
    methods = ROUTES[template]
    return Route(None if action is None else methods[action], tuple(methods), found)


def handle(
    app: WSGIApp, database: Database, caller: Caller, route: Route, environ: Environ
) -> WSGIApp:
    """Return the response to a request that matched ``route``.

    :raises NotIdentified: if the caller has no valid token
    :raises MethodNotAllowed: if the path does not support the method
    :raises BadInput: if the query is malformed or has unknown parameters
    :raises Forbidden: if the policy does not permit the operation to the caller
    :raises RelatedImagesError: if the operation fails
    """
    caller.require_identity()
    operation = route.operation
    if operation is None:
        raise MethodNotAllowed(environ["REQUEST_METHOD"], route.allowed)
    query = paging.read(query_of(environ), operation.filters)
    caller.require(operation.rule)
    return operation.handler(RouteRequest(app, database, caller, environ, route.ids, query))


def list_rules() -> list[RuleDefault]:
    """Return the rules for oslopolicy-sample-generator: entry point ``oslo.policy.policies``."""
    operations: dict[policy.Rule, list[Any]] = {
        rule: [
            {"path": paths.API + path, "method": method}
            for path, methods in ROUTES.items()
            for method, operation in methods.items()
            if operation.rule == rule
        ]
        for rule in policy.RULES
    }
    operations[policy.CREATE_IMAGE].append({"path": paths.API + paths.IMAGES, "method": "POST"})
    return [_documented(rule, found) for rule, found in operations.items()]


def _documented(rule: policy.Rule, operations: list[Any]) -> RuleDefault:
    if not operations:  # other rules refer to it
        return RuleDefault(rule.name, rule.default, rule.description)
    return DocumentedRuleDefault(rule.name, rule.default, rule.description, operations)
