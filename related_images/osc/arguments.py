"""What several commands take on the command line."""

import argparse
from functools import partial
from typing import Final

from related_images import model, validation
from related_images.validation import argument

Parser = argparse.ArgumentParser

SERVER: Final = "name or ID; the recorded ID if Nova does not know it"


def add_server(parser: Parser) -> None:
    add_installation(parser)
    parser.add_argument("server", metavar="<server>", help=f"the server ({SERVER})")


def add_installation(parser: Parser) -> None:
    parser.add_argument(
        "--installation",
        metavar="<installation-uuid>",
        type=argument(validation.installation_uuid),
        help="the compute installation (Nova) of the server; needed if it is not the only one that "
        "knows a server with this ID",
    )


def add_image(parser: Parser) -> None:
    parser.add_argument("image", metavar="<image>", help="the image (name or ID)")


def add_images(parser: Parser) -> None:
    parser.add_argument("images", metavar="<image>", nargs="+", help="image(s) (name or ID)")


def add_kind(parser: Parser, *, required: bool = False) -> None:
    parser.add_argument(
        "--kind",
        choices=model.KINDS,
        required=required,
        help="snapshot or backup: made from the server; boot: the server was started from it",
    )


def add_label(parser: Parser) -> None:
    parser.add_argument(
        "--label",
        metavar="<label>",
        type=argument(validation.label),
        help="word on the relation; for a backup its type, such as daily",
    )


def add_project(parser: Parser, whose: str) -> None:
    parser.add_argument(
        "--project", metavar="<project>", help=f"{whose} this project (name or ID) only"
    )


def add_scope(parser: Parser) -> None:
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--project", metavar="<project>", help="servers of this project (name or ID) only"
    )
    scope.add_argument(
        "--all-projects", action="store_true", help="servers of every project that you see"
    )


def add_times(parser: Parser) -> None:
    for name, what in (("--created-after", "after"), ("--created-before", "before")):
        parser.add_argument(
            name,
            metavar="<time>",
            type=argument(partial(validation.parse_time, name)),
            help=f"relations recorded {what} this time (ISO 8601, UTC if it has no zone)",
        )


def add_sort(parser: Parser) -> None:
    parser.add_argument(
        "--sort",
        metavar="<key>[:<direction>][,...]",
        default="created_at:desc",
        help="have the registry sort by its keys, such as name:asc (default: %(default)s)",
    )


def positive(text: str) -> int:
    """A whole number from 1, of at most nine digits."""
    if not validation.is_positive(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 1 to {validation.LARGEST}"
        )
    return int(text)
