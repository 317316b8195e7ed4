"""``related-images-nova-conductor``: nova-conductor, whose images carry the tuple.

The conductor creates one image itself, when it resizes an instance from one cell into another, and
has no paste file to be told by.
"""

import argparse
import sys

from related_images.errors import RelatedImagesError


def main() -> None:
    """Run nova-conductor with the options that are not ours; ends as it does.

    If it cannot be made to carry the tuple, one line on standard error says why; exit code 2.
    """
    parser = argparse.ArgumentParser(
        description="nova-conductor, whose images carry the tuple; takes all its options too.",
        allow_abbrev=False,
    )
    parser.add_argument("--installation-uuid", required=True, metavar="UUID")
    given, of_nova = parser.parse_known_args()
    # Nova chooses between threads and greenlets when this is imported, before anything else is
    from nova.cmd import conductor

    from related_images.integrations import nova

    try:
        nova.install(given.installation_uuid)
    except RelatedImagesError as error:
        parser.error(str(error))
    # oslo.config finds the configuration of the program that has this name
    sys.argv = ["nova-conductor", *of_nova]
    conductor.main()
