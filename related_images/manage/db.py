"""``db``: upgrade and check the schema of the database, and purge old rows."""

import argparse
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import validation
from related_images.errors import (
    ConfigurationError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
)
from related_images.manage import options

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOG = logging.getLogger(__name__)

INCOMPLETE: Final = 3
"""Exit code of ``db check`` if the schema differs from the schema that this program needs."""


class Upgrade(options.DatabaseCommand):
    """Create the tables, or upgrade them to the version that this program needs.

    The command may run repeatedly, and on several hosts at once. Services may keep running.
    Requests that record relations may wait while SQLite or PostgreSQL builds an index.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``db upgrade``.

        :param parser: the parser of the command
        """
        parser.add_argument(
            "--to",
            metavar="REVISION",
            type=_revision,
            help="stop at this revision (default: the newest)",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        """Upgrade the schema, and log its version.

        :param args: the parsed arguments
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import dialects, schema
        from related_images.manage import database_access

        with database_access.database_url(args) as url:
            schema.upgrade(url, args.to or "head")
            with schema.connected(url) as connection:
                LOG.info("%s: the schema is %s", dialects.shown(url), schema.version(connection))
            if database_access.is_default(args, dialects.shown(url)):
                LOG.warning(
                    "this is the default database; if the filter has another one, give "
                    "--config-file, --paste or --connection"
                )


class Version(options.DatabaseCommand, ShowOne):
    """Show the schema version of the database, and the version that this program needs."""

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Return both versions as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and their values
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import schema
        from related_images.manage import database_access

        with database_access.connected(args) as connection:
            version = schema.version(connection)
        return ("version", "needed"), (version, schema.REVISIONS[-1])


class Check(options.DatabaseCommand, Lister):
    """List the tables and indexes that are missing in the database, or have another definition."""

    exit_codes = (
        "Exit codes: 0 the schema is complete, 1 the check failed (one line on stderr says why), "
        f"2 wrong usage, {INCOMPLETE} something is missing or different."
    )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Return the problems as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and the rows
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.manage import database_access

        with database_access.connected(args) as connection:
            self.problems = list(_problems(connection))
        return ("problem", "next_step"), self.problems

    def run(self, args: argparse.Namespace) -> int:
        """Run the check.

        :param args: the parsed arguments
        :returns: the exit code, :data:`INCOMPLETE` if there are problems
        """
        failed: int = super().run(args)
        if failed or self.problems:
            return failed or INCOMPLETE
        LOG.info("nothing is missing")
        return 0


class Restored(options.DatabaseCommand, Lister):
    """Record that the database was restored from an older copy, or was created again.

    All records that are newer than the copy are lost. The command records the time since the copy
    as a gap of every expected witness. If a use of an image may have been lost, the use of the
    image counts as unknown until `related-images reconcile --resources` closes the gap. Run the
    command after the restoration, before the services record again.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``db restored``.

        :param parser: the parser of the command
        """
        parser.add_argument(
            "--copied-at",
            metavar="TIME",
            type=validation.argument(_time),
            required=True,
            help="when the copy began, such as 2026-01-31T12:00:00Z; never, if there is no copy "
            "and the tables were created again",
        )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Record the gaps, and return them as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and a row for each expected witness
        :raises ConfigurationError: if no witness is expected
        :raises FieldInvalid: if the time is in the future
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import witnesses
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            gaps = witnesses.lose_since(database, args.copied_at)
        if not gaps:
            raise ConfigurationError(
                "no witness is expected, so no gap can be recorded, and an image without a "
                "recorded use counts as unused; register each installation with `related-images "
                "installation add UUID --name NAME --witness NAME`, then run this command again"
            )
        times = (
            (validation.format_time(one.since), validation.format_time(one.until)) for one in gaps
        )
        rows = [
            (one.installation_uuid, one.witness, *span)
            for one, span in zip(gaps, times, strict=True)
        ]
        return ("installation_uuid", "witness", "from", "until"), rows


class Purge(options.DatabaseCommand, ShowOne):
    """Remove the relations of images that were deleted long ago.

    The command also removes leases that ended long ago, and the records of images and deleted
    servers without relations. It deletes nothing in Glance or Nova. The relation between a server
    and the image that it was started from is kept until the server is deleted and has no images. If
    the command is interrupted, the next run continues where it stopped.
    """

    exit_codes = (
        f"{options.DatabaseCommand.exit_codes} A dry run counts the rows that can be removed "
        "now. A run that removes them may then remove further rows."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``db purge``.

        :param parser: the parser of the command
        """
        parser.add_argument(
            "--older-than",
            metavar="AGE",
            type=validation.argument(validation.parse_span),
            required=True,
            help="minimum time since the image or the server was deleted, or the lease ended, such "
            "as 90d, 12w or 36h",
        )
        parser.add_argument("--dry-run", action="store_true", help="count rows, and remove none")

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Purge, or count in a dry run.

        :param args: the parsed arguments
        :returns: names of the columns, and the number of rows removed
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import purge
        from related_images.manage import database_access

        before = datetime.now(UTC) - args.older_than
        with database_access.open_database(args) as database:
            purge_rows = purge.due if args.dry_run else purge.purge
            counts = purge_rows(database, before)
        names = ("relations", "images", "instances")
        return names, tuple(getattr(counts, name) for name in names)


NEVER: Final = "never"


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(0, UTC) if text == NEVER else validation.parse_time("time", text)


def _revision(text: str) -> str:
    from related_images.db import schema

    if text not in schema.REVISIONS:
        known = ", ".join(schema.REVISIONS)
        raise argparse.ArgumentTypeError(f"unknown revision {text!r}; allowed are {known}")
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
        yield difference, "correct the schema manually, or restore the database"
