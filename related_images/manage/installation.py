"""``installation``: register the Nova deployments whose servers may have relations."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import validation
from related_images.manage import options

if TYPE_CHECKING:
    from related_images.model import Installation

COLUMNS: Final = ("uuid", "name", "service_user_id", "registered_at")


class Add(options.DatabaseCommand, ShowOne):
    """Register an installation (Nova deployment). Repeating the command changes nothing."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of ``installation add``.

        :param parser: the parser of the command
        """
        _add_uuid(parser)
        parser.add_argument(
            "--name", required=True, type=options.short_text, help="name of the installation"
        )
        parser.add_argument(
            "--service-user-id",
            metavar="ID",
            type=options.short_text,
            help="ID of the only service user that may record its relations (default: any)",
        )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Register the installation.

        :param args: the parsed arguments
        :returns: names of the columns, and their values
        :raises RelatedImagesError: if the database cannot be used, or the installation is
            registered with another name or service user
        """
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            registered, _ = installations.register(
                database, args.uuid, args.name, args.service_user_id
            )
        return COLUMNS, _row(registered)


class List(options.DatabaseCommand, Lister):
    """List the registered installations, sorted by name."""

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Return the installations as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and the rows
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            return COLUMNS, [_row(one) for one in installations.registered(database)]


class Remove(options.DatabaseCommand):
    """Remove the registration of an installation. Its relations stay."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the argument of ``installation remove``.

        :param parser: the parser of the command
        """
        _add_uuid(parser)

    def take_action(self, args: argparse.Namespace) -> None:
        """Remove the registration.

        :param args: the parsed arguments
        :raises RelatedImagesError: if the database cannot be used, or the installation is not
            registered
        """
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            installations.unregister(database, args.uuid)


def _add_uuid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uuid",
        metavar="UUID",
        type=validation.argument(validation.installation_uuid),
        help="UUID of the installation",
    )


def _row(one: "Installation") -> tuple[str | None, ...]:
    registered_at = f"{one.registered_at:%Y-%m-%dT%H:%M:%SZ}"
    return one.uuid, one.name, one.service_user_id, registered_at
