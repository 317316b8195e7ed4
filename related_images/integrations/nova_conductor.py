"""``related-images-nova-conductor``: nova-conductor, patched to send the instance headers.

The conductor creates an image itself when it resizes a server from one cell into another. It has no
paste file, so the filter for nova-api cannot patch it.
"""

import argparse
import sys

from related_images.errors import RelatedImagesError


def main() -> None:
    """Patch Nova, and run nova-conductor with all other options; exits as nova-conductor does.

    If Nova cannot be patched, it writes one line to standard error and exits with code 2.
    """
    parser = argparse.ArgumentParser(
        description="Run nova-conductor with instance headers; takes its options as well.",
        allow_abbrev=False,
    )
    parser.add_argument("--installation-uuid", required=True, metavar="UUID")
    options, nova_options = parser.parse_known_args()
    # Nova chooses between threads and greenlets on this import, which must be its first one
    from nova.cmd import conductor

    from related_images.integrations import nova

    try:
        nova.install(options.installation_uuid)
    except RelatedImagesError as error:
        parser.error(str(error))
    # oslo.config looks for the configuration files of the program with this name
    sys.argv = ["nova-conductor", *nova_options]
    conductor.main()
