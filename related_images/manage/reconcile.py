"""``reconcile``: putting right what a kill or a deletion behind the filter's back left wrong."""

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
"""Requests a second to the registry, unless told otherwise."""


class Reconcile(options.OnDatabase):
    """Compare the relations with the images that the registry has, and put them right.

    An image that Glance does not have is marked deleted in its relations, also if another image has
    its ID now; the mark comes off when the image comes back. Relations follow an image to another
    project. A relation is removed only if it was announced for an image that had been there before.
    A run that was interrupted is taken up where it ended. The last line of the
    output is JSON and counts what was found and done.
    """

    exit_codes = (
        f"{options.OnDatabase.exit_codes} Nothing is changed on an answer of the registry that "
        "leaves doubt: that is a failure too."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--dry-run", action="store_true", help="count, and change nothing")
        add(
            "--older-than",
            metavar="AGE",
            type=validation.argument(validation.parse_span),
            default="1h",
            help="leave newer relations alone, whose image may be in the making: 1h, 2d "
            "(default: %(default)s)",
        )
        add(
            "--rate",
            metavar="NUMBER",
            type=_rate,
            default=RATE,
            help="requests a second to the registry at the most (default: %(default)s)",
        )
        add(
            "--trust-registry",
            action="store_true",
            help="go on although the registry knows none of the images that are related here",
        )
        cloud_options.add_options(parser)

    def take_action(self, given: argparse.Namespace) -> None:
        from related_images.db import reconcile
        from related_images.manage import database_access
        from related_images.manage.glance_admin import GlanceAdmin
        from related_images.manage.rate_limit import RateLimit

        glance = GlanceAdmin(cloud_options.image_adapter(given), RateLimit(given.rate))
        with database_access.open_database(given) as database:
            glance.must_show_all()
            run = reconcile.begin(database, given.older_than, given.dry_run)
            if not given.trust_registry:
                reconcile.check_glance(database, glance, run.until)
            _carry_out(database, glance, run, given.dry_run)
        counts = {**reconcile.summary(run), "dry_run": given.dry_run}
        self.app.stdout.write(json.dumps(counts) + "\n")


def _carry_out(database: "Database", glance: "GlanceAdmin", run: "Run", dry_run: bool) -> None:
    from related_images.db import reconcile

    with _progress(reconcile.images_known(database), run.after) as seen:
        reconcile.reconcile(database, glance, run, dry_run, seen)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal, to be told the number that was come to."""
    if not sys.stderr.isatty():
        yield lambda reached: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit="image") as bar:
        yield lambda reached: bar.update(reached - bar.n)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0.01 <= rate <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0.01 to 10000")
    return rate
