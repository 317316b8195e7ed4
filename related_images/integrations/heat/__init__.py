"""Heat resources for images with their metadata and relation, and for backup policies.

``plugin_dirs`` in Heat's configuration must list the directory of this package. Heat imports each
module of the directory under a name of its own, and calls ``resource_mapping()`` of modules that
have it. Only ``heat_plugin`` has it, and it imports this package by its real name, so that each
class exists once.
"""

from collections.abc import Mapping
from typing import Any


def resource_mapping() -> Mapping[str, Any]:
    """Return the classes of the resource types; needs Heat.

    :returns: the classes by resource type
    """
    from related_images.integrations.heat.backup_policy import BackupPolicy
    from related_images.integrations.heat.image import RelatedImage

    return {
        "OS::RelatedImages::Image": RelatedImage,
        "OS::RelatedImages::BackupPolicy": BackupPolicy,
    }
