"""Naming an installation."""

import argparse
import uuid
from typing import Final

from related_images.manage import options

_CONF: Final = """\
# In the api-paste.ini of this installation's Nova, and in the same words on each of its nova-api
# hosts; name the filter in the pipeline just before osapi_compute_app_v21.
[filter:related-images]
paste.filter_factory = related_images.integrations.nova:filter_factory
installation_uuid = {uuid}
"""


class Generate(options.Operation):
    """Make the UUID of an installation: once for each Nova deployment, and kept from then on."""

    exit_codes = "Exit codes: 0 done, 2 wrong usage."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--format",
            choices=("plain", "conf"),
            default="plain",
            help="plain: the UUID alone (the default); conf: the lines for Nova's api-paste.ini",
        )

    def take_action(self, given: argparse.Namespace) -> None:
        text = _CONF if given.format == "conf" else "{uuid}\n"
        self.app.stdout.write(text.format(uuid=uuid.uuid4()))
