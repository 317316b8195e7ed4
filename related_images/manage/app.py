"""The program around the commands: its options, its log, its help."""

import logging
from typing import Final

from cliff.app import App
from cliff.commandmanager import CommandManager

from related_images import __version__

GROUP: Final = "related_images.manage"
"""The entry points that are commands."""

DESCRIPTION: Final = (
    "Operate related-images: which image belongs to which instance. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage; a command's own help has the others."
)


class Operators(App):
    """``related-images``; without a command it prints its help."""

    NAME = "related-images"
    LOG = logging.getLogger(NAME)

    def __init__(self) -> None:
        super().__init__(DESCRIPTION, __version__, CommandManager(GROUP), deferred_help=True)

    def configure_logging(self) -> None:
        super().configure_logging()
        logging.getLogger("alembic").setLevel(logging.WARNING)

    def initialize_app(self, argv: list[str]) -> None:
        self.options.deferred_help |= not argv
