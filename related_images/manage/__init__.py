"""``related-images``: the commands for operators, which need access to the database."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :param argv: the command line without the name of the program; that of the process by default
    :returns: the exit code: 0 done, 1 failed, 2 wrong usage, others as the help of the command says
    """
    from related_images.manage.app import Operators

    try:
        return Operators().run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as ended:
        return int(ended.code or 0)
