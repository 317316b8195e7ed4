"""``openstack image dependent list``: what was made from an image, or uses it."""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import Dependent, DependentSummary, ProjectDependents, RelationsClient
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import Column, ListCommand, Table, table
from related_images.osc.image_usage import INCOMPLETE
from related_images.osc.names import SERVICES, Names

COLUMNS: Final[tuple[Column, ...]] = (
    ("Resource Type", lambda it: it.row.resource_type),
    ("Resource ID", lambda it: it.row.instance_id),
    ("Resource Name", lambda it: it.server_name),
    ("Project ID", lambda it: it.row.project_id),
    ("Depth", lambda it: it.row.depth),
    ("Image ID", lambda it: it.row.image_id),
    ("Image Name", lambda it: it.image_name),
    ("Via", lambda it: ", ".join(f"{via.resource_type} {via.instance_id}" for via in it.row.via)),
)
LONG_COLUMNS: Final[tuple[Column, ...]] = (
    ("Kind", lambda it: it.row.kind),
    ("Installation UUID", lambda it: it.row.installation_uuid),
    ("Ended At", lambda it: validation.format_seconds(it.row.ended_at)),
    ("Expires At", lambda it: validation.format_seconds(it.row.expires_at)),
)


@dataclass(frozen=True)
class OwnedDependents:
    """The dependents that a project owns, and its images that were made from the image.

    :ivar images: the number of these images
    :ivar size: their size in bytes
    """

    found: ProjectDependents
    images: int
    size: int

    def live(self, *types: str) -> int:
        """Return the number of live ones of these types; of all others without types."""
        numbers = self.found.by_type.items()
        return sum(
            counts.live
            for type, counts in numbers
            if (type in types if types else type not in SERVICES)
        )

    def total(self, what: str) -> int:
        """Return one of the numbers of all types together."""
        return sum(getattr(counts, what) for counts in self.found.by_type.values())


PROJECT_COLUMNS: Final[tuple[Column, ...]] = (
    ("Project ID", lambda row: row.found.project_id),
    ("Servers", lambda row: row.live(model.SERVER)),
    ("Volumes", lambda row: row.live(model.VOLUME)),
    ("Others", lambda row: row.live()),
    ("Direct", lambda row: row.total("direct")),
    ("Indirect", lambda row: row.total("indirect")),
    ("Ended", lambda row: row.total("ended")),
)
LONG_PROJECT_COLUMNS: Final[tuple[Column, ...]] = (
    ("Images", lambda row: row.images),
    ("Image Size", lambda row: row.size),
)


class ListDependent(ListCommand):
    """List the resources that depend on an image, or on an image that was made from it.

    These are the servers and volumes that were made from these images and not deleted, the
    resources that come from such a volume, shelved servers that need such an image, and resources
    with a lease of such an image. Depth is 1 for the image itself. Via names the resources between
    the image and the resource.

    With --by-project, the command lists the number of live resources of each project instead.
    Direct counts those that depend on the image itself. With --long, it also lists the number and
    the size in bytes of the existing images of the project that were made from the image.

    A project sees only its own resources. If a witness may have missed a resource, the command
    names a gap on stderr, and its exit code is 3.
    """

    columns = COLUMNS
    long_columns = LONG_COLUMNS
    exit_codes = (
        "Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage, 3 the list may be "
        "incomplete (stderr says why)."
    )
    is_incomplete = False

    def run(self, args: argparse.Namespace) -> int:
        self.is_incomplete = False
        return super().run(args) or INCOMPLETE * self.is_incomplete

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser, "to list dependents of")
        parser.add_argument(
            "--direct",
            action="store_true",
            help="List only resources that depend on the image itself",
        )
        parser.add_argument(
            "--ended",
            action="store_true",
            help="List the resources that no longer depend on these images, because they were "
            "deleted or their lease ended",
        )
        arguments.add_resource_type(parser, "List only resources of this type")
        arguments.add_project(parser, "resources")
        parser.add_argument(
            "--by-project",
            action="store_true",
            help="List the number of resources of each project; not with the other filters",
        )

    def take_action(self, args: argparse.Namespace) -> Table:
        filters = (args.direct, args.ended, args.resource_type, args.project)
        if not args.by_project:
            return super().take_action(args)
        if any(filters):
            raise CommandError(
                "--by-project counts all resources; give it without --direct, --ended, "
                "--resource-type and --project"
            )
        client = self.clients.relations
        image_id = resolve.image(client, args.image)
        self._warn(client.dependent_summary(image_id))
        columns = PROJECT_COLUMNS + LONG_PROJECT_COLUMNS * args.long
        return table(columns, _by_project(client, image_id, args.limit, sizes=args.long))

    def find(self, args: argparse.Namespace) -> Iterator[Dependent]:
        client = self.clients.relations
        image_id = resolve.image(client, args.image)
        self._warn(client.dependent_summary(image_id), is_counted=False)
        return client.dependents(
            image_id,
            live=not args.ended,
            depth=1 if args.direct else None,
            limit=args.limit,
            page_size=PAGE,
            resource_type=args.resource_type,
            project_id=resolve.project(self.app.client_manager, args.project),
        )

    def prepare(self, items: Iterator[Any]) -> Iterator[Any]:
        return Names(self.app.client_manager, self.log, SERVICES).add_to(items)

    def _warn(self, summary: DependentSummary, *, is_counted: bool = True) -> None:
        """Log why resources may be missing.

        :param is_counted: whether the numbers are listed, and not the resources
        """
        if summary.gaps:
            self.is_incomplete = True
            more = len(summary.gaps) - 1 + summary.more_gaps
            self.log.warning(
                "resources may be missing: nothing is known from %s%s; an operator can close the "
                "gap with `related-images reconcile --resources`",
                summary.gaps[0],
                f" (and {more} more gaps)" if more else "",
            )
        if summary.lower_bound and is_counted:
            self.is_incomplete = True
            self.log.warning(
                "there may be more resources than these numbers; for all of them, repeat the "
                "command without --by-project"
            )
        if summary.used_by_others and not summary.all_projects:
            self.log.warning("resources of other projects use the image too")
        elif summary.used_by_others is None:
            self.log.warning("it is unknown whether resources of other projects use the image")


def _by_project(
    client: RelationsClient, image_id: str, limit: int | None, *, sizes: bool
) -> Iterator[OwnedDependents]:
    """Yield the numbers of each project that owns a dependent."""
    images, space = _images_of_projects(client, image_id) if sizes else ({}, {})
    for found in client.dependents_by_project(image_id, limit=limit):
        owner = found.project_id
        yield OwnedDependents(found, images.get(owner, 0), space.get(owner, 0))


def _images_of_projects(
    client: RelationsClient, image_id: str
) -> tuple[Mapping[str | None, int], Mapping[str | None, int]]:
    """Return the number and the bytes of the images made from an image, by project."""
    images: Counter[str | None] = Counter()
    space: Counter[str | None] = Counter()
    for one in client.images(descends_from=image_id, visibility="all"):
        owner = one["owner"]
        images[owner] += 1
        space[owner] += one["size"] or 0
    return images, space
