"""The handlers of the filter's routes, except those of :mod:`.lineage_handlers`.

A handler takes a :class:`RouteRequest` and returns the response. It raises an error of
:mod:`related_images.errors` for a response that is an error.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime
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
    usages,
)
from related_images.errors import BadInput, Conflict, FieldInvalid, Forbidden, StoreUnavailable
from related_images.middleware import (
    attach_relation,
    glance,
    paging,
    record_origins,
)
from related_images.middleware.create_image import json_object
from related_images.middleware.environ import request_id
from related_images.middleware.responses import WSGIApp, json_response, no_content, status_of
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

    :raises RecordingForbidden: if the caller has no recording role
    :raises BadInput: if the body is malformed
    :raises ImageNotFound: if the image does not exist or the caller may not see it
    :raises RelationConflict: if the relation is recorded with another label
    :raises ImageBeingDeleted: if a ``boot`` is recorded while Glance deletes the image
    """
    request.caller.require_recording_role()
    body = fields(
        json_object(request.environ),
        required=attach_relation.REQUIRED_FIELDS,
        optional=attach_relation.OPTIONAL_FIELDS,
    )
    new = attach_relation.new_relation(body, request.app, request.environ, request.caller)
    reporter = request.caller.reporter()
    found, created = attach_relation.attach(
        new, request.app, request.environ, request.database, reporter
    )
    if created:
        LOG.info("attached image %s to %s (%s)", new.image_id, new.instance, new.kind)
    return json_response(schemas.linked(found), HTTPStatus.CREATED if created else HTTPStatus.OK)


def detach(request: RouteRequest) -> WSGIApp:
    """Remove a relation, or roll back the caller's own report of it.

    :returns: 204 if the relation is removed, 200 with the relation if others reported it too
    :raises RecordingForbidden: if the caller has neither a recording role nor an admin role
    :raises RelationNotFound: if there is no such relation
    """
    request.caller.require_removal_role()
    own_report, recorded_at = paging.report_to_roll_back(request.query.filters)
    if own_report is not None:
        request.caller.require_recording_role()
    ref, image_id, kind = request.instance(), request.image_id(), model.kind(request.ids["kind"])
    remaining = None
    if own_report is None:
        recording.detach(request.database, ref, image_id, kind, request.caller.remover())
    else:
        reporter = request.caller.reporter()
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

    :raises RecordingForbidden: if the caller has no recording role
    :raises BadInput: if the body has no list of origins
    :raises StoreUnavailable: if the database is unavailable; the origins before stay recorded
    """
    request.caller.require_recording_role()
    items = record_origins.items(json_object(request.environ))
    return json_response({"origins": [_recorded(request, item) for item in items]})


def _recorded(request: RouteRequest, item: Any) -> schemas.Json:
    try:
        new = record_origins.new_origin(item)
        origin, created = origins.record(request.database, new, request.caller.reporter())
    except (BadInput, Forbidden, Conflict) as error:
        return {"status": status_of(error), "error": schemas.described(error)}
    if created:
        LOG.info("recorded that %s comes from %s", new.instance, new.source or "no other resource")
    return {
        "status": HTTPStatus.CREATED if created else HTTPStatus.OK,
        "origin": origin.as_json(),
    }


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

    :raises RecordingForbidden: if the caller has neither a recording role nor an admin role
    :raises InstanceNotFound: if the resource is not recorded
    """
    request.caller.require_removal_role()
    ref = request.instance()
    recording.end_instance(request.database, ref, request.caller.remover())
    LOG.info(
        "recorded that %s was deleted: %s [%s]",
        ref,
        *(request.caller.description, request_id(request.environ)),
    )
    return no_content()


def list_usages(request: RouteRequest) -> WSGIApp:
    """Return how many servers and volumes were made from each of the given images."""
    image_ids = request.query.filters[parameters.IMAGE_IDS]
    visible_to = request.caller.visible_to
    found = usages.usages(request.database, image_ids, visible_to, _owners(request, image_ids))
    rows = [row.as_json() for row in found]
    return json_response({"usages": rows, "all_projects": visible_to is None})


def _owners(request: RouteRequest, image_ids: list[str]) -> dict[str, str | None] | None:
    """Return the owners of the images for which the caller may know whether others use them.

    Glance is asked for all images, so that neither the response nor its time depends on whether
    others use an image that the caller does not own.

    :returns: owners by image ID, or ``None`` if Glance fails
    """
    found = glance.image_owners(request.app, request.environ, image_ids)
    if found is None or request.caller.sees_all_projects:
        return found
    project_id = request.caller.project_id
    return {
        id: owner for id, owner in found.items() if project_id is not None and owner == project_id
    }


def list_installations(request: RouteRequest) -> WSGIApp:
    """Return all registered installations.

    :raises AdminOnly: if the caller is not an administrator
    """
    request.caller.require_admin_role()
    found = installations.registered(request.database)
    return json_response({"installations": [row.as_json() for row in found]})


def register_installation(request: RouteRequest) -> WSGIApp:
    """Register an installation; 201, or 200 if it is registered already.

    :raises AdminOnly: if the caller is not an administrator
    :raises BadInput: if the body is malformed
    :raises InstallationConflict: if it is registered with another name or other service users
    """
    request.caller.require_admin_role()
    body = fields(
        json_object(request.environ), required=("uuid", "name"), optional=("service_users",)
    )
    uuid = validation.installation_uuid(body["uuid"])
    name, users = validation.text("name", body["name"]), body.get("service_users", [])
    if not isinstance(users, list):
        raise FieldInvalid("the field service_users is malformed; give a list of objects")
    service_users = [_service_user(one) for one in users]
    found, created = installations.register(request.database, uuid, name, service_users)
    return json_response(found.as_json(), HTTPStatus.CREATED if created else HTTPStatus.OK)


def _service_user(given: object) -> model.ServiceUser:
    if not isinstance(given, dict):
        raise FieldInvalid(
            f"the field service_users has the item {validation.shown(given)}; give an object with "
            "user_id and optionally resource_types"
        )
    body = fields(given, required=("user_id",), optional=("resource_types",))
    return model.service_user(body["user_id"], body.get("resource_types"))


def unregister_installation(request: RouteRequest) -> WSGIApp:
    """Remove the registration of an installation; its relations stay.

    :raises AdminOnly: if the caller is not an administrator
    :raises InstallationNotFound: if it is not registered
    """
    request.caller.require_admin_role()
    installations.unregister(request.database, validation.installation_uuid(request.ids["uuid"]))
    return no_content()


def show_info(request: RouteRequest) -> WSGIApp:
    """Return the version, kinds, limits, options and state of this deployment."""
    # before is_up(): if the database hangs, this query is the one that notices it
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
        "nova_rotation": settings.nova_rotation,
        "database": "up" if is_up else "down",
        "recording": {"available": is_up, "allowed": request.caller.may_record},
        **reconciliation,
    }
    return json_response(info)


def _reconciliation(request: RouteRequest) -> schemas.Json:
    """Return the last reconciliation, and the count of later relations for who may see it."""
    last = unreconciled = None
    with suppress(StoreUnavailable):
        last = reconciliation_state.reconciliation(request.database)
        if request.caller.sees_all_projects:
            unreconciled = reconciliation_state.unreconciled(request.database, last)
    if last and not request.caller.sees_all_projects:
        last = {name: last[name] for name in ("until", "finished_at")}
    return {"last_reconciliation": last, "unreconciled": unreconciled}
