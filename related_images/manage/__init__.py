"""``related-images``: the commands of operators, who have the database at hand."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 1 failed, 2 wrong usage, else see its help.

    :param argv: the words of the command line behind the program's name; by default the process's
    """
    from related_images.manage.app import Operators

    try:
        return Operators().run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as ended:
        return int(ended.code or 0)
