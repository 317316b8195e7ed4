"""Resources for Heat's templates: images with their metadata and instance, backup policies.

Heat finds them by ``plugin_dirs`` in its configuration, which names the directory of this package.
It imports every module there by itself, and asks those that have one for ``resource_mapping()``:
that is ``heat_plugin`` alone, so that each class is there once.
"""

from collections.abc import Mapping
from typing import Any


def resource_mapping() -> Mapping[str, Any]:
    """The resource types of this package and their classes; needs Heat."""
    from related_images.integrations.heat.backup_policy import BackupPolicy
    from related_images.integrations.heat.image import RelatedImage

    return {
        "OS::RelatedImages::Image": RelatedImage,
        "OS::RelatedImages::BackupPolicy": BackupPolicy,
    }
