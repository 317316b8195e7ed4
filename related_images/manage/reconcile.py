"""``reconcile``: update the relations after killed requests and deletions outside the filter."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from related_images import validation
from related_images.manage import cloud_options, options

if TYPE_CHECKING:
    from related_images.db import Database
    from related_images.db.reconcile import Run
    from related_images.manage.glance_admin import GlanceAdmin

LOG = logging.getLogger(__name__)

RATE: Final = 20.0
"""Requests per second to Glance or Nova by default."""

INCOMPLETE: Final = 3
"""Exit code if responses of Nova were in doubt."""


class Reconcile(options.DatabaseCommand):
    """Compare the relations with the images in Glance, and correct the relations.

    If Glance does not have an image, its relations are marked as those of a deleted image, even if
    another image now has its ID. The mark is removed if the image is restored. If an image has a
    new owner, its relations get the project of the owner. A relation is removed only if Glance
    refused to create its image because the ID was in use. If the command is interrupted, the next
    run continues where it stopped. The last line of the output is JSON with the counts.

    With --resources, the command compares the recorded servers of an installation with the servers
    in Nova instead. If Nova does not have a recorded server, the server is recorded as deleted, and
    no longer uses its image. If the start of a server is not recorded, the command records it.
    """

    exit_codes = (
        "Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, "
        f"{INCOMPLETE} responses of Nova were in doubt: repeat the command. The command fails, and "
        "changes nothing more, after a response that may not come from Glance or Nova."
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
            help="skip relations that are newer than this, such as 1h or 2d: their image or server "
            "may not exist yet (default: %(default)s)",
        )
        add(
            "--rate",
            metavar="NUMBER",
            type=_rate,
            default=RATE,
            help="maximum number of requests to Glance or Nova per second (default: %(default)s)",
        )
        add(
            "--restart",
            action="store_true",
            help="begin at the first image or server, even if the previous run was interrupted",
        )
        cloud_options.add_options(parser)

    def take_action(self, args: argparse.Namespace) -> int:
        """Reconcile, and write the counts to standard output.

        :param args: the parsed arguments
        :returns: the exit code
        :raises RelatedImagesError: if Glance, Nova or the database cannot be used
        """
        counts = _reconcile_images(args) if args.resources is None else _reconcile_servers(args)
        self.app.stdout.write(json.dumps({**counts, "dry_run": args.dry_run}) + "\n")
        if counts.get("complete", True):
            return 0
        LOG.warning(
            "%d responses of Nova were in doubt, and nothing was changed because of them: repeat "
            "the command when all cells of Nova work",
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
        help="compare the servers of this installation (Nova deployment) with Nova, instead of the "
        "images with Glance",
    )
    exclusive.add_argument(
        "--allow-empty-glance",
        action="store_true",
        help="continue even if Glance has no image, or none of the images of the newest relations",
    )
    parser.add_argument(
        "--allow-empty-nova",
        action="store_true",
        help="with --resources, continue even if Nova has no server, or none of the first recorded "
        "servers",
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


def _reconcile_servers(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the servers of an installation with Nova, and return the counts."""
    from related_images.db import reconcile_resources as resources
    from related_images.manage import database_access
    from related_images.manage.nova_admin import NovaAdmin
    from related_images.manage.rate_limit import RateLimit

    nova = NovaAdmin(cloud_options.adapter(args, "compute"), RateLimit(args.rate))
    with database_access.open_database(args) as database:
        is_new = args.dry_run or args.restart
        run = resources.begin(database, args.resources, args.older_than, is_new)
        nova.require_administrator()
        if not args.allow_empty_nova:
            resources.check_service(database, nova, run)
        with _progress("server", None, run.counts.listed) as update:
            for counts in resources.reconcile(database, nova, run, args.dry_run):
                update(counts.listed)
    return resources.summary(run)


@contextmanager
def _progress(unit: str, total: int | None, done: int) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on a terminal; yields a function that takes the units done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=unit) as bar:
        yield lambda done: bar.update(done - bar.n)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0.01 <= rate <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0.01 to 10000")
    return rate
