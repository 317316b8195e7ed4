"""The handlers of the routes for the dependents of an image."""

from typing import Any, Final
from urllib.parse import quote, unquote

from related_images import validation
from related_images.db import dependent_summary, dependents
from related_images.db.dependents import PagePosition, Wanted
from related_images.errors import ParameterMalformed
from related_images.middleware import image_use, paging
from related_images.middleware.lineage_handlers import require_visible
from related_images.middleware.responses import WSGIApp, json_response
from related_images.middleware.route_request import RouteRequest
from related_images.model import InstanceRef, ProjectDependents
from related_images.protocol import parameters, paths, schemas

INSIDE: Final = "i"
"""The state in a marker: the walk is among the resources of an image."""


def list_dependents(request: RouteRequest) -> WSGIApp:
    """Return a page of the resources that depend on an image, directly or indirectly.

    :raises ImageNotFound: if neither Glance nor the recorded relations show the caller the image
    :raises MarkerUnknown: if the marker is invalid
    """
    image_id, query = request.image_id(), request.query
    filters = dict(query.filters)
    wanted = Wanted(
        image_id,
        is_live=filters.pop("live", True),
        visible_to=request.caller.visible_to,
        **filters,
    )
    after = _place(query.marker)
    page = dependents.dependents(request.database, wanted, query.limit, after)
    require_visible(request, image_id, page.items)
    marker = None if page.next is None else _marker(page.next)
    path = paths.href(paths.DEPENDENTS, image_id=image_id)
    rows = [one.as_json() for one in page.items]
    shown = schemas.page("dependents", rows, path, query.kept, marker)
    return json_response({"image_id": image_id, **shown})


def summarize_dependents(request: RouteRequest) -> WSGIApp:
    """Return the numbers of the resources that depend on an image, by type or by project.

    :raises ImageNotFound: if neither Glance nor the recorded relations show the caller the image
    :raises ParameterMalformed: if the parameters of a page are given without ``group_by``
    :raises MarkerUnknown: if the marker is invalid
    """
    image_id, query = request.image_id(), request.query
    is_grouped = parameters.GROUP_BY in query.filters
    paged = [name for name, _ in query.kept if name in parameters.PAGE]
    if not is_grouped and (paged or query.marker is not None):
        raise ParameterMalformed(
            "limit and marker are for the list of projects; give group_by=project too, or neither"
        )
    visible_to = request.caller.visible_to
    found = dependent_summary.summary(request.database, image_id, visible_to)
    require_visible(request, image_id, found.by_project)
    if is_grouped:
        return json_response(_projects(request, image_id, found))
    summary = image_use.summary_of(request.app, request.database, request.caller, image_id, found)
    return json_response(summary.as_json())


def _projects(
    request: RouteRequest, image_id: str, found: dependent_summary.Summary
) -> dict[str, Any]:
    """Return a page of projects in the order of their IDs; an unknown one comes first."""
    query = request.query
    names = sorted(name or "" for name in found.by_project)
    if query.marker is not None:
        (last,) = paging.decode_marker(query.marker, unquote)
        names = [name for name in names if name > last]
    shown = names[: query.limit]
    marker = paging.encode_marker(quote(shown[-1], safe="")) if len(names) > len(shown) else None
    rows = [
        ProjectDependents(name or None, found.by_project[name or None]).as_json() for name in shown
    ]
    path = paths.href(paths.DEPENDENT_SUMMARY, image_id=image_id)
    page = schemas.page("projects", rows, path, query.kept, marker)
    return {"image_id": image_id, **page, "lower_bound": found.is_lower_bound}


def _marker(place: PagePosition) -> str:
    is_inside = place.inside is not None
    state = INSIDE if is_inside else paging.UPWARDS if place.upwards else ""
    way = ",".join(map(_text, place.inside or ()))
    after = "" if place.after is None else _text(place.after)
    return paging.encode_marker(place.key, str(place.depth), state, way, after)


def _text(ref: InstanceRef) -> str:
    return f"{ref.resource_type}/{ref.installation_uuid}/{ref.instance_id}"


def _place(marker: str | None) -> PagePosition | None:
    """Return the place in a marker; ``None`` for no marker.

    :raises MarkerUnknown: if the marker is malformed
    """
    if marker is None:
        return None
    key, depth, state, way, after = paging.decode_marker(
        marker, validation.image_id, paging.marker_number, _state_of, _resources, _resources
    )
    is_inside = state == INSIDE
    return PagePosition(
        *(key, depth, state == paging.UPWARDS),
        inside=way if is_inside else None,
        after=after[0] if is_inside and after else None,
    )


def _state_of(text: str) -> str:
    if text not in ("", INSIDE, paging.UPWARDS):
        raise ParameterMalformed("the state in the marker is malformed")
    return text


def _resources(text: str) -> tuple[InstanceRef, ...]:
    return tuple(map(_resource, text.split(","))) if text else ()


def _resource(text: str) -> InstanceRef:
    resource_type, installation_uuid, instance_id = text.split("/")
    return InstanceRef(installation_uuid, instance_id, resource_type)
