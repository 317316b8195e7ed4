"""Read the relation of an image from the properties that Nova sets on it.

Nova sets ``instance_uuid``, ``image_type``, ``user_id`` and ``base_image_ref`` on each image that
it makes of a server with a local disk. Other images inherit these properties: the snapshot of a
server that is booted from a volume, and an image that Cinder uploads from a volume. Cinder omits
``base_image_ref``. Nova has no image ID for a server that is booted from a volume.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from related_images import model, validation

Image = Mapping[str, Any]

MARKS: Final = ("instance_uuid", "image_type")
"""An image with neither property was not made by Nova."""

BASE: Final = "base_image_ref"
"""The property with the ID of the image that the server, or its original, was booted from."""

VOLUMES: Final = ("block_device_mapping", "bdm_v2")
"""An image with one of these properties lists volumes of a server booted from a volume."""


@dataclass(frozen=True)
class NovaClaim:
    """The relation that the properties of an image claim.

    :ivar contradiction: why the claim is not credible; ``None`` if nothing on the image contradicts
    """

    image_id: str
    owner: str | None
    instance_id: str | None
    kind: str | None
    label: str | None
    created_at: datetime
    contradiction: str | None


def read(image: Image) -> NovaClaim | None:
    """Return the relation that an image claims.

    :param image: the image as Glance shows it
    :returns: ``None`` if the image has no property of Nova
    :raises BadInput: if the ID or the creation time of the image is malformed
    """
    if not any(mark in image for mark in MARKS):
        return None
    label = image.get("backup_type")
    kind = image.get("image_type")
    return NovaClaim(
        image_id=validation.image_id(image["id"]),
        owner=image.get("owner"),
        instance_id=image.get("instance_uuid"),
        kind=kind,
        label=label
        if kind == model.BACKUP and validation.is_word(label, validation.LABEL_LENGTH)
        else None,
        created_at=validation.parse_time("created_at", image["created_at"]),
        contradiction=_contradiction(image),
    )


def _contradiction(image: Image) -> str | None:
    if image.get("size") == 0 or any(image.get(name) not in (None, "", "[]") for name in VOLUMES):
        return "the server is booted from a volume, so the image inherited the properties"
    if BASE not in image:
        return (
            "Cinder uploaded the image, or a user set its properties: images that Nova makes have "
            f"{BASE}"
        )
    if not validation.is_uuid(image[BASE]):
        return f"{BASE} is {validation.shown(image[BASE])}, and Nova sets it to an image ID"
    if not validation.is_uuid(image.get("instance_uuid")):
        return "instance_uuid is not a server ID"
    if image.get("image_type") not in (model.SNAPSHOT, model.BACKUP):
        shown = validation.shown(image.get("image_type"))
        return f"image_type is {shown}, which Nova never sets"
    if not image.get("user_id"):
        return "user_id is missing, which Nova always sets"
    if not image.get("owner"):
        return "the image has no owner"
    if not validation.is_text(image["owner"]):
        return "the owner of the image is not a project ID"
    return None
