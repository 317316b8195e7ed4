"""``generate-installation-uuid``: generate the UUID of a Nova deployment."""

import argparse
import uuid
from typing import Final

from related_images.manage import options

_CONF: Final = """\
# For api-paste.ini of Nova, on each nova-api host with the same UUID. Insert related-images into
# the pipeline right before osapi_compute_app_v21.
[filter:related-images]
paste.filter_factory = related_images.integrations.nova:filter_factory
installation_uuid = {uuid}
"""


class Generate(options.OperatorCommand):
    """Generate a UUID for an installation (Nova deployment). It must never change later."""

    exit_codes = "Exit codes: 0 done, 2 wrong usage."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the option of ``generate-installation-uuid``.

        :param parser: the parser of the command
        """
        parser.add_argument(
            "--format",
            choices=("plain", "conf"),
            default="plain",
            help="plain: the UUID; conf: a section for Nova's api-paste.ini (default: plain)",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        """Write a random UUID to standard output.

        :param args: the parsed arguments
        """
        text = _CONF if args.format == "conf" else "{uuid}\n"
        self.app.stdout.write(text.format(uuid=uuid.uuid4()))
