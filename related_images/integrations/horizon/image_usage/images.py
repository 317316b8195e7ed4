"""The images that nobody uses, and how certain that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from related_images import validation
from related_images.client import RelationsClient, Usage
from related_images.integrations.horizon.pages import page
from related_images.protocol import paths


@dataclass(frozen=True)
class ImageRow:
    """An image as Glance shows it, and its usage."""

    image: Mapping[str, Any]
    usage: Usage

    @property
    def name(self) -> str:
        """The name of the image, or its ID."""
        return self.image["name"] or self.usage.image_id

    @property
    def size(self) -> int:
        """The bytes that its deletion frees."""
        return self.image["size"] or 0

    @property
    def created_at(self) -> datetime:
        """When the image was created."""
        return validation.parse_time("created_at", self.image["created_at"])


@dataclass(frozen=True)
class Witness:
    """A witness of an installation, and the last time that it covered.

    :ivar since: the begin of this time; ``None`` if it never reported
    :ivar until: the end of this time
    :ivar gaps: the number of gaps before it
    """

    name: str
    installation_uuid: str
    since: datetime | None
    until: datetime | None
    gaps: int


@dataclass(frozen=True)
class ImageUsage:
    """A page of the images that nobody uses.

    :ivar marker: the marker of the next page; ``None`` on the last page
    :ivar gain: the bytes of the images on this page
    :ivar reconciled_at: the end of the last reconciliation; ``None`` if there was none
    :ivar unreconciled: the number of images that it has to examine
    """

    rows: list[ImageRow]
    marker: str | None
    gain: int
    witnesses: list[Witness]
    reconciled_at: datetime | None
    unreconciled: int | None


def load(relations: RelationsClient, marker: str | None, limit: int) -> ImageUsage:
    """Return a page of the images that nobody uses, the largest first, with three requests.

    :param marker: the marker of the page; ``None`` for the first page
    :param limit: the number of images of a page
    :raises GlanceError: if a request fails
    """
    answer = relations.info().answer
    query = {
        "relation_in_use": "false",
        "visibility": "all",
        "sort": "size:desc",
        "limit": str(limit),
        "marker": marker,
    }
    found = page(relations, paths.IMAGES, "images", dict, query.items())
    images = {image["id"]: image for image in found.items}
    rows = [ImageRow(images[usage.image_id], usage) for usage in relations.usages(images)]
    reconciled_at = answer.get("last_reconciliation")
    return ImageUsage(
        rows,
        found.marker,
        sum(row.size for row in rows),
        [_witness(one) for one in answer.get("coverage") or ()],
        validation.parse_time("last_reconciliation", reconciled_at) if reconciled_at else None,
        answer.get("unreconciled"),
    )


def _witness(shown: Mapping[str, Any]) -> Witness:
    intervals = shown["intervals"]
    last = intervals[-1] if intervals else {"from": None, "until": None}
    since, until = (
        None if text is None else validation.parse_time("coverage", text)
        for text in (last["from"], last["until"])
    )
    gaps = max(len(intervals) - 1, 0)
    return Witness(shown["witness"], shown["installation_uuid"], since, until, gaps)
