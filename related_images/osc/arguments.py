"""What several commands take on the command line."""

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from related_images import model, validation
from related_images.errors import BadInput, ParameterMalformed

Value = TypeVar("Value")
Parser = argparse.ArgumentParser


def checked(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """``read`` as the type of an argument: what it refuses is wrong usage."""

    def value(text: str) -> Value:
        try:
            return read(text)
        except BadInput as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return value


def add_instance(parser: Parser) -> None:
    add_installation(parser)
    parser.add_argument(
        "instance_id", metavar="<instance-id>", type=checked(instance_id), help="the instance"
    )


def add_installation(parser: Parser) -> None:
    parser.add_argument(
        "--installation",
        metavar="<installation-uuid>",
        type=checked(validation.installation_uuid),
        help="the compute installation (Nova) of the instance; needed if it is not the only one "
        "that knows this instance id",
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
        help="snapshot or backup: made from the instance; boot: the instance was started from it",
    )


def add_label(parser: Parser) -> None:
    parser.add_argument(
        "--label",
        metavar="<label>",
        type=checked(validation.label),
        help="word on the relation; for a backup its type, such as daily",
    )


def add_project(parser: Parser, whose: str) -> None:
    parser.add_argument(
        "--project", metavar="<project>", help=f"{whose} this project (name or ID) only"
    )


def add_scope(parser: Parser) -> None:
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--project", metavar="<project>", help="instances of this project (name or ID) only"
    )
    scope.add_argument(
        "--all-projects", action="store_true", help="instances of every project that you see"
    )


def add_times(parser: Parser) -> None:
    for name, what in (("--created-after", "after"), ("--created-before", "before")):
        parser.add_argument(
            name,
            metavar="<time>",
            type=checked(_time(name)),
            help=f"relations recorded {what} this time (ISO 8601, UTC if it has no zone)",
        )


def add_sort(parser: Parser) -> None:
    parser.add_argument(
        "--sort",
        metavar="<key>[:<direction>][,...]",
        default="created_at:desc",
        help="have the registry sort by its keys, such as name:asc (default: %(default)s)",
    )


def instance_id(text: str) -> str:
    """``text`` if it may be the id of an instance, or :exc:`ParameterMalformed`."""
    if not validation.is_word(text, validation.INSTANCE_ID_LENGTH):
        raise ParameterMalformed(
            f"{validation.shown(text)} is not 1 to {validation.INSTANCE_ID_LENGTH} of "
            "the characters "
            f"{validation.LETTERS}"
        )
    return text


def positive(text: str) -> int:
    """A whole number from 1, of at most nine digits."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999999")
    return int(text)


def _time(name: str) -> Callable[[str], datetime]:
    return lambda text: validation.parse_time(name, text)
