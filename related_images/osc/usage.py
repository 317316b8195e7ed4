"""``openstack image usage list``: which images are used, and which may be cleaned up."""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from related_images import validation
from related_images.client import Usage
from related_images.client.glance import HIDDEN, PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import (
    RelatedLister,
    shown_time,
    tell,
)
from related_images.protocol import paths

NEVER: Final = "never used"


@dataclass(frozen=True)
class Used:
    """An image as the registry shows it, and how much it is used."""

    image: Mapping[str, Any]
    usage: Usage

    @property
    def size(self) -> int:
        return self.image["size"] or 0

    @property
    def unused_since(self) -> str | None:
        if not self.usage.is_unused:
            return None
        if self.usage.instances == 0:
            return NEVER
        return shown_time(self.usage.unused_since)

    @property
    def idle_since(self) -> datetime | None:
        """The same as a time: one that was never used is idle since it is there."""
        if not self.usage.is_unused:
            return None
        if self.usage.instances == 0:
            return validation.parse_time("created_at", self.image["created_at"])
        return self.usage.unused_since


class ListImageUsage(RelatedLister):
    """List how many instances were started from each image, the largest image first.

    Hidden images are listed too. An instance counts as live until it is reported gone. That live
    instances of other projects use an image is told to its owner; who they are is not.
    """

    columns = (
        ("Image ID", lambda row: row.usage.image_id),
        ("Name", lambda row: row.image["name"]),
        ("Live Instances", lambda row: row.usage.live_instances),
        ("Unused Since", lambda row: row.unused_since),
        ("Size", lambda row: row.size),
    )
    more = (
        ("Instances Ever", lambda row: row.usage.instances),
        ("Used By Others", lambda row: row.usage.used_by_others),
        ("Visibility", lambda row: row.image["visibility"]),
        ("Project ID", lambda row: row.image["owner"]),
        ("Created At", lambda row: row.image["created_at"]),
        ("Hidden", lambda row: row.image["os_hidden"]),
        ("Protected", lambda row: row.image["protected"]),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--unused",
            action="store_true",
            help="only images from which no live instance was started, as far as this account may "
            "know",
        )
        parser.add_argument(
            "--unused-for",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="only those of which that has been so for this long, such as 90d; one that was "
            "never used counts from its creation",
        )
        parser.add_argument(
            "--visibility",
            choices=("public", "private", "shared", "community"),
            help="images of this visibility only",
        )
        arguments.add_project(parser, "images of")

    def found(self, given: argparse.Namespace) -> Iterator[Used]:
        rows = list(self._used(given))
        self._warn(rows)
        now = datetime.now(UTC)
        wanted = [row for row in rows if _is_wanted(row, given, now)]
        if given.unused or given.unused_for is not None:
            tell(f"{len(wanted)} images, {sum(row.size for row in wanted)} bytes\n")
        return iter(sorted(wanted, key=lambda row: row.size, reverse=True))

    def _used(self, given: argparse.Namespace) -> Iterator[Used]:
        images = {image["id"]: image for image in self._images(given)}
        known = [image_id for image_id in images if image_id == image_id.lower()]
        if len(known) < len(images):
            self.log.warning(
                "%d images are left out: no starts are recorded of an image whose id is not in "
                "lower case",
                len(images) - len(known),
            )
        usages = self.clients.relations.usages(known)
        return (Used(images[usage.image_id], usage) for usage in usages)

    def _images(self, given: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
        owner = resolve.project(self.app.client_manager, given.project)
        filters = {"limit": str(PAGE), "visibility": given.visibility, "owner": owner}
        query = [(name, text) for name, text in filters.items() if text is not None]
        glance = self.clients.relations.glance
        pages = itertools.chain.from_iterable(
            glance.pages(paths.IMAGES, [*query, ("os_hidden", hidden)]) for hidden in HIDDEN
        )
        return (image for page in pages for image in page.read(lambda body: body["images"]))

    def _warn(self, rows: list[Used]) -> None:
        """Say where an image that looks unused may be used all the same."""
        unknown = sum(row.usage.used_by_others is None for row in rows)
        if unknown:
            self.log.warning(
                "%d images count as used: Glance did not say who owns them, so it is not known "
                "whether other projects use them",
                unknown,
            )
        if not all(row.usage.all_projects for row in rows):
            self.log.warning(
                "only instances that this account sees are counted; others may use these images"
            )
        if rows and not any(row.usage.instances for row in rows):
            self.log.warning(
                "no start from any of these images is recorded: if starts are not reported here, "
                "this says nothing of their use"
            )


def _is_wanted(row: Used, given: argparse.Namespace, now: datetime) -> bool:
    if given.unused_for is not None:
        return row.idle_since is not None and now - row.idle_since >= given.unused_for
    return not given.unused or row.usage.is_unused
