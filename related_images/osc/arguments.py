"""Arguments that several commands have."""

import argparse
from datetime import UTC, datetime
from typing import Final

from related_images import model, validation
from related_images.errors import ParameterMalformed
from related_images.validation import argument

Parser = argparse.ArgumentParser

SERVER: Final = "name or ID; only the ID if Nova does not have the server"

INSTALLATION_OF_SERVER: Final = (
    "Installation of the server (UUID of a Nova deployment); needed only if several installations "
    "have a server with this ID"
)

RESOURCE: Final = "name or ID of a server, ID of a resource of another type"

TYPES: Final = f"{', '.join(model.RESOURCE_TYPES)}, or a registered type"

KIND: Final = (
    "snapshot or backup: the image was made from the server or volume; shelved: Nova made it when "
    "it shelved the server; boot: the server was started from the image, or the volume was made "
    "from it; use: a resource of a registered type uses the image until a date"
)


def add_server_or_all(parser: Parser, objects: str) -> None:
    """Add the arguments ``<server>`` or ``--all``, and ``--installation``.

    :param objects: the objects to list, such as ``images``
    """
    add_installation(
        parser, f"{INSTALLATION_OF_SERVER}. With --all: list only {objects} of this installation"
    )
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument(
        "server", metavar="<server>", nargs="?", help=f"Server to list {objects} of ({SERVER})"
    )
    servers.add_argument(
        "--all",
        action="store_true",
        help=f"List {objects} of all servers, including deleted servers",
    )


def add_installation(parser: Parser, help_text: str) -> None:
    """Add the option ``--installation``."""
    parser.add_argument(
        "--installation",
        metavar="<installation-uuid>",
        type=argument(validation.installation_uuid),
        help=help_text,
    )


def add_image(parser: Parser, purpose: str) -> None:
    """Add the argument ``<image>``.

    :param purpose: completes the help "Image …"
    """
    parser.add_argument("image", metavar="<image>", help=f"Image {purpose} (name or ID)")


def add_images(parser: Parser, purpose: str) -> None:
    """Add the argument ``<image>``, for one image or more.

    :param purpose: completes the help "Image(s) …"
    """
    parser.add_argument(
        "images", metavar="<image>", nargs="+", help=f"Image(s) {purpose} (name or ID)"
    )


def add_kind(parser: Parser, purpose: str, *, required: bool = False) -> None:
    """Add the option ``--kind``.

    :param purpose: begins the help
    """
    parser.add_argument(
        "--kind", choices=model.KINDS, required=required, help=f"{purpose} ({KIND})"
    )


def add_resource_type(
    parser: Parser, purpose: str, default: str | None = None, note: str = ""
) -> None:
    """Add the option ``--resource-type``.

    :param purpose: begins the help
    :param note: a sentence that ends the help
    """
    shown_default = f" (default: {default})" if default else ""
    parser.add_argument(
        "--resource-type",
        metavar="<type>",
        type=argument(validation.resource_type),
        default=default,
        help=f"{purpose}: {TYPES}{shown_default}" + (f". {note}" if note else ""),
    )


def add_label(parser: Parser, help_text: str) -> None:
    """Add the option ``--label``."""
    parser.add_argument(
        "--label", metavar="<label>", type=argument(validation.label), help=help_text
    )


def add_expires(parser: Parser) -> None:
    """Add the option ``--expires``, whose value is a time."""
    parser.add_argument(
        "--expires",
        metavar="<span|time>",
        type=argument(_end),
        help="End of the lease, required for the kind use: a span from now such as 14d, or a time "
        "(ISO 8601; UTC if it has no time zone)",
    )


def _end(text: str) -> datetime:
    """Return the time of a span from now, or of an ISO 8601 time."""
    try:
        return datetime.now(UTC) + validation.parse_span(text)
    except ParameterMalformed:
        if not any(mark in text for mark in "-T"):
            raise
    return validation.parse_time("--expires", text)


def add_project(parser: Parser, what: str) -> None:
    """Add the filter ``--project``.

    :param what: the objects to list, such as ``images``
    """
    parser.add_argument(
        "--project", metavar="<project>", help=f"List only {what} of this project (name or ID)"
    )


def add_project_scope(parser: Parser, action: str) -> None:
    """Add ``--project`` and ``--all-projects``.

    :param action: the verb of the command, with a capital letter
    """
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--project",
        metavar="<project>",
        help=f"{action} all servers of this project (name or ID)",
    )
    scope.add_argument(
        "--all-projects",
        action="store_true",
        help=f"{action} the servers of all projects that this account sees",
    )


def add_times(parser: Parser) -> None:
    """Add the filters ``--created-after`` and ``--created-before``."""
    for name, preposition in (("--created-after", "after"), ("--created-before", "before")):
        parser.add_argument(
            name,
            metavar="<time>",
            type=argument(validation.parse_time, name),
            help=f"List only relations recorded {preposition} this time (ISO 8601; UTC if it has "
            "no time zone)",
        )


def add_sort(parser: Parser) -> None:
    """Add the option ``--sort``."""
    parser.add_argument(
        "--sort",
        metavar="<key>[:<direction>][,...]",
        default="created_at:desc",
        help="Sort by keys and directions of Glance, such as name:asc (default: %(default)s)",
    )
