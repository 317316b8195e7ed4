"""The handlers of our own routes. A handler parses, asks, serialises."""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus

import related_images
from related_images import model, validation
from related_images.db import Filters, installations, instances, listing, recording
from related_images.errors import StoreUnavailable
from related_images.middleware import (
    attach_relation,
    glance,
    paging,
)
from related_images.middleware.create_image import json_object
from related_images.middleware.environ import request_id
from related_images.middleware.responses import WSGIApp, no_content, written
from related_images.middleware.route_request import RouteRequest, fields
from related_images.protocol import parameters, paths, schemas

LOG = logging.getLogger(__name__)


def list_relations(call: RouteRequest) -> WSGIApp:
    return written(_relations(call, call.query, paths.href(paths.RELATIONS)))


def list_image_relations(call: RouteRequest) -> WSGIApp:
    image_id = call.image_id()
    query = call.query
    query.filters["image_id"] = image_id
    body = _relations(call, query, paths.href(paths.IMAGE_RELATIONS, image_id=image_id))
    if not body["relations"] and not _has_relations(call, image_id):
        glance.image(call.app, call.environ, image_id)
    return written(body)


def _has_relations(call: RouteRequest, image_id: str) -> bool:
    """Whether the caller sees the image here, though the registry may have forgotten it."""
    filters = Filters(image_id=image_id, visible_to=call.caller.visible_to)
    return bool(listing.relations(call.database, filters, 1, None).items)


def _relations(call: RouteRequest, query: paging.Query, path: str) -> schemas.Json:
    filters = Filters(**query.filters, visible_to=call.caller.visible_to)
    after = paging.relation_position(query.marker)
    found = listing.relations(call.database, filters, query.limit, after)
    marker = paging.relation_marker(found.items[-1]) if found.more else None
    rows = map(schemas.linked, found.items)
    return schemas.page("relations", rows, path, query.kept, marker)


def attach(call: RouteRequest) -> WSGIApp:
    call.caller.must_record()
    body = fields(
        json_object(call.environ),
        needed=attach_relation.NEEDED,
        optional=attach_relation.OPTIONAL,
    )
    new = attach_relation.relation_of(body, call.app, call.environ, call.caller)
    speaker = call.caller.speaker()
    found, created = attach_relation.attach(new, call.app, call.environ, call.database, speaker)
    if created:
        LOG.info("attached image %s to instance %s (%s)", new.image_id, new.instance_id, new.kind)
    return written(schemas.linked(found), HTTPStatus.CREATED if created else HTTPStatus.OK)


def detach(call: RouteRequest) -> WSGIApp:
    call.caller.must_remove()
    own_report, recorded_at = paging.own_report(call.query.filters)
    if own_report is not None:
        call.caller.must_record()
    ref, image_id, kind = call.instance(), call.image_id(), model.kind(call.ids["kind"])
    ids = (ref.installation_uuid, ref.instance_id, image_id, kind)
    left = None
    if own_report is None:
        recording.detach(call.database, *ids, call.caller.remover())
    else:
        left = recording.revoke(call.database, *ids, call.caller.speaker(), recorded_at)
    done = "detached" if left is None else f"took the {own_report} back, which others report too:"
    LOG.info(
        "%s image %s from instance %s of %s (%s): %s [%s]",
        *(done, image_id, ref.instance_id, ref.installation_uuid, kind),
        *(call.caller.described, request_id(call.environ)),
    )
    if left is None:
        return no_content()
    return written(schemas.linked(left))


def list_instances(call: RouteRequest) -> WSGIApp:
    query = call.query
    latest_before = query.filters.pop(parameters.LATEST_BEFORE, None)
    filters = Filters(**query.filters, visible_to=call.caller.visible_to)
    after = paging.instance_position(query.marker)
    until = datetime.now(UTC) + validation.CLOCK_SKEW
    found = instances.page(call.database, filters, query.limit, after, latest_before, until)
    marker = paging.instance_marker(found.items[-1]) if found.more else None
    path = paths.href(paths.INSTANCES)
    rows = map(schemas.linked, found.items)
    return written(schemas.page("instances", rows, path, query.kept, marker))


def show_instance(call: RouteRequest) -> WSGIApp:
    ref = call.instance()
    found = instances.show(
        call.database, ref.installation_uuid, ref.instance_id, call.caller.visible_to
    )
    return written(schemas.linked(found))


def end_instance(call: RouteRequest) -> WSGIApp:
    call.caller.must_remove()
    ref = call.instance()
    recording.end_instance(
        call.database, ref.installation_uuid, ref.instance_id, call.caller.remover()
    )
    LOG.info(
        "recorded that instance %s of %s was deleted: %s [%s]",
        *(ref.instance_id, ref.installation_uuid),
        *(call.caller.described, request_id(call.environ)),
    )
    return no_content()


def list_usages(call: RouteRequest) -> WSGIApp:
    image_ids = call.query.filters[parameters.IMAGE_IDS]
    visible_to = call.caller.visible_to
    found = listing.usages(call.database, image_ids, visible_to, _owners(call, image_ids))
    rows = [row.as_json() for row in found]
    return written({"usages": rows, "all_projects": visible_to is None})


def _owners(call: RouteRequest, image_ids: list[str]) -> dict[str, str | None] | None:
    """Whose the images are of which the caller may know whether others use them.

    Glance is asked about all of them, so that neither the answer nor its time tells more of an
    image that is not the caller's own.
    """
    found = glance.owners(call.app, call.environ, image_ids)
    if found is None or call.caller.sees_all:
        return found
    own = call.caller.project_id
    return {id: owner for id, owner in found.items() if own is not None and owner == own}


def list_installations(call: RouteRequest) -> WSGIApp:
    call.caller.must_administrate()
    found = installations.registered(call.database)
    return written({"installations": [row.as_json() for row in found]})


def register_installation(call: RouteRequest) -> WSGIApp:
    call.caller.must_administrate()
    body = fields(json_object(call.environ), needed=("uuid", "name"), optional=("service_user_id",))
    uuid = validation.installation_uuid(body["uuid"])
    name, user = validation.text("name", body["name"]), body.get("service_user_id")
    bound = None if user is None else validation.text("service_user_id", user)
    found, created = installations.register(call.database, uuid, name, bound)
    return written(found.as_json(), HTTPStatus.CREATED if created else HTTPStatus.OK)


def unregister_installation(call: RouteRequest) -> WSGIApp:
    call.caller.must_administrate()
    installations.unregister(call.database, validation.installation_uuid(call.ids["uuid"]))
    return no_content()


def show_info(call: RouteRequest) -> WSGIApp:
    # asked first: where the database hangs, the question finds out
    settings, reconciliation = call.caller.settings, _reconciliation(call)
    info = {
        "version": related_images.__version__,
        "kinds": list(model.KINDS),
        "sources": list(model.SOURCES),
        "limits": {
            "page": parameters.LIMIT_MOST,
            "images_of_instance": listing.IMAGES_LIMIT,
            "instance_id_length": validation.INSTANCE_ID_LENGTH,
            "label_length": validation.LABEL_LENGTH,
        },
        "require_registered_installation": settings.require_registered_installation,
        "guard": settings.guard,
        "nova_rotation": settings.nova_rotation,
        "database": "up" if call.database.is_up() else "down",
        **reconciliation,
    }
    return written(info)


def _reconciliation(call: RouteRequest) -> schemas.Json:
    """Null where the database is down; only for those who see everything is something counted."""
    last = unreconciled = None
    with suppress(StoreUnavailable):
        last = listing.reconciliation(call.database)
        if call.caller.sees_all:
            unreconciled = listing.unreconciled(call.database, last)
    if last and not call.caller.sees_all:
        last = {name: last[name] for name in ("until", "finished_at")}
    return {"last_reconciliation": last, "unreconciled": unreconciled}
