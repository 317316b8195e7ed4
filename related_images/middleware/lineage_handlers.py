"""The handlers of the routes for the ancestry and the descendants of an image."""

from collections.abc import Iterable
from typing import Any

from related_images import validation
from related_images.db import Filters, lineage, listing
from related_images.db.lineage import (
    Chain,
    ChainPosition,
    Link,
    Tree,
    TreePosition,
    TreeStep,
    Wanted,
)
from related_images.db.resources_between import Via
from related_images.middleware import glance, paging
from related_images.middleware.responses import WSGIApp, json_response
from related_images.middleware.route_request import RouteRequest
from related_images.model import Ancestor, Descendant
from related_images.protocol import paths, schemas
from related_images.protocol.schemas import Json


def list_ancestry(request: RouteRequest) -> WSGIApp:
    """Return a page of the images from which an image was made, nearest first.

    :raises ImageNotFound: if neither Glance nor the recorded relations show the caller the image
    :raises MarkerUnknown: if the marker is invalid
    """
    image_id, query = request.image_id(), request.query
    after = _chain_position(query.marker)
    visible_to = request.caller.visible_to
    chain = lineage.ancestry(request.database, image_id, query.limit, after, visible_to)
    require_visible(request, image_id, chain.links)
    marker = None if chain.next is None else _chain_marker(chain.next)
    path = paths.href(paths.ANCESTRY, image_id=image_id)
    via = lineage.via(request.database, chain.links)
    entries = [_ancestor(link, via[link]) for link in chain.links]
    page = _page(image_id, "ancestry", entries, path, query, marker)
    return json_response(page | _cycle_flag(chain))


def list_descendants(request: RouteRequest) -> WSGIApp:
    """Return a page of the images that were made from an image, directly or indirectly.

    :raises ImageNotFound: if neither Glance nor the recorded relations show the caller the image
    :raises MarkerUnknown: if the marker is invalid
    """
    image_id, query = request.image_id(), request.query
    wanted = Wanted(image_id, visible_to=request.caller.visible_to, **query.filters)
    tree = lineage.descendants(request.database, wanted, query.limit, _tree_position(query.marker))
    require_visible(request, image_id, tree.branches)
    marker = None if tree.next is None else _tree_marker(tree.next)
    path = paths.href(paths.DESCENDANTS, image_id=image_id)
    via = lineage.via(request.database, [step.link for step in tree.branches])
    entries = [_descendant(step, via[step.link]) for step in tree.branches]
    page = _page(image_id, "descendants", entries, path, query, marker)
    return json_response(page | _cycle_flag(tree))


def require_visible(request: RouteRequest, image_id: str, found: Iterable[Any]) -> None:
    """Check that the caller sees the image in Glance or in the recorded relations.

    :raises ImageNotFound: if it does not
    """
    visible_to = request.caller.visible_to
    if visible_to is None and found:
        return
    of_image = Filters(image_id=image_id, visible_to=visible_to)
    if not listing.relations(request.database, of_image, 1, None).items:
        glance.get_image(request.app, request.environ, image_id)


def _page(
    image_id: str,
    name: str,
    entries: Iterable[Json],
    path: str,
    query: paging.Query,
    marker: str | None,
) -> Json:
    return {"image_id": image_id, **schemas.page(name, entries, path, query.kept, marker)}


def _cycle_flag(found: Chain | Tree) -> Json:
    """Return ``cycle`` if the relations contain one: then they contradict each other."""
    return {"cycle": True} if found.circular else {}


def _ancestor(link: Link, via: Via) -> Json:
    fields = _link_fields(link, via)
    return Ancestor(
        link.parent_image_id, image_deleted_at=link.parent_deleted_at, **fields
    ).as_json()


def _descendant(step: TreeStep, via: Via) -> Json:
    link = step.link
    return Descendant(
        link.image_id,
        step.depth,
        link.parent_image_id,
        image_deleted_at=link.image_deleted_at,
        **_link_fields(link, via),
    ).as_json()


def _link_fields(link: Link, via: Via) -> dict[str, Any]:
    return {
        "via": via,
        "kind": link.kind,
        "created_at": link.created_at,
        "project_id": link.project_id,
        "instance_ended_at": link.instance_ended_at,
    }


def _chain_marker(position: ChainPosition) -> str:
    return paging.encode_marker(position.key, position.passed, str(position.pages))


def _chain_position(marker: str | None) -> ChainPosition | None:
    if marker is None:
        return None
    return ChainPosition(
        *paging.decode_marker(
            marker, validation.image_id, validation.image_id, paging.marker_number
        )
    )


def _tree_marker(position: TreePosition) -> str:
    return paging.encode_marker(
        position.key, str(position.depth), paging.UPWARDS if position.upwards else ""
    )


def _tree_position(marker: str | None) -> TreePosition | None:
    if marker is None:
        return None
    key, depth, state = paging.decode_marker(marker, validation.image_id, paging.marker_number, str)
    return TreePosition(key, depth, state == paging.UPWARDS)
