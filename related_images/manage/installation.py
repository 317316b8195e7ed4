"""``installation``: register the deployments of Nova and Cinder."""

import argparse
from typing import Any, Final

from cliff.columns import FormattableColumn
from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import model, validation
from related_images.manage import options

COLUMNS: Final = ("uuid", "name", "service_users", "witnesses", "registered_at")


class Add(options.DatabaseCommand, ShowOne):
    """Register an installation: a deployment of Nova, Cinder or another service.

    A second run with the same arguments changes nothing.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of ``installation add``.

        :param parser: the parser of the command
        """
        _add_uuid(parser)
        parser.add_argument(
            "--name",
            required=True,
            type=validation.argument(validation.text, "--name"),
            help="name of the installation",
        )
        parser.add_argument(
            "--service-user",
            metavar="USER_ID[:TYPE[,TYPE...]]",
            dest="service_users",
            action="append",
            default=[],
            type=validation.argument(_service_user),
            help="ID of a service user that may record relations of the installation, and the "
            "types of resources that it may record (default: all types); may be repeated. Without "
            "this option, every caller with a recording role may record",
        )
        parser.add_argument(
            "--witness",
            dest="witnesses",
            action="append",
            default=[],
            choices=tuple(model.WITNESSES),
            help="witness that is expected to report on the installation; may be repeated. For a "
            "time in which a witness did not report, the use of images is unknown (default: no "
            "witness is expected)",
        )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Register the installation.

        :param args: the parsed arguments
        :returns: names of the columns, and their values
        :raises RelatedImagesError: if the database cannot be used, or the installation is
            registered with another name, other service users or other witnesses
        """
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(args) as database:
            registered, _ = installations.register(
                *(database, args.uuid, args.name, args.service_users),
                model.witnesses(args.witnesses),
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


class ServiceUsers(FormattableColumn[Any]):
    """The service users, as the option takes them; in machine-readable formats as in the API."""

    def human_readable(self) -> str:
        return " ".join(map(str, self._value))

    def machine_readable(self) -> list[dict[str, Any]]:
        return [user.as_json() for user in self._value]


class Witnesses(FormattableColumn[Any]):
    """The expected witnesses; in machine-readable formats a list."""

    def human_readable(self) -> str:
        return " ".join(self._value)

    def machine_readable(self) -> list[str]:
        return list(self._value)


def _service_user(text: str) -> model.ServiceUser:
    user_id, colon, types = text.partition(":")
    return model.service_user(user_id, types.split(",") if colon else None)


def _add_uuid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uuid",
        metavar="UUID",
        type=validation.argument(validation.installation_uuid),
        help="UUID of the installation",
    )


def _row(one: model.Installation) -> tuple[Any, ...]:
    registered_at = validation.format_seconds(one.registered_at)
    users, witnesses = ServiceUsers(one.service_users), Witnesses(one.witnesses)
    return one.uuid, one.name, users, witnesses, registered_at
