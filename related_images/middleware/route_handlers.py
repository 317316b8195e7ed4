"""The handlers of the filter's routes, except those of :mod:`.lineage_handlers`.

A handler takes a :class:`RouteRequest` and returns the response. It raises an error of
:mod:`related_images.errors` for a response that is an error.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus
from typing import Any

import related_images
from related_images import model, validation
from related_images.db import (
    Filters,
    installations,
    instances,
    listing,
    origins,
    reconciliation_state,
    recording,
    resource_types,
    witnesses,
)
from related_images.errors import (
    FieldInvalid,
    InstanceNotFound,
    RelationNotFound,
    StoreUnavailable,
)
from related_images.middleware import (
    attach_relation,
    batches,
    glance,
    image_use,
    paging,
    policy,
    record_origins,
)
from related_images.middleware.create_image import json_object
from related_images.middleware.environ import request_id
from related_images.middleware.responses import WSGIApp, json_response, no_content
from related_images.middleware.route_request import RouteRequest, fields
from related_images.protocol import image_list, parameters, paths, schemas

LOG = logging.getLogger(__name__)


def list_relations(request: RouteRequest) -> WSGIApp:
    """Return a page of relations, newest first."""
    return json_response(_relations(request, request.query, paths.href(paths.RELATIONS)))


def list_image_relations(request: RouteRequest) -> WSGIApp:
    """Return a page of the relations of one image, newest first.

    :raises ImageNotFound: if neither Glance nor the recorded relations show the caller the image
    """
    image_id = request.image_id()
    query = request.query
    query.filters["image_id"] = image_id
    body = _relations(request, query, paths.href(paths.IMAGE_RELATIONS, image_id=image_id))
    if not body["relations"] and not _has_relations(request, image_id):
        glance.get_image(request.app, request.environ, image_id)
    return json_response(body)


def _has_relations(request: RouteRequest, image_id: str) -> bool:
    """Return whether the caller sees relations of the image. Glance may have purged the image."""
    filters = Filters(image_id=image_id, visible_to=request.caller.visible_to)
    return bool(listing.relations(request.database, filters, 1, None).items)


def _relations(request: RouteRequest, query: paging.Query, path: str) -> schemas.Json:
    filters = Filters(**query.filters, visible_to=request.caller.visible_to)
    after = paging.relation_position(query.marker)
    found = listing.relations(request.database, filters, query.limit, after)
    marker = paging.relation_marker(found.items[-1]) if found.more else None
    rows = map(schemas.linked, found.items)
    return schemas.page("relations", rows, path, query.kept, marker)


def attach(request: RouteRequest) -> WSGIApp:
    """Attach an existing image to a resource; 201, or 200 if the relation is recorded already.

    A body with ``relations`` has up to 100 of them. Each is recorded in a transaction of its own,
    and has a result of its own.

    :raises BadInput: if the body is malformed
    :raises ImageNotFound: if the image does not exist or the caller cannot see it
    :raises RelationConflict: if the relation is recorded with another label
    :raises ImageBeingDeleted: if a ``boot`` or ``use`` is recorded while Glance deletes the image
    :raises InstanceEnded: if a ``use`` by a deleted resource is recorded
    :raises LeaseLimitReached: if the project has too many leases
    :raises StoreUnavailable: if the database is unavailable; the relations before stay recorded
    """
    body, record = json_object(request.environ), partial(_attached, request, _image_cache(request))
    if "relations" in body:
        given = batches.items(body, schemas.COMPONENTS["new_relations"])
        return json_response({"relations": batches.results("relation", record, given)})
    found, created = record(body)
    return json_response(found, HTTPStatus.CREATED if created else HTTPStatus.OK)


def _image_cache(request: RouteRequest) -> Callable[[str], dict[str, Any]]:
    """Return a function that asks Glance for an image, but only once in this request."""
    return cache(partial(glance.get_image, request.app, request.environ))


def _attached(
    request: RouteRequest, get_image: Callable[[str], dict[str, Any]], given: Any
) -> tuple[schemas.Json, bool]:
    new = attach_relation.new_relation(given, get_image, request.caller)
    reporter = request.caller.reporter(policy.CREATE_RELATION)
    found, created = attach_relation.attach(
        new, request.app, request.environ, request.database, reporter
    )
    if created:
        LOG.info("attached image %s to %s (%s)", new.image_id, new.instance, new.kind)
    return schemas.linked(found), created


def detach(request: RouteRequest) -> WSGIApp:
    """Remove a relation, or roll back the caller's own report of it.

    :returns: 204 if the relation is removed, 200 with the relation if others reported it too
    :raises RelationNotFound: if there is no such relation
    """
    own_report, recorded_at = paging.report_to_roll_back(request.query.filters)
    if own_report is not None:
        request.caller.require(policy.CREATE_RELATION)
    ref, image_id, kind = request.instance(), request.image_id(), model.kind(request.ids["kind"])
    _require_visible_relation(request, ref, image_id, kind)
    remaining = None
    if own_report is None:
        remover = request.caller.remover(policy.DELETE_RELATION)
        recording.detach(request.database, ref, image_id, kind, remover)
    else:
        reporter = request.caller.reporter(policy.CREATE_RELATION)
        remaining = recording.revoke(request.database, ref, image_id, kind, reporter, recorded_at)
    action = (
        "detached"
        if remaining is None
        else f"rolled back the {own_report}, but others reported the relation too:"
    )
    LOG.info(
        "%s image %s from %s (%s): %s [%s]",
        *(action, image_id, ref, kind),
        *(request.caller.description, request_id(request.environ)),
    )
    if remaining is None:
        return no_content()
    return json_response(schemas.linked(remaining))


def _require_visible_relation(
    request: RouteRequest, ref: model.InstanceRef, image_id: str, kind: str
) -> None:
    """Check that a caller who may remove relations only by the policy file sees this one.

    :raises RelationNotFound: if it does not
    """
    if request.caller.sees_all_projects:
        return
    filters = Filters(
        installation_uuid=ref.installation_uuid,
        instance_id=ref.instance_id,
        resource_type=ref.resource_type,
        image_id=image_id,
        kind=kind,
        visible_to=request.caller.visible_to,
    )
    if not listing.relations(request.database, filters, 1, None).items:
        raise RelationNotFound(f"image {image_id} has no relation {kind} to {ref}")


def _require_own_instance(request: RouteRequest, ref: model.InstanceRef) -> None:
    """Check that a caller who may end resources only by the policy file owns this one.

    :raises InstanceNotFound: if it does not
    """
    caller = request.caller
    if caller.sees_all_projects:
        return
    found = instances.show(request.database, ref, caller.visible_to)
    if caller.project_id is None or found.project_id != caller.project_id:
        raise InstanceNotFound(f"the {ref} is not recorded")


def list_origins(request: RouteRequest) -> WSGIApp:
    """Return a page of origins, newest first."""
    query = request.query
    filters = Filters(**query.filters, visible_to=request.caller.visible_to)
    after = paging.origin_position(query.marker)
    found = origins.page(request.database, filters, query.limit, after)
    marker = paging.origin_marker(found.items[-1]) if found.more else None
    rows = [row.as_json() for row in found.items]
    path = paths.href(paths.ORIGINS)
    return json_response(schemas.page("origins", rows, path, query.kept, marker))


def report_origins(request: RouteRequest) -> WSGIApp:
    """Record up to 100 origins, each in a transaction of its own, and return one result for each.

    :raises BadInput: if the body has no list of origins
    :raises StoreUnavailable: if the database is unavailable; origins that were recorded before stay
    """
    given = batches.items(json_object(request.environ), schemas.COMPONENTS["new_origins"])
    record = partial(_recorded_origin, request)
    return json_response({"origins": batches.results("origin", record, given)})


def _recorded_origin(request: RouteRequest, given: Any) -> tuple[schemas.Json, bool]:
    new = record_origins.new_origin(given)
    reporter = request.caller.reporter(policy.CREATE_ORIGIN)
    origin, created = origins.record(request.database, new, reporter)
    if created:
        LOG.info("recorded that %s comes from %s", new.instance, new.source or "no other resource")
    return origin.as_json(), created


def remove_origin(request: RouteRequest) -> WSGIApp:
    """Remove an origin that was reported wrongly.

    :raises OriginNotFound: if there is no such origin
    """
    ref, since = request.instance(), request.query.filters[parameters.SINCE]
    _require_own_instance(request, ref)
    origins.remove(request.database, ref, since, request.caller.remover(policy.DELETE_ORIGIN))
    LOG.info(
        "removed the origin of %s since %s: %s [%s]",
        *(ref, validation.format_time(since)),
        *(request.caller.description, request_id(request.environ)),
    )
    return no_content()


def report_coverage(request: RouteRequest) -> WSGIApp:
    """Record the heartbeat of a process of a witness, and return the interval that it covers.

    :raises BadInput: if the body is malformed, or the time is in the future
    """
    body = fields(json_object(request.environ), schemas.COMPONENTS["new_heartbeat"])
    new = model.Heartbeat(
        body["installation_uuid"],
        body["witness"],
        body["process"],
        validation.time_field("from", body["from"]),
        validation.time_field("until", body["until"]),
    )
    reporter = request.caller.reporter(policy.REPORT_COVERAGE)
    found = witnesses.record(request.database, new, reporter)
    return json_response(found.as_json())


def list_instances(request: RouteRequest) -> WSGIApp:
    """Return a page of resources with the counts and dates of their images."""
    query = request.query
    latest_before = query.filters.pop(parameters.LATEST_BEFORE, None)
    filters = Filters(**query.filters, visible_to=request.caller.visible_to)
    after = paging.instance_position(query.marker)
    until = datetime.now(UTC) + validation.CLOCK_SKEW
    found = instances.page(request.database, filters, query.limit, after, latest_before, until)
    marker = paging.instance_marker(found.items[-1]) if found.more else None
    path = paths.href(paths.INSTANCES)
    rows = map(schemas.linked, found.items)
    return json_response(schemas.page("instances", rows, path, query.kept, marker))


def show_instance(request: RouteRequest) -> WSGIApp:
    """Return one resource with the counts and dates of its images.

    :raises InstanceNotFound: if the caller sees no relation of the resource
    """
    found = instances.show(request.database, request.instance(), request.caller.visible_to)
    return json_response(schemas.linked(found))


def end_instance(request: RouteRequest) -> WSGIApp:
    """Record that a resource was deleted.

    :raises InstanceNotFound: if the resource is not recorded
    """
    ref = request.instance()
    _require_own_instance(request, ref)
    remover = request.caller.remover(policy.DELETE_INSTANCE)
    recording.end_instance(request.database, ref, remover)
    LOG.info(
        "recorded that %s was deleted: %s [%s]",
        ref,
        *(request.caller.description, request_id(request.environ)),
    )
    return no_content()


def list_usages(request: RouteRequest) -> WSGIApp:
    """Return how many servers and volumes were made from each image of the query."""
    return _usages(request, request.query.filters[parameters.IMAGE_IDS])


def find_usages(request: RouteRequest) -> WSGIApp:
    """Return what :func:`list_usages` does, for more images: their IDs are in the body.

    :raises BadInput: if the body does not have 1 to
        :data:`related_images.protocol.schemas.IMAGE_IDS_MAX` IDs of images
    """
    body = json_object(request.environ)
    ids = batches.items(body, schemas.COMPONENTS["image_ids"], "image IDs")
    return _usages(request, list(dict.fromkeys(map(validation.image_id, ids))))


def _usages(request: RouteRequest, image_ids: list[str]) -> WSGIApp:
    found = image_use.usages_of(request.app, request.database, request.caller, image_ids)
    rows = [row.as_json() for row in found]
    return json_response({"usages": rows, "all_projects": request.caller.sees_all_projects})


def list_installations(request: RouteRequest) -> WSGIApp:
    """Return all registered installations."""
    found = installations.registered(request.database)
    return json_response({"installations": [row.as_json() for row in found]})


def register_installation(request: RouteRequest) -> WSGIApp:
    """Register an installation; 201, or 200 if it is registered already.

    :raises BadInput: if the body is malformed
    :raises InstallationConflict: if it is registered with another name, other service users or
        other witnesses
    """
    body = fields(json_object(request.environ), schemas.COMPONENTS["new_installation"])
    uuid = validation.installation_uuid(body["uuid"])
    name, users = validation.text("name", body["name"]), body.get("service_users", [])
    if not isinstance(users, list):
        raise FieldInvalid("the field service_users is malformed; give a list of objects")
    service_users = [_service_user(one) for one in users]
    witnesses = model.witnesses(body.get("witnesses", []))
    found, created = installations.register(request.database, uuid, name, service_users, witnesses)
    return json_response(found.as_json(), HTTPStatus.CREATED if created else HTTPStatus.OK)


def _service_user(given: object) -> model.ServiceUser:
    if not isinstance(given, dict):
        raise FieldInvalid(
            f"the field service_users has the item {validation.shown(given)}; give an object with "
            "user_id and optionally resource_types"
        )
    body = fields(given, schemas.SERVICE_USER)
    return model.service_user(body["user_id"], body.get("resource_types"))


def unregister_installation(request: RouteRequest) -> WSGIApp:
    """Remove the registration of an installation; its relations stay.

    :raises InstallationNotFound: if it is not registered
    """
    installations.unregister(request.database, validation.installation_uuid(request.ids["uuid"]))
    return no_content()


def list_resource_types(request: RouteRequest) -> WSGIApp:
    """Return all registered types of resources."""
    found = resource_types.registered(request.database)
    return json_response({"resource_types": [row.as_json() for row in found]})


def register_resource_type(request: RouteRequest) -> WSGIApp:
    """Register a type of resources; 201, or 200 if it is registered already.

    :raises BadInput: if the body is malformed
    :raises ResourceTypeConflict: if it is registered with another longest lease
    """
    body = fields(json_object(request.environ), schemas.COMPONENTS["new_resource_type"])
    days = body.get("longest_lease_days", model.LONGEST_LEASE_DAYS)
    found, created = resource_types.register(request.database, body["name"], days)
    return json_response(found.as_json(), HTTPStatus.CREATED if created else HTTPStatus.OK)


def remove_resource_type(request: RouteRequest) -> WSGIApp:
    """Remove a registered type of resources; its expired leases stay.

    :raises ResourceTypeNotFound: if it is not registered
    :raises ResourceTypeInUse: if it has live leases
    """
    resource_types.remove(request.database, validation.resource_type(request.ids["name"]))
    return no_content()


def show_info(request: RouteRequest) -> WSGIApp:
    """Return the version, kinds, limits, options and state of this deployment."""
    # before is_up(): if the database hangs, this query detects it
    settings, reconciliation = request.caller.settings, _reconciliation(request)
    is_up = request.database.is_up()
    info = {
        "version": related_images.__version__,
        "kinds": list(model.KINDS),
        "resource_types": list(model.RESOURCE_TYPES),
        "sources": list(model.SOURCES),
        "limits": {
            "page": parameters.LIMIT_MAX,
            "image_list_pages": image_list.PAGES,
            "instance_id_length": validation.INSTANCE_ID_LENGTH,
            "label_length": validation.LABEL_LENGTH,
        },
        "require_registered_installation": settings.require_registered_installation,
        "guard": settings.guard,
        "guard_counts": sorted(settings.guard_counts),
        "guard_actions": sorted(settings.guard_actions),
        "lease_types": _lease_types(request),
        "nova_rotation": settings.nova_rotation,
        "database": "up" if is_up else "down",
        "recording": {"available": is_up, "allowed": request.caller.may_record},
        **reconciliation,
        "coverage": _coverage(request),
    }
    return json_response(info)


def _lease_types(request: RouteRequest) -> list[schemas.Json] | None:
    with suppress(StoreUnavailable):
        return [one.as_json() for one in resource_types.registered(request.database)]
    return None


def _coverage(request: RouteRequest) -> list[schemas.Json] | None:
    """Return what the witnesses covered, or ``None`` if the database is unavailable."""
    with suppress(StoreUnavailable):
        return [one.as_json() for one in witnesses.coverages(request.database)]
    return None


def _reconciliation(request: RouteRequest) -> schemas.Json:
    """Return the last reconciliation.

    Callers who see all projects also get the number of relations recorded after it.
    """
    last = unreconciled = None
    with suppress(StoreUnavailable):
        last = reconciliation_state.reconciliation(request.database)
        if request.caller.sees_all_projects:
            unreconciled = reconciliation_state.unreconciled(request.database, last)
    if last and not request.caller.sees_all_projects:
        last = {name: last[name] for name in ("until", "finished_at")}
    return {"last_reconciliation": last, "unreconciled": unreconciled}
