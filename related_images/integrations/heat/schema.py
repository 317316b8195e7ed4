"""What a template may say of an image, in Heat's terms."""

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
        "Name of the image; one made from the stack's and the resource's if none is given.",
        constraints.Length(max=255),
    ),
    names.VISIBILITY: _plain(Schema.STRING, "Who may see the image.", _VISIBILITIES),
    names.TAGS: _texts("Tags; those that others gave the image stay."),
    names.MEMBERS: _texts("Projects with which the image is shared; needs the visibility shared."),
    names.PROTECTED: _plain(Schema.BOOLEAN, "Whether the image may not be deleted."),
    names.MIN_DISK: _plain(
        Schema.INTEGER, "Disk that a server of it needs, in GiB.", _NOT_NEGATIVE
    ),
    names.MIN_RAM: _plain(
        Schema.INTEGER, "Memory that a server of it needs, in MiB.", _NOT_NEGATIVE
    ),
    names.OS_HIDDEN: _plain(
        Schema.BOOLEAN, "Whether the image is left out of default image lists."
    ),
    names.ARCHITECTURE: _plain(Schema.STRING, "Processor architecture."),
    names.KERNEL_ID: _plain(Schema.STRING, "Image that is the kernel.", _IMAGE),
    names.RAMDISK_ID: _plain(Schema.STRING, "Image that is the RAM disk.", _IMAGE),
    names.DISK_FORMAT: _plain(
        Schema.STRING, "Format of the disk; Glance lets it be changed only before there is data."
    ),
    names.CONTAINER_FORMAT: _plain(Schema.STRING, "Format of the container; likewise."),
    names.PROPERTIES: _plain(
        Schema.MAP,
        "User-defined properties: any key, with text as its value. Those that are not named here "
        "stay as they are.",
        default={},
    ),
    names.LOCATION: _source("URL that the image service downloads the image from."),
    names.IMAGE: _source(
        "An image that is there already; it is described, and never deleted.", _IMAGE
    ),
    names.SERVER: _plain(
        Schema.STRING,
        "The server that the image belongs to; without location and image, a snapshot of it is "
        "taken.",
        constraints.CustomConstraint("nova.server"),
    ),
    names.INSTANCE: _plain(
        Schema.MAP,
        "The instance that the image belongs to, if it is no server of this cloud's Nova.",
        schema={
            names.INSTALLATION: Schema(
                Schema.STRING, "UUID of the Nova deployment; else the one in heat.conf."
            ),
            names.ID: Schema(Schema.STRING, "ID of the instance.", required=True),
        },
    ),
    names.KIND: _plain(
        Schema.STRING,
        "How the image belongs to the server or instance.",
        constraints.AllowedValues(list(model.KINDS)),
        default=model.SNAPSHOT,
    ),
    names.LABEL: _plain(Schema.STRING, "Label of the relation, such as daily."),
}

ATTRIBUTES_SCHEMA: Final = {
    name: attributes.Schema(description, cache_mode=attributes.Schema.CACHE_NONE)
    for name, description in {
        names.ID: "ID of the image.",
        names.STATUS: "Status of the image.",
        names.CHECKSUM: "Checksum of its data.",
        names.SIZE: "Size of its data in bytes.",
        names.RELATIONS: "The relations of the image, as GET /v2/images/{id}/relations shows them.",
    }.items()
}
