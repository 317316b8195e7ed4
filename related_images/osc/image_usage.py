"""``openstack image usage list``: list the images, their live servers and the space they use."""

import argparse
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import Gap, Usage
from related_images.client.glance import HIDDEN, PAGE
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import (
    UNKNOWN,
    ListCommand,
    MultiObjectCommand,
    Unset,
    write_to_terminal,
)
from related_images.protocol import paths

NEVER: Final = "never"
"""Shown as Unused Since for an image that was never used."""

INCOMPLETE: Final = 3
"""The exit code of an answer that is incomplete."""

Image = Mapping[str, Any]


@dataclass(frozen=True)
class ImageUsage:
    """An image as Glance shows it, and its usage."""

    image: Image
    usage: Usage

    @property
    def size(self) -> int:
        """The size in bytes; 0 if unknown."""
        return self.image["size"] or 0

    @property
    def gain(self) -> int:
        """The bytes that its deletion frees; 0 while it is used, or its use is unknown."""
        return self.size if self.usage.is_unused else 0

    @property
    def sort_key(self) -> tuple[int, int, str]:
        """The unique position in the list."""
        return -self.gain, -self.size, self.usage.image_id

    @property
    def unused_since(self) -> str | Unset | None:
        """The text of Unused Since; ``None`` for an image that is used, or seems to be."""
        if not self.usage.is_unused:
            return UNKNOWN if self.usage.gaps and self.usage.state == model.UNKNOWN else None
        return validation.format_seconds(self.usage.unused_since) or NEVER

    @property
    def idle_since(self) -> datetime | None:
        """The time since which it is unused; its creation if it was never used."""
        if not self.usage.is_unused:
            return None
        created_at: str = self.image["created_at"]
        return self.usage.unused_since or validation.parse_time("created_at", created_at)


@dataclass
class Total:
    """Counts of all images that were read.

    :ivar started: True if a server was started from any image
    :ivar all_projects: True if servers of all projects are counted
    :ivar unknown: images whose use by other projects is unknown
    :ivar unwatched: other images whose use is unknown, because of gaps of witnesses
    :ivar gap: one of these gaps
    :ivar upper_case: images whose ID is not in lower case
    :ivar wanted: images that match the filters
    :ivar gain: the bytes that deletion of the ``wanted`` images frees
    """

    images: int = 0
    started: bool = False
    all_projects: bool = True
    unknown: int = 0
    unwatched: int = 0
    gap: Gap | None = None
    upper_case: int = 0
    wanted: int = 0
    gain: int = 0

    def add(self, row: ImageUsage, *, is_wanted: bool) -> None:
        """Count an image.

        :param is_wanted: True if it matches the filters
        """
        self.images += 1
        self.started |= row.usage.instances > 0
        self.all_projects &= row.usage.all_projects
        if row.usage.used_by_others is None:
            self.unknown += 1
        elif row.usage.state == model.UNKNOWN:
            self.unwatched += 1
            self.gap = next(iter(row.usage.gaps), None)
        self.wanted += is_wanted
        self.gain += row.gain * is_wanted

    def warnings(self) -> Iterator[str]:
        """Yield the reasons why an image may be in use although it is shown as unused."""
        if self.upper_case:
            yield (
                f"{self.upper_case} images are left out: the use of an image is not recorded if "
                "its ID is not in lower case"
            )
        if self.unknown:
            yield (
                f"{self.unknown} images count as used: Glance did not return their owner, so their "
                "use by other projects is unknown"
            )
        if self.unwatched:
            yield (
                f"the use of {self.unwatched} images is unknown: nothing is known from {self.gap}; "
                "an operator can close the gap with `related-images reconcile --resources`"
            )
        if not self.all_projects:
            yield "only servers that this account sees are counted; others may use these images"
        if self.images and not self.started:
            yield (
                "no server is recorded as started from any of these images: if Nova does not "
                "report starts to Glance, the images may be in use"
            )


class ListImageUsage(MultiObjectCommand, ListCommand):
    """List images with the number of live servers and volumes that were made from them.

    Live Servers includes volumes. A server is live until its deletion is reported. Gain is the
    number of bytes that the deletion of the image frees. The images with the largest gain come
    first. Gain is 0 if a live server or volume uses the image, if a shelved server needs it, if it
    has a lease, or if its use is unknown. Unused Since is unknown if a witness may have missed a
    use. The command then names a gap on stderr, and its exit code is 3. Hidden images are listed
    too.

    With --long, Shelved Servers is the number of shelved servers that need the image. Leases is the
    number of other resources that use the image until a date. Used By Others shows the owner of an
    image whether live resources of other projects use the image. It does not name these resources.

    With --leftovers, the command lists only images that Nova left behind: Nova made them when it
    shelved servers, and did not delete them when the servers were unshelved or deleted.

    If no images are named, the command first reads all images that this account sees, and their
    usage. So a page with --limit or --marker takes as long as the whole list. The command keeps
    only the images of the page in memory.
    """

    columns = (
        ("Image ID", lambda row: row.usage.image_id),
        ("Name", lambda row: row.image["name"]),
        ("Live Servers", lambda row: row.usage.live_instances),
        ("Unused Since", lambda row: row.unused_since),
        ("Size", lambda row: row.size),
        ("Gain", lambda row: row.gain),
    )
    long_columns = (
        ("Servers Ever", lambda row: row.usage.instances),
        ("Leases", lambda row: row.usage.leases.count),
        ("Leases Until", lambda row: validation.format_seconds(row.usage.leases.latest_expires_at)),
        ("Shelved Servers", lambda row: row.usage.shelved),
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
    exit_codes = (
        "The command continues after a failure. Exit codes: 0 all done, 1 at least one failed "
        "(stderr lists and counts the failures), 2 wrong usage, 3 the use of an image is unknown."
    )
    is_incomplete = False

    def run(self, args: argparse.Namespace) -> int:
        self.is_incomplete = False
        return super().run(args) or INCOMPLETE * self.is_incomplete

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "images",
            metavar="<image>",
            nargs="*",
            help="Image(s) to list (name or ID) (default: all)",
        )
        parser.add_argument(
            "--marker",
            metavar="<image-id>",
            type=validation.argument(validation.image_id),
            help="List the images after this image: the last image of the previous page (ID)",
        )
        parser.add_argument(
            "--unused",
            action="store_true",
            help="List only unused images: this account sees no use of them",
        )
        parser.add_argument(
            "--unused-for",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="List only images that have been unused for this time, such as 90d. For an image "
            "that was never used, the time begins at its creation",
        )
        parser.add_argument(
            "--leftovers",
            action="store_true",
            help="List only images that Nova made of shelved servers and left behind when the "
            "servers were unshelved or deleted",
        )
        parser.add_argument(
            "--visibility",
            choices=("public", "private", "shared", "community"),
            help="List only images with this visibility",
        )
        arguments.add_project(parser, "images")

    def find(self, args: argparse.Namespace) -> Iterator[ImageUsage]:
        self.clients.relations.info()
        after, total = self._after_marker(args.marker), Total()
        rows = (row for row in self._wanted(args, total) if after is None or row.sort_key > after)
        with self.reading():
            page = heapq.nsmallest(args.limit + 1, rows, key=lambda row: row.sort_key)
        for warning in total.warnings():
            self.log.warning("%s", warning)
        self.is_incomplete = total.unwatched > 0
        if len(page) > args.limit:
            page.pop()
            last = page[-1].usage.image_id
            self.log.warning("there are more images; for the next page give --marker %s", last)
        if args.unused or args.unused_for is not None:
            write_to_terminal(f"{total.wanted} images, {total.gain} bytes\n")
        return iter(page)

    def _after_marker(self, marker: str | None) -> tuple[int, int, str] | None:
        """Return the sort key of the marker.

        :raises CommandError: if this account does not see the image
        """
        if marker is None:
            return None
        for _, image in self.clients.relations.glance.images([marker], dict):
            (usage,) = self.clients.relations.usages([marker])
            return ImageUsage(image, usage).sort_key
        raise CommandError(
            f"this account sees no image {marker}, so --marker cannot be used; begin again without "
            "--marker"
        )

    def _wanted(self, args: argparse.Namespace, total: Total) -> Iterator[ImageUsage]:
        """Yield the images that match the filters, and count all images in ``total``."""
        now = datetime.now(UTC)
        for images in self._pages(args):
            lower = {id: image for id, image in images.items() if id == id.lower()}
            total.upper_case += len(images) - len(lower)
            for usage in self.clients.relations.usages(lower):
                row = ImageUsage(lower[usage.image_id], usage)
                is_wanted = _is_wanted(row, args, now)
                total.add(row, is_wanted=is_wanted)
                if is_wanted:
                    yield row

    def _pages(self, args: argparse.Namespace) -> Iterator[dict[str, Image]]:
        """Yield pages of the requested images, by ID."""
        if args.images:
            yield self._named(args)
            return
        owner = resolve.project(self.app.client_manager, args.project)
        if args.leftovers:
            yield from self._leftovers(owner, args.visibility)
            return
        filters = {"limit": str(PAGE), "visibility": args.visibility, "owner": owner}
        query = [(name, text) for name, text in filters.items() if text is not None]
        glance = self.clients.relations.glance
        pages = itertools.chain.from_iterable(
            glance.pages(paths.IMAGES, [*query, ("os_hidden", hidden)]) for hidden in HIDDEN
        )
        for page in pages:
            yield page.read(lambda body: {image["id"]: image for image in body["images"]})

    def _leftovers(self, owner: str | None, visibility: str | None) -> Iterator[dict[str, Image]]:
        """Yield the images that Nova left behind, by ID."""
        client = self.clients.relations
        relations = client.relations(leftover=True, project_id=owner, page_size=PAGE)
        while ids := {relation.image_id for relation in itertools.islice(relations, PAGE)}:
            images = client.glance.images(ids, dict)
            yield {id: one for id, one in images if visibility in (None, one["visibility"])}

    def _named(self, args: argparse.Namespace) -> dict[str, Image]:
        """Return the images on the command line, by ID. Each that does not exist is a failure."""
        if args.visibility or args.project or args.leftovers:
            raise CommandError("give either <image>, or --leftovers, --visibility and --project")
        client = self.clients.relations
        ids = [name for name in args.images if validation.is_uuid(name)]
        images = dict(client.glance.images(ids, dict))

        def find(name: str) -> Image:
            image_id = resolve.image(client, name)
            if image_id in images:
                return images[image_id]
            for _, image in () if image_id == name else client.glance.images([image_id], dict):
                return image
            raise CommandError("this account sees no image with this ID; check the ID")

        return {image["id"]: image for image in self.for_each(args.images, find)}


def _is_wanted(row: ImageUsage, args: argparse.Namespace, now: datetime) -> bool:
    if args.unused_for is not None:
        return row.idle_since is not None and now - row.idle_since >= args.unused_for
    return not args.unused or row.usage.is_unused
