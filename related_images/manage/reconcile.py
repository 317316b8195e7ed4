"""``reconcile``: update the relations after killed requests and deletions outside the filter."""

import argparse
import json
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

RATE: Final = 20.0
"""Requests per second to Glance by default."""


class Reconcile(options.DatabaseCommand):
    """Compare the relations with the images in Glance, and correct the relations.

    If Glance does not have an image, its relations are marked as those of a deleted image, even if
    another image now has its ID. The mark is removed if the image is restored. If an image has a
    new owner, its relations get the project of the owner. A relation is removed only if Glance
    refused to create its image because the ID was in use. The next run continues an interrupted
    one. The last line of the output is JSON with the counts.
    """

    exit_codes = (
        f"{options.DatabaseCommand.exit_codes} The command fails, and changes nothing more, after "
        "a response that may not come from Glance."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``reconcile``.

        :param parser: the parser of the command
        """
        add = parser.add_argument
        add("--dry-run", action="store_true", help="count the changes, and make none")
        add(
            "--older-than",
            metavar="AGE",
            type=validation.argument(validation.parse_span),
            default="1h",
            help="skip relations that are newer than this, such as 1h or 2d: their image may not "
            "exist yet (default: %(default)s)",
        )
        add(
            "--rate",
            metavar="NUMBER",
            type=_rate,
            default=RATE,
            help="maximum number of requests to Glance per second (default: %(default)s)",
        )
        add(
            "--allow-empty-glance",
            action="store_true",
            help="continue even if Glance has no image, or none of the images of the newest "
            "relations",
        )
        cloud_options.add_options(parser)

    def take_action(self, args: argparse.Namespace) -> None:
        """Reconcile, and write the counts to standard output.

        :param args: the parsed arguments
        :raises RelatedImagesError: if Glance or the database cannot be used
        """
        from related_images.db import reconcile
        from related_images.manage import database_access
        from related_images.manage.glance_admin import GlanceAdmin
        from related_images.manage.rate_limit import RateLimit

        glance = GlanceAdmin(cloud_options.image_adapter(args), RateLimit(args.rate))
        with database_access.open_database(args) as database:
            glance.require_administrator()
            run = reconcile.begin(database, args.older_than, args.dry_run)
            if not args.allow_empty_glance:
                reconcile.check_glance(database, glance, run.until)
            _reconcile(database, glance, run, args.dry_run)
        counts = {**reconcile.summary(run), "dry_run": args.dry_run}
        self.app.stdout.write(json.dumps(counts) + "\n")


def _reconcile(database: "Database", glance: "GlanceAdmin", run: "Run", dry_run: bool) -> None:
    from related_images.db import reconcile

    with _progress(reconcile.images_known(database), run.after) as update:
        reconcile.reconcile(database, glance, run, dry_run, update)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar on a terminal; yields a function that takes the images done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit="image") as bar:
        yield lambda done: bar.update(done - bar.n)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0.01 <= rate <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0.01 to 10000")
    return rate
