"""Heat's schemas of the properties and attributes of ``OS::RelatedImages::Image``."""

from typing import Any, Final

from heat.engine import attributes, constraints, properties

from related_images import model
from related_images.integrations.heat import names

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
    names.NAME: _plain(
        Schema.STRING,
        "Name of the image; by default it is derived from the names of the stack and the resource.",
        constraints.Length(max=255),
    ),
    names.VISIBILITY: _plain(Schema.STRING, "Visibility of the image.", _VISIBILITIES),
    names.TAGS: _texts("Tags; tags that others added stay."),
    names.MEMBERS: _texts("Projects that share the image; needs the visibility shared."),
    names.PROTECTED: _plain(Schema.BOOLEAN, "Whether deletion of the image is refused."),
    names.MIN_DISK: _plain(
        Schema.INTEGER, "Minimum disk size of a server booted from it, in GiB.", _NOT_NEGATIVE
    ),
    names.MIN_RAM: _plain(
        Schema.INTEGER, "Minimum memory of a server booted from it, in MiB.", _NOT_NEGATIVE
    ),
    names.OS_HIDDEN: _plain(Schema.BOOLEAN, "Whether default image lists omit the image."),
    names.ARCHITECTURE: _plain(Schema.STRING, "Processor architecture."),
    names.KERNEL_ID: _plain(Schema.STRING, "Image with the kernel.", _IMAGE),
    names.RAMDISK_ID: _plain(Schema.STRING, "Image with the RAM disk.", _IMAGE),
    names.DISK_FORMAT: _plain(
        Schema.STRING, "Disk format; Glance refuses a change after the image has data."
    ),
    names.CONTAINER_FORMAT: _plain(
        Schema.STRING, "Container format; Glance refuses a change after the image has data."
    ),
    names.PROPERTIES: _plain(
        Schema.MAP,
        "User-defined properties: any key, with a string as its value. Other properties of the "
        "image stay unchanged.",
        default={},
    ),
    names.LOCATION: _source("URL that Glance imports the image from."),
    names.IMAGE: _source(
        "An existing image; the resource changes its metadata and never deletes it.", _IMAGE
    ),
    names.SERVER: _plain(
        Schema.STRING,
        "The server that the image belongs to. Without location and image, the resource creates "
        "a snapshot of it.",
        constraints.CustomConstraint("nova.server"),
    ),
    names.INSTANCE: _plain(
        Schema.MAP,
        "The server that the image belongs to, in any Nova deployment.",
        schema={
            names.INSTALLATION: Schema(
                Schema.STRING, "UUID of the Nova deployment; default: the one in heat.conf."
            ),
            names.ID: Schema(Schema.STRING, "ID of the server.", required=True),
        },
    ),
    names.KIND: _plain(
        Schema.STRING,
        "Kind of the relation between the image and the server.",
        constraints.AllowedValues([model.SNAPSHOT, model.BACKUP, model.BOOT]),
        default=model.SNAPSHOT,
    ),
    names.LABEL: _plain(Schema.STRING, "Label of the relation, such as daily."),
}

ATTRIBUTES_SCHEMA: Final = {
    name: attributes.Schema(description, cache_mode=attributes.Schema.CACHE_NONE)
    for name, description in {
        names.ID: "ID of the image.",
        names.STATUS: "Status of the image.",
        names.CHECKSUM: "Checksum of the image data.",
        names.SIZE: "Size of the image data in bytes.",
        names.RELATIONS: "Relations of the image, as GET /v2/images/{id}/relations returns them.",
    }.items()
}
