"""The routes that tell where an image comes from and what was made from it."""

from collections.abc import Iterable
from typing import Any, Final

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
from related_images.errors import ParameterMalformed
from related_images.middleware import glance, paging
from related_images.middleware.responses import WSGIApp, written
from related_images.middleware.route_request import RouteRequest
from related_images.model import Ancestor, Descendant, InstanceRef
from related_images.protocol import paths, schemas
from related_images.protocol.schemas import Json

RISING: Final = "r"


def list_ancestry(call: RouteRequest) -> WSGIApp:
    image_id, query = call.image_id(), call.query
    after = _climb(query.marker)
    visible_to = call.caller.visible_to
    chain = lineage.ancestry(call.database, image_id, query.limit, after, visible_to)
    _must_see(call, image_id, chain.links)
    marker = None if chain.next is None else _climb_marker(chain.next)
    path = paths.href(paths.ANCESTRY, image_id=image_id)
    page = _page(image_id, "ancestry", map(_ancestor, chain.links), path, query, marker)
    return written(page | _circle(chain))


def list_descendants(call: RouteRequest) -> WSGIApp:
    image_id, query = call.image_id(), call.query
    wanted = Wanted(image_id, visible_to=call.caller.visible_to, **query.filters)
    tree = lineage.descendants(call.database, wanted, query.limit, _place(query.marker))
    _must_see(call, image_id, tree.branches)
    marker = None if tree.next is None else _place_marker(tree.next)
    path = paths.href(paths.DESCENDANTS, image_id=image_id)
    page = _page(image_id, "descendants", map(_descendant, tree.branches), path, query, marker)
    return written(page | _circle(tree))


def _must_see(call: RouteRequest, image_id: str, found: Iterable[Any]) -> None:
    """Answer for no image that the caller does not see here or in the registry.

    :raises ImageNotFound: if it sees it in neither
    """
    visible_to = call.caller.visible_to
    if visible_to is None and found:
        return
    of_image = Filters(image_id=image_id, visible_to=visible_to)
    if not listing.relations(call.database, of_image, 1, None).items:
        glance.image(call.app, call.environ, image_id)


def _page(
    image_id: str,
    name: str,
    entries: Iterable[Json],
    path: str,
    query: paging.Query,
    marker: str | None,
) -> Json:
    page = schemas.page(name, entries, path, query.kept, marker)
    del page["schema"]
    return {"image_id": image_id, **page}


def _circle(found: Chain | Tree) -> Json:
    """Told only where there is one: relations that contradict each other."""
    return {"cycle": True} if found.circular else {}


def _ancestor(link: Link) -> Json:
    made = _made(link)
    return Ancestor(link.parent_image_id, image_deleted_at=link.parent_deleted_at, **made).as_json()


def _descendant(step: TreeStep) -> Json:
    link = step.link
    return Descendant(
        link.image_id,
        step.depth,
        link.parent_image_id,
        image_deleted_at=link.image_deleted_at,
        **_made(link),
    ).as_json()


def _made(link: Link) -> dict[str, Any]:
    return {
        "via": InstanceRef(link.installation_uuid, link.instance_id),
        "kind": link.kind,
        "created_at": link.created_at,
        "project_id": link.project_id,
        "instance_ended_at": link.instance_ended_at,
    }


def _climb_marker(climb: ChainPosition) -> str:
    return paging.mark(climb.key, climb.passed, str(climb.pages))


def _climb(marker: str | None) -> ChainPosition | None:
    if marker is None:
        return None
    return ChainPosition(*paging.marked(marker, validation.image_id, validation.image_id, _number))


def _place_marker(place: TreePosition) -> str:
    return paging.mark(place.key, str(place.depth), RISING if place.upwards else "")


def _place(marker: str | None) -> TreePosition | None:
    if marker is None:
        return None
    key, depth, state = paging.marked(marker, validation.image_id, _number, str)
    return TreePosition(key, depth, state == RISING)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ParameterMalformed("a whole number is needed")
    return int(text)
