"""``resource-type``: register the types of resources that may have leases of images."""

import argparse
from typing import Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import model, validation
from related_images.manage import options

COLUMNS: Final = ("name", "longest_lease_days", "registered_at")


class Add(options.DatabaseCommand, ShowOne):
    """Register a type of resources that may have leases of images.

    A second run with the same arguments changes nothing.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of ``resource-type add``.

        :param parser: the parser of the command
        """
        _add_name(parser)
        parser.add_argument(
            "--longest-lease-days",
            metavar="DAYS",
            type=validation.argument(validation.number, "--longest-lease-days"),
            default=model.LONGEST_LEASE_DAYS,
            help="how many days in the future a lease may end, 1 to "
            f"{model.LONGEST_LEASE_DAYS_MAX} (default: %(default)s)",
        )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Register the type.

        :param args: the parsed arguments
        :returns: names of the columns, and their values
        :raises RelatedImagesError: if the database cannot be used, a value is not allowed, or the
            type is registered with another number of days
        """
        from related_images.db import resource_types
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            registered, _ = resource_types.register(database, args.name, args.longest_lease_days)
        return COLUMNS, _row(registered)


class List(options.DatabaseCommand, Lister):
    """List the registered types of resources, sorted by name."""

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Return the types as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and the rows
        :raises RelatedImagesError: if the database cannot be used
        """
        from related_images.db import resource_types
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            return COLUMNS, [_row(one) for one in resource_types.registered(database)]


class Remove(options.DatabaseCommand):
    """Remove a type of resources. The command fails while resources of the type have live leases.

    Expired leases stay until they are purged.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the argument of ``resource-type remove``.

        :param parser: the parser of the command
        """
        _add_name(parser)

    def take_action(self, args: argparse.Namespace) -> None:
        """Remove the type.

        :param args: the parsed arguments
        :raises RelatedImagesError: if the database cannot be used, or the type is not registered or
            has live leases
        """
        from related_images.db import resource_types
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            resource_types.remove(database, args.name)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        type=validation.argument(validation.resource_type),
        help="name of the type, such as stack",
    )


def _row(one: model.RegisteredType) -> tuple[Any, ...]:
    return one.name, one.longest_lease_days, validation.format_seconds(one.registered_at)
