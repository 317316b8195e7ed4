"""``installation``: the Nova deployments that may be named in a tuple."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from cliff.lister import Lister
from cliff.show import ShowOne

from related_images import validation
from related_images.manage import options

if TYPE_CHECKING:
    from related_images.model import Installation

COLUMNS: Final = ("uuid", "name", "service_user_id", "registered_at")


class Add(options.OnDatabase, ShowOne):
    """Register an installation; the same again changes nothing."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_uuid(parser)
        parser.add_argument(
            "--name", required=True, type=options.short_text, help="what people call it"
        )
        parser.add_argument(
            "--service-user-id",
            metavar="ID",
            type=options.short_text,
            help="the only service user who may then speak for it (default: any)",
        )

    def take_action(self, given: argparse.Namespace) -> tuple[Any, Any]:
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(given) as database:
            found, _ = installations.register(
                database, given.uuid, given.name, given.service_user_id
            )
        return COLUMNS, _row(found)


class List(options.OnDatabase, Lister):
    """List the registered installations, by name."""

    def take_action(self, given: argparse.Namespace) -> tuple[Any, Any]:
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(given) as database:
            return COLUMNS, [_row(found) for found in installations.registered(database)]


class Remove(options.OnDatabase):
    """Forget the registration of an installation; its relations stay."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_uuid(parser)

    def take_action(self, given: argparse.Namespace) -> None:
        from related_images.db import installations
        from related_images.manage import database_access

        with database_access.open_database(given) as database:
            installations.unregister(database, given.uuid)


def _add_uuid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uuid",
        metavar="UUID",
        type=validation.argument(validation.installation_uuid),
        help="the installation",
    )


def _row(found: "Installation") -> tuple[str | None, ...]:
    registered_at = f"{found.registered_at:%Y-%m-%dT%H:%M:%SZ}"
    return found.uuid, found.name, found.service_user_id, registered_at
