"""The cliff application of ``related-images``: global options, logging and help."""

import logging
from typing import Final

from cliff.app import App
from cliff.commandmanager import CommandManager

from related_images import __version__

GROUP: Final = "related_images.manage"
"""The group of entry points that hold the commands."""

DESCRIPTION: Final = (
    "Operate related-images, which records the server that each image belongs to. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage; the help of a command lists any others."
)


class Operators(App):
    """``related-images``; without a command it prints its help."""

    NAME = "related-images"
    LOG = logging.getLogger(NAME)

    def __init__(self) -> None:
        super().__init__(DESCRIPTION, __version__, CommandManager(GROUP), deferred_help=True)

    def configure_logging(self) -> None:
        """Configure logging as cliff does, and silence the progress messages of alembic."""
        super().configure_logging()
        logging.getLogger("alembic").setLevel(logging.WARNING)

    def initialize_app(self, argv: list[str]) -> None:
        """Print the help if there is no command.

        :param argv: the command and its arguments
        """
        self.options.deferred_help |= not argv
