"""``installation merge``: move what is recorded for an installation to another one."""

import argparse
import dataclasses
import logging
from typing import Any, Final

from cliff.show import ShowOne

from related_images import model, validation
from related_images.manage import options

LOG = logging.getLogger(__name__)

LEFT: Final = 3
"""Exit code if resources were reported after the merge had passed them."""


class Merge(options.DatabaseCommand, ShowOne):
    """Move all resources and relations of one installation to another one.

    Use it if programs used a wrong UUID, or if one deployment used two UUIDs. First configure every
    program that reports on OLD to use NEW. NEW must be registered, or have recorded resources. It
    keeps its registration. The registration of OLD is removed at the end. A merge cannot be undone.
    Services may keep running. If the command is interrupted, run it again: it completes the merge.
    """

    exit_codes = (
        "Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, "
        f"{LEFT} programs still report on OLD: run the command again."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of ``installation merge``.

        :param parser: the parser of the command
        """
        uuid = validation.argument(validation.installation_uuid)
        parser.add_argument("old", metavar="OLD", type=uuid, help="UUID to replace")
        parser.add_argument("new", metavar="NEW", type=uuid, help="UUID to use instead")
        parser.add_argument("--dry-run", action="store_true", help="count, and move nothing")

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Merge, or count in a dry run.

        :param args: the parsed arguments
        :returns: names of the columns, and the numbers of rows
        :raises RelatedImagesError: if the database cannot be used, both UUIDs are the same, or one
            of them is unknown
        """
        from related_images.db import merge
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            task = merge.count if args.dry_run else merge.merge
            self.merged = task(database, args.old, args.new)
        names = tuple(field.name for field in dataclasses.fields(model.Merged))
        return names, dataclasses.astuple(self.merged)

    def run(self, args: argparse.Namespace) -> int:
        """Run the merge.

        :param args: the parsed arguments
        :returns: the exit code, :data:`LEFT` if resources of OLD are left
        """
        failed: int = super().run(args)
        if failed or args.dry_run or not self.merged.left:
            return failed
        LOG.warning(
            "%d resources of %s were reported after the merge had passed them: configure every "
            "program to use %s, then run the command again",
            *(self.merged.left, args.old, args.new),
        )
        return LEFT
