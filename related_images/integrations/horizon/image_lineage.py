"""The lineage of an image as a picture and as a table."""

import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from django.urls import reverse

from related_images.client import ClientError, DependentCounts, DependentSummary, DrawingFailed
from related_images.client.graph_drawing import IMAGE, Node, fold, svg
from related_images.client.lineage import lineage
from related_images.client.names import Names
from related_images.integrations.horizon import services
from related_images.model import SERVER, VOLUME, VOLUME_SNAPSHOT

LOG = logging.getLogger(__name__)

ROWS: Final = 200
"""The largest number of descendants, and of live and of ended dependents, that are read."""
PAGES_READ: Final = 5
"""The number of pages of dependents that are worth reading to find :data:`ROWS` of them."""
WIDTH: Final = 8
"""The number of images or resources below one node; the others are counted."""
NAMED: Final = 5
"""The number of resources that the dialog names."""

PAGES: Final = {
    SERVER: "horizon:project:instances:detail",
    VOLUME: "horizon:project:volumes:detail",
    VOLUME_SNAPSHOT: "horizon:project:snapshots:detail",
}
"""The Django pages of resources."""

_CLASS: Final = re.compile(r'(<g id="\w+") class="(\w+)"')
"""The classes of Graphviz, for some of which Horizon has styles of its own."""
_PROLOGUE: Final = re.compile(r"\A.*?(?=<svg\b)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A node of the lineage in the table."""

    depth: int
    node: Node
    url: str | None
    above: str


@dataclass(frozen=True)
class Lineage:
    """What the page of an image shows.

    :ivar picture: the picture as SVG; empty if it could not be drawn
    """

    rows: list[Row]
    picture: str
    summary: DependentSummary

    @property
    def live(self) -> list[tuple[str, DependentCounts]]:
        """The numbers of the types of resources that depend on the image now."""
        return [(type, counts) for type, counts in self.summary.by_type.items() if counts.live]


def load(request: Any, image_id: str) -> Lineage:
    """Return the lineage of an image, with a bounded number of requests.

    :raises ClientError: if a request fails
    """
    relations = services.relations(request)
    summary = relations.dependent_summary(image_id)
    states = _worth_reading(summary)
    root = lineage(relations, names(request), image_id, limit=ROWS, states=states)
    fold(root, WIDTH)
    return Lineage(_rows(root), _picture(root), summary)


def _worth_reading(summary: DependentSummary) -> list[bool]:
    """Return which dependents to read: the live ones, the ended ones, both or none.

    Each page of the API reads live and ended dependents, but lists only one of them. So the list of
    live dependents has short pages if many dependents have ended, and the other way round.
    """
    live, ended = (
        sum(getattr(counts, state) for counts in summary.by_type.values())
        for state in ("live", "ended")
    )
    total = live + ended
    return [
        state
        for state, number in ((True, live), (False, ended))
        if number and (total <= PAGES_READ * ROWS or number * PAGES_READ >= total)
    ]


def names(request: Any) -> Names:
    """Return what looks up the names of images, servers and volumes."""
    listings = {
        SERVER: services.Listing(request, services.COMPUTE, "servers"),
        VOLUME: services.Listing(request, services.BLOCK_STORAGE, "volumes"),
    }
    relations, project = services.relations(request), request.user.project_id
    return Names(relations, project, listings, ClientError, LOG.info)


def url_of(node: Node) -> str | None:
    """Return the page of an image or a resource; ``None`` if it has none or was deleted."""
    if node.ended_at or not node.id:
        return None
    if node.type == IMAGE:
        # it leads to the page of AngularJS or that of Django
        return str(reverse("horizon:project:images:images:detail", args=[node.id]))
    page = PAGES.get(node.type)
    return None if page is None else str(reverse(page, args=[node.id]))


def _rows(root: Node) -> list[Row]:
    rows, above = [], {id(root): ""}
    for depth, node in root.walk():
        above |= dict.fromkeys(map(id, node.children), node.name or node.id)
        rows.append(Row(depth, node, url_of(node), above[id(node)]))
    return rows


def _picture(root: Node) -> str:
    # a picture that is not wider than the page needs no scrolling
    widths = Counter(depth for depth, _ in root.walk())
    is_vertical = max(widths.values()) < len(widths)
    try:
        drawn = svg(root, url_of, is_short=True, is_vertical=is_vertical)
    except DrawingFailed as error:
        LOG.info("%s", error)
        return ""
    return _CLASS.sub(r'\1 class="related-images-\2"', _PROLOGUE.sub("", drawn))


@dataclass
class Dependents:
    """What depends on some images.

    :ivar numbers: the numbers of live resources by type
    :ivar names: the names of some of them
    """

    numbers: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    is_used_by_others: bool = False


def dependents(request: Any, image_ids: list[str]) -> Dependents:
    """Return what depends on images, with two requests for each and those for the names.

    :raises ClientError: if a request fails
    """
    relations, naming, found = services.relations(request), names(request), Dependents()
    for image_id in image_ids:
        summary = relations.dependent_summary(image_id)
        found.is_used_by_others |= summary.used_by_others is True
        live = {type: counts.live for type, counts in summary.by_type.items() if counts.live}
        for type, number in live.items():
            found.numbers[type] = found.numbers.get(type, 0) + number
        left = NAMED - len(found.names)
        if live and left > 0:
            named = naming.add_to(relations.dependents(image_id, limit=left))
            found.names += [one.server_name or one.row.instance_id for one in named]
    return found
