"""``reconcile``: update the relations after killed requests and deletions outside the filter."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from related_images import validation
from related_images.manage import cloud_options, options
from related_images.model import SERVER, VOLUME

if TYPE_CHECKING:
    from related_images.db import Database
    from related_images.db.reconcile import Run
    from related_images.manage.cinder_admin import CinderResources
    from related_images.manage.glance_admin import GlanceAdmin
    from related_images.manage.nova_admin import NovaAdmin

LOG = logging.getLogger(__name__)

RATE: Final = 20.0
"""Requests per second to a service by default."""

INCOMPLETE: Final = 3
"""Exit code if responses of Nova or Cinder were in doubt."""


class Reconcile(options.DatabaseCommand):
    """Compare the relations with the images in Glance, and correct the relations.

    If Glance does not have an image, its relations are marked as those of a deleted image, even if
    another image now has its ID. The mark is removed if the image is restored. If an image has a
    new owner, its relations get the project of the owner. A relation is removed only if Glance
    refused to create its image because the ID was in use. If the command is interrupted, the next
    run continues where it stopped. The last line of the output is JSON with the counts.

    With --resources, the command compares the recorded resources of an installation instead: the
    servers with those in Nova, and the volumes, volume snapshots and volume backups with those in
    Cinder. If Nova or Cinder does not have a recorded resource, the resource is recorded as
    deleted, and no longer uses its image. If the image of a server, or the source of a resource of
    Cinder, is not recorded, the command records it.
    """

    exit_codes = (
        "Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, "
        f"{INCOMPLETE} responses of Nova or Cinder were in doubt: repeat the command. The command "
        "fails, and changes nothing more, after a response that may not come from the service."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``reconcile``.

        :param parser: the parser of the command
        """
        add = parser.add_argument
        _add_sources(parser)
        add("--dry-run", action="store_true", help="count the changes, and make none")
        add(
            "--older-than",
            metavar="AGE",
            type=validation.argument(validation.parse_span),
            default="1h",
            help="skip relations that are newer than this, such as 1h or 2d: their image or "
            "resource may not exist yet (default: %(default)s)",
        )
        add(
            "--rate",
            metavar="NUMBER",
            type=validation.argument(validation.decimal, "--rate", least=0.01, most=10_000),
            default=RATE,
            help="maximum number of requests per second (default: %(default)s)",
        )
        add(
            "--restart",
            action="store_true",
            help="begin at the first image or resource, even if the previous run was interrupted",
        )
        cloud_options.add_options(parser)

    def take_action(self, args: argparse.Namespace) -> int:
        """Reconcile, and write the counts to standard output.

        :param args: the parsed arguments
        :returns: the exit code
        :raises RelatedImagesError: if a service or the database cannot be used
        """
        counts = _reconcile_images(args) if args.resources is None else _reconcile_resources(args)
        self.app.stdout.write(json.dumps({**counts, "dry_run": args.dry_run}) + "\n")
        if counts.get("complete", True):
            return 0
        LOG.warning(
            "%d responses were in doubt, and nothing was changed because of them: repeat the "
            "command when all cells of Nova work",
            counts["doubtful"],
        )
        return INCOMPLETE


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared, and with what."""
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--resources",
        metavar="UUID",
        type=validation.argument(validation.installation_uuid),
        help="compare the servers of this installation (Nova deployment) with Nova, or its volumes "
        "(Cinder deployment) with Cinder, instead of the images with Glance",
    )
    exclusive.add_argument(
        "--allow-empty-glance",
        action="store_true",
        help="continue even if Glance has no image, or none of the images of the newest relations",
    )
    for name, resources in (("Nova", "servers"), ("Cinder", "volumes")):
        parser.add_argument(
            f"--allow-empty-{name.lower()}",
            action="store_true",
            help=f"with --resources, continue even if {name} has none of the first recorded "
            f"{resources}, and none of the first {resources} in its list is recorded",
        )


def _reconcile_images(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the images with Glance, and return the counts."""
    from related_images.db import reconcile
    from related_images.manage import database_access
    from related_images.manage.glance_admin import GlanceAdmin
    from related_images.manage.rate_limit import RateLimit

    glance = GlanceAdmin(cloud_options.image_adapter(args), RateLimit(args.rate))
    with database_access.open_database(args) as database:
        glance.require_administrator()
        run = reconcile.begin(database, args.older_than, args.dry_run or args.restart)
        if not args.allow_empty_glance:
            reconcile.check_glance(database, glance, run.until)
        _reconcile(database, glance, run, args.dry_run)
    return reconcile.summary(run)


def _reconcile(database: "Database", glance: "GlanceAdmin", run: "Run", dry_run: bool) -> None:
    from related_images.db import reconcile

    with _progress("image", reconcile.images_known(database), run.after) as update:
        reconcile.reconcile(database, glance, run, dry_run, update)


def _reconcile_resources(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the resources of an installation with Nova or Cinder, and return the counts."""
    from related_images.db import reconcile_resources as resources
    from related_images.manage import database_access

    with database_access.open_database(args) as database:
        clients = _clients(args, resources.types_of(database, args.resources))
        is_new = args.dry_run or args.restart
        run = resources.begin(database, args.resources, args.older_than, is_new)
        for services in clients:
            services[0].require_administrator()
            if not vars(args)[f"allow_empty_{services[0].service_name.lower()}"]:
                resources.check_service(database, services, run)
        every = [one for services in clients for one in services]
        with _progress("resource", None, run.counts.listed) as update:
            for _ in resources.reconcile(database, every, run, args.dry_run):
                update(run.counts.listed)
    return resources.summary(run)


def _clients(
    args: argparse.Namespace, types: Collection[str]
) -> "list[list[NovaAdmin] | list[CinderResources]]":
    """Return the clients of Nova, of Cinder, or of both: one for each type of resources."""
    from related_images.manage import cinder_admin
    from related_images.manage.nova_admin import NovaAdmin
    from related_images.manage.rate_limit import RateLimit

    limit = RateLimit(args.rate)
    clients: list[list[NovaAdmin] | list[CinderResources]] = []
    if SERVER in types:
        clients.append([NovaAdmin(cloud_options.adapter(args, "compute"), limit)])
    if VOLUME in types:
        adapter = cloud_options.adapter(args, "block-storage")
        clients.append(cinder_admin.resources(adapter, limit))
    return clients


@contextmanager
def _progress(unit: str, total: int | None, done: int) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on a terminal; yields a function that takes the units done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=unit) as bar:
        yield lambda done: bar.update(done - bar.n)
