"""Read the relations of listed images, a page of images at a time."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from related_images import model, validation
from related_images.client.glance import PAGE, is_worth_a_page
from related_images.client.relations import RelationsClient
from related_images.client.results import Image
from related_images.model import Relation

_END: Final = datetime.min.replace(tzinfo=UTC)
"""Older than any image."""


class ImageRelations:
    """Read the relations of images that come from :meth:`RelationsClient.images`.

    No route returns the relations of several images. So pages of all relations are read, the
    newest first, while they are worth it. The relation of an image is not older than the image.
    Therefore all relations of an image are known when the pages reach relations that are older than
    the image. The relations of other images are read by image ID.

    :param client: the client for the relations
    :param kind: the kind of the relations; ``None`` for those of images made from a resource
    :param project_id: the owner of most images: the project of the relations on the pages
    :param filters: other filters of :meth:`RelationsClient.relations`
    """

    def __init__(
        self,
        client: RelationsClient,
        kind: str | None,
        project_id: str | None = None,
        **filters: Any,
    ) -> None:
        self._client = client
        self._kinds = model.MADE_FROM if kind is None else (kind,)
        self._filters = filters
        # one list for all kinds: the filter may search long for the relations of a rare kind
        self._unread = client.relations(kind=kind, project_id=project_id, page_size=PAGE, **filters)
        self._found: dict[str, list[Relation]] = defaultdict(list)
        self._reached: datetime | None = None
        """The time of the oldest relation that was read; ``None`` before the first page."""
        self._images_seen = self._pages_read = self._images_completed = 0

    def with_relations(self, images: Iterable[Image]) -> Iterator[tuple[Image, list[Relation]]]:
        """Yield each image with its relations. Images are read when needed, a page at a time.

        :param images: the images
        :raises GlanceError: if a request fails
        """
        remaining = iter(images)
        while page := list(itertools.islice(remaining, PAGE)):
            self._images_seen += len(page)
            incomplete = self._read_pages(page)
            for image in page:
                found = self._found.pop(image.id, [])
                # if none was found, the image may be newer than the first page of relations
                is_known = found and image.id not in incomplete
                yield image, found if is_known else list(self._of_image(image.id))

    def _read_pages(self, images: list[Image]) -> set[str]:
        """Read pages of relations while they are worth it.

        :returns: the IDs of those images that may have more relations
        """
        missing = images
        while missing := [image for image in missing if not self._is_complete(image)]:
            complete = self._images_completed + len(images) - len(missing)
            requests = self._images_seen * len(self._kinds)
            if self._pages_read and not is_worth_a_page(self._pages_read, complete, requests):
                break
            self._read_page()
        self._images_completed += len(images) - len(missing)
        return {image.id for image in missing}

    def _is_complete(self, image: Image) -> bool:
        if self._reached is None:
            return False
        created_at: datetime = validation.parse_time("created_at", image.created_at)
        return created_at > self._reached + validation.CLOCK_SKEW

    def _read_page(self) -> None:
        page = list(itertools.islice(self._unread, PAGE))
        self._pages_read += 1
        self._reached = page[-1].created_at if len(page) == PAGE else _END
        for relation in page:
            # another image may have had the ID
            if relation.kind in self._kinds and relation.image_deleted_at is None:
                self._found[relation.image_id].append(relation)

    def _of_image(self, image_id: str) -> Iterator[Relation]:
        for kind in self._kinds:
            for relation in self._client.relations(
                image_id=image_id, kind=kind, page_size=PAGE, **self._filters
            ):
                if relation.image_deleted_at is None:
                    yield relation
