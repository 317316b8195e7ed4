"""``db``: the tables in the database, and what has become too old in them."""

import argparse
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import validation
from related_images.errors import SchemaMissing, SchemaOutdated, SchemaTooNew
from related_images.manage import options

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOG = logging.getLogger(__name__)

INCOMPLETE: Final = 3
"""Exit code of ``db check`` where something is missing."""


class Upgrade(options.OnDatabase):
    """Make the tables, or bring them to the version that this program needs.

    May be run twice, and on several machines at once. The services may go on meanwhile; on SQLite
    recordings wait until it is done.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--to",
            metavar="REVISION",
            type=_revision,
            help="stop at this revision (default: the newest)",
        )

    def take_action(self, given: argparse.Namespace) -> None:
        from related_images.db import dialects, schema
        from related_images.manage import database_access

        with database_access.named(given) as url:
            schema.upgrade(url, given.to or "head")
            with schema.connected(url) as connection:
                LOG.info("%s: the schema is %s", dialects.shown(url), schema.version(connection))


class Version(options.OnDatabase, ShowOne):
    """Show the version of the tables, and the one that this program needs."""

    def take_action(self, given: argparse.Namespace) -> tuple[Any, Any]:
        from related_images.db import schema
        from related_images.manage import database_access

        with database_access.inspected(given) as connection:
            found = schema.version(connection)
        return ("version", "needed"), (found, schema.REVISIONS[-1])


class Check(options.OnDatabase, Lister):
    """Say what the database lacks of the tables and indexes that this program needs."""

    exit_codes = (
        "Exit codes: 0 nothing is missing, 1 could not be checked (one line on stderr says why), "
        f"2 wrong usage, {INCOMPLETE} something is missing or different."
    )

    def take_action(self, given: argparse.Namespace) -> tuple[Any, Any]:
        from related_images.manage import database_access

        with database_access.inspected(given) as connection:
            self.problems = list(_problems(connection))
        return ("problem", "next_step"), self.problems

    def run(self, given: argparse.Namespace) -> int:
        failed: int = super().run(given)
        if failed or self.problems:
            return failed or INCOMPLETE
        LOG.info("nothing is missing")
        return 0


class Purge(options.OnDatabase, ShowOne):
    """Forget relations of images that were deleted long ago, and what is then left over.

    An image that an instance was started from keeps its place for as long as that instance lives
    or has an image itself. Images in no relation go too, and ended instances without any. A purge
    that was interrupted is finished by the next one.
    """

    exit_codes = (
        f"{options.OnDatabase.exit_codes} A dry run counts what can go at once; more may follow "
        "when that is gone."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--older-than",
            metavar="AGE",
            type=validation.argument(validation.parse_span),
            required=True,
            help="how long ago an image must have been deleted, an instance have ended: 90d, 12w, "
            "36h",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and remove nothing")

    def take_action(self, given: argparse.Namespace) -> tuple[Any, Any]:
        from related_images.db import purge
        from related_images.manage import database_access

        before = datetime.now(UTC) - given.older_than
        with database_access.open_database(given) as database:
            found = purge.due(database, before) if given.dry_run else purge.purge(database, before)
        names = ("relations", "images", "instances")
        return names, tuple(getattr(found, name) for name in names)


def _revision(text: str) -> str:
    from related_images.db import schema

    if text not in schema.REVISIONS:
        known = ", ".join(schema.REVISIONS)
        raise argparse.ArgumentTypeError(f"there is no revision {text!r}; known are {known}")
    return text


def _problems(connection: "Connection") -> Iterator[tuple[str, str]]:
    from related_images.db import schema

    try:
        schema.verify(connection)
    except (SchemaMissing, SchemaOutdated, SchemaTooNew) as error:
        problem, _, step = str(error).partition("; ")
        yield problem, step
        return
    for difference in schema.differences(connection):
        yield difference, "put it right by hand, or restore the database"
