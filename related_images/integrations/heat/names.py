"""The names of the properties and attributes of ``OS::RelatedImages::Image``."""

from collections.abc import Mapping
from typing import Any, Final

NAME: Final = "name"
VISIBILITY: Final = "visibility"
TAGS: Final = "tags"
MEMBERS: Final = "members"
PROTECTED: Final = "protected"
MIN_DISK: Final = "min_disk"
MIN_RAM: Final = "min_ram"
OS_HIDDEN: Final = "os_hidden"
ARCHITECTURE: Final = "architecture"
KERNEL_ID: Final = "kernel_id"
RAMDISK_ID: Final = "ramdisk_id"
DISK_FORMAT: Final = "disk_format"
CONTAINER_FORMAT: Final = "container_format"
PROPERTIES: Final = "properties"
LOCATION: Final = "location"
IMAGE: Final = "image"
SERVER: Final = "server"
INSTANCE: Final = "instance"
INSTALLATION: Final = "installation"
ID: Final = "id"
KIND: Final = "kind"
LABEL: Final = "label"

OPTIONAL: Final = (ARCHITECTURE, KERNEL_ID, RAMDISK_ID)
"""Optional attributes of an image; they can be removed from it."""
DEFAULTS: Final[Mapping[str, Any]] = {
    VISIBILITY: "shared",
    PROTECTED: False,
    MIN_DISK: 0,
    MIN_RAM: 0,
    OS_HIDDEN: False,
}
"""The values that Glance sets by default."""
PLAIN: Final = (NAME, *DEFAULTS, *OPTIONAL, DISK_FORMAT, CONTAINER_FORMAT)
"""Properties that are attributes of the image with the same name."""
OF_TEMPLATES: Final = (
    *PLAIN,
    TAGS,
    MEMBERS,
    PROPERTIES,
    LOCATION,
    IMAGE,
    SERVER,
    INSTANCE,
    KIND,
    LABEL,
)
"""All properties of the resource."""

STATUS: Final = "status"
CHECKSUM: Final = "checksum"
SIZE: Final = "size"
RELATIONS: Final = "relations"
