"""What a template may say of an image."""

from collections.abc import Mapping
from typing import Any, Final

from heat.engine import attributes, constraints, properties

from related_images import model

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
"""What an image may lack altogether."""
DEFAULTS: Final[Mapping[str, Any]] = {
    VISIBILITY: "shared",
    PROTECTED: False,
    MIN_DISK: 0,
    MIN_RAM: 0,
    OS_HIDDEN: False,
}
"""What Glance gives an image of which nothing else is said."""
PLAIN: Final = (NAME, *DEFAULTS, *OPTIONAL, DISK_FORMAT, CONTAINER_FORMAT)
"""What is in the image under the same name."""

Schema = properties.Schema


def _plain(kind: str, description: str, *constraint: Any, **more: Any) -> Any:
    return Schema(kind, description, constraints=constraint, update_allowed=True, **more)


def _source(description: str, *constraint: Any) -> Any:
    return Schema(Schema.STRING, description, constraints=constraint)


def _texts(description: str) -> Any:
    each = Schema(Schema.STRING)
    return Schema(Schema.LIST, description, schema=each, update_allowed=True, default=[])


_NOT_NEGATIVE = constraints.Range(min=0)
_IMAGE = constraints.CustomConstraint("glance.image")
_VISIBILITIES = constraints.AllowedValues(["public", "private", "shared", "community"])

PROPERTIES_SCHEMA: Final = {
    NAME: _plain(
        Schema.STRING,
        "Name of the image; one made from the stack's and the resource's if none is given.",
        constraints.Length(max=255),
    ),
    VISIBILITY: _plain(Schema.STRING, "Who may see the image.", _VISIBILITIES),
    TAGS: _texts("Tags; those that others gave the image stay."),
    MEMBERS: _texts("Projects with which the image is shared; needs the visibility shared."),
    PROTECTED: _plain(Schema.BOOLEAN, "Whether the image may not be deleted."),
    MIN_DISK: _plain(Schema.INTEGER, "Disk that a server of it needs, in GiB.", _NOT_NEGATIVE),
    MIN_RAM: _plain(Schema.INTEGER, "Memory that a server of it needs, in MiB.", _NOT_NEGATIVE),
    OS_HIDDEN: _plain(Schema.BOOLEAN, "Whether the image is left out of default image lists."),
    ARCHITECTURE: _plain(Schema.STRING, "Processor architecture."),
    KERNEL_ID: _plain(Schema.STRING, "Image that is the kernel.", _IMAGE),
    RAMDISK_ID: _plain(Schema.STRING, "Image that is the RAM disk.", _IMAGE),
    DISK_FORMAT: _plain(
        Schema.STRING, "Format of the disk; Glance lets it be changed only before there is data."
    ),
    CONTAINER_FORMAT: _plain(Schema.STRING, "Format of the container; likewise."),
    PROPERTIES: _plain(
        Schema.MAP,
        "User-defined properties: any key, with text as its value. Those that are not named here "
        "stay as they are.",
        default={},
    ),
    LOCATION: _source("URL that the image service downloads the image from."),
    IMAGE: _source("An image that is there already; it is described, and never deleted.", _IMAGE),
    SERVER: _plain(
        Schema.STRING,
        "The server that the image belongs to; without location and image, a snapshot of it is "
        "taken.",
        constraints.CustomConstraint("nova.server"),
    ),
    INSTANCE: _plain(
        Schema.MAP,
        "The instance that the image belongs to, if it is no server of this cloud's Nova.",
        schema={
            INSTALLATION: Schema(
                Schema.STRING, "UUID of the Nova deployment; else the one in heat.conf."
            ),
            ID: Schema(Schema.STRING, "ID of the instance.", required=True),
        },
    ),
    KIND: _plain(
        Schema.STRING,
        "How the image belongs to the server or instance.",
        constraints.AllowedValues(list(model.KINDS)),
        default=model.SNAPSHOT,
    ),
    LABEL: _plain(Schema.STRING, "Label of the relation, such as daily."),
}

STATUS: Final = "status"
CHECKSUM: Final = "checksum"
SIZE: Final = "size"
RELATIONS: Final = "relations"

ATTRIBUTES_SCHEMA: Final = {
    name: attributes.Schema(description, cache_mode=attributes.Schema.CACHE_NONE)
    for name, description in {
        ID: "ID of the image.",
        STATUS: "Status of the image.",
        CHECKSUM: "Checksum of its data.",
        SIZE: "Size of its data in bytes.",
        RELATIONS: "The relations of the image, as GET /v2/images/{id}/relations shows them.",
    }.items()
}
