"""``openstack image usage list``: which images are used, and which may be deleted."""

import argparse
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client import Usage
from related_images.client.glance import HIDDEN, PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import UNKNOWN, OnSeveral, RelatedLister, shown_time, tell
from related_images.protocol import paths

NEVER: Final = "never"
"""Since when an image is unused from which no server was ever started."""

Image = Mapping[str, Any]


@dataclass(frozen=True)
class Used:
    """An image as Glance shows it, and how much it is used."""

    image: Image
    usage: Usage

    @property
    def size(self) -> int:
        """Bytes."""
        return self.image["size"] or 0

    @property
    def gain(self) -> int:
        """The bytes that its deletion frees: none while it is used, or may be."""
        return self.size if self.usage.is_unused else 0

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it stands in the list: no other image has the same."""
        return -self.gain, -self.size, self.usage.image_id

    @property
    def unused_since(self) -> str | None:
        if not self.usage.is_unused:
            return None
        if self.usage.instances == 0:
            return NEVER
        return shown_time(self.usage.unused_since)

    @property
    def idle_since(self) -> datetime | None:
        """The same as a time: one that was never used is idle since it was created."""
        if not self.usage.is_unused:
            return None
        if self.usage.instances == 0:
            return validation.parse_time("created_at", self.image["created_at"])
        return self.usage.unused_since


@dataclass
class Total:
    """What is to be said about all images that were read, of which few are kept.

    :ivar unknown: those of which it is not known whether other projects use them
    :ivar odd: those whose ID is not in lower case
    :ivar wanted: those that the filters leave, and ``gain`` their bytes
    """

    images: int = 0
    started: bool = False
    all_projects: bool = True
    unknown: int = 0
    odd: int = 0
    wanted: int = 0
    gain: int = 0

    def add(self, row: Used, *, is_wanted: bool) -> None:
        self.images += 1
        self.started |= row.usage.instances > 0
        self.all_projects &= row.usage.all_projects
        self.unknown += row.usage.used_by_others is None
        self.wanted += is_wanted
        self.gain += row.gain * is_wanted

    def warnings(self) -> Iterator[str]:
        """Where an image that looks unused may be used all the same."""
        if self.odd:
            yield (
                f"{self.odd} images are left out: no starts are recorded of an image whose ID is "
                "not in lower case"
            )
        if self.unknown:
            yield (
                f"{self.unknown} images count as used: Glance did not say who owns them, so it is "
                "not known whether other projects use them"
            )
        if not self.all_projects:
            yield "only servers that this account sees are counted; others may use these images"
        if self.images and not self.started:
            yield (
                "no start from any of these images is recorded: if starts are not reported here, "
                "this says nothing of their use"
            )


class ListImageUsage(OnSeveral, RelatedLister):
    """List how many servers were started from images, by the bytes that their deletion frees.

    An image that no live server uses frees its size; one that is used, or may be, frees nothing and
    comes after these. A server counts as live until it is reported gone. The owner of an image is
    told whether live servers of other projects use it, not which. Hidden images are listed too.

    Unless images are named, every image that this account sees is read and its use asked for before
    the first one can be shown, also where --limit or --marker select few: a page takes as long as
    the whole list. Only the images of the page are kept in memory.
    """

    columns = (
        ("Image ID", lambda row: row.usage.image_id),
        ("Name", lambda row: row.image["name"]),
        ("Live Servers", lambda row: row.usage.live_instances),
        ("Unused Since", lambda row: row.unused_since),
        ("Size", lambda row: row.size),
        ("Gain", lambda row: row.gain),
    )
    more = (
        ("Servers Ever", lambda row: row.usage.instances),
        (
            "Used By Others",
            lambda row: UNKNOWN if row.usage.used_by_others is None else row.usage.used_by_others,
        ),
        ("Visibility", lambda row: row.image["visibility"]),
        ("Project ID", lambda row: row.image["owner"]),
        ("Created At", lambda row: row.image["created_at"]),
        ("Hidden", lambda row: row.image["os_hidden"]),
        ("Protected", lambda row: row.image["protected"]),
    )
    limit = 100

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "images", metavar="<image>", nargs="*", help="image(s) (name or ID) (default: all)"
        )
        parser.add_argument(
            "--marker",
            metavar="<image-id>",
            type=validation.argument(validation.image_id),
            help="list what comes after this image: the last one of the page before",
        )
        parser.add_argument(
            "--unused",
            action="store_true",
            help="only images from which no live server was started, as far as this account may "
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
        self.clients.relations.info()
        after, total = self._marked(given.marker), Total()
        rows = (row for row in self._wanted(given, total) if after is None or row.place > after)
        page = heapq.nsmallest(given.limit + 1, rows, key=lambda row: row.place)
        for warning in total.warnings():
            self.log.warning("%s", warning)
        if len(page) > given.limit:
            page.pop()
            last = page[-1].usage.image_id
            self.log.warning("there are more images; for the next page give --marker %s", last)
        if given.unused or given.unused_for is not None:
            tell(f"{total.wanted} images, {total.gain} bytes\n")
        return iter(page)

    def _marked(self, marker: str | None) -> tuple[int, int, str] | None:
        """The place of the image that the page before ended with."""
        if marker is None:
            return None
        for _, image in self.clients.relations.glance.images([marker], dict):
            (usage,) = self.clients.relations.usages([marker])
            return Used(image, usage).place
        raise CommandError(
            f"there is no image {marker} that this account sees, so no page can follow it; "
            "begin again without --marker"
        )

    def _wanted(self, given: argparse.Namespace, total: Total) -> Iterator[Used]:
        """What the filters leave of the images that are asked for; counts all of them."""
        now = datetime.now(UTC)
        for images in self._pages(given):
            known = {id: image for id, image in images.items() if id == id.lower()}
            total.odd += len(images) - len(known)
            for usage in self.clients.relations.usages(known):
                row = Used(known[usage.image_id], usage)
                is_wanted = _is_wanted(row, given, now)
                total.add(row, is_wanted=is_wanted)
                if is_wanted:
                    yield row

    def _pages(self, given: argparse.Namespace) -> Iterator[dict[str, Image]]:
        """The images that are asked for, by their IDs, page by page."""
        if given.images:
            yield self._named(given)
            return
        owner = resolve.project(self.app.client_manager, given.project)
        filters = {"limit": str(PAGE), "visibility": given.visibility, "owner": owner}
        query = [(name, text) for name, text in filters.items() if text is not None]
        glance = self.clients.relations.glance
        pages = itertools.chain.from_iterable(
            glance.pages(paths.IMAGES, [*query, ("os_hidden", hidden)]) for hidden in HIDDEN
        )
        for page in pages:
            yield page.read(lambda body: {image["id"]: image for image in body["images"]})

    def _named(self, given: argparse.Namespace) -> dict[str, Image]:
        """The images that are named; a name or ID that no image has is a failure."""
        if given.visibility or given.project:
            raise CommandError("give either images, or --visibility and --project")
        client = self.clients.relations
        ids = [name for name in given.images if validation.is_uuid(name)]
        known = dict(client.glance.images(ids, dict))

        def find(name: str) -> Image:
            image_id = resolve.image(client, name)
            if image_id in known:
                return known[image_id]
            for _, image in () if image_id == name else client.glance.images([image_id], dict):
                return image
            raise CommandError("there is no image with this ID that this account sees; check it")

        return {image["id"]: image for image in self.each(given.images, find)}


def _is_wanted(row: Used, given: argparse.Namespace, now: datetime) -> bool:
    if given.unused_for is not None:
        return row.idle_since is not None and now - row.idle_since >= given.unused_for
    return not given.unused or row.usage.is_unused
