"""What Nova's properties on an image claim, and what on the image itself contradicts them.

Nova writes ``instance_uuid``, ``image_type``, ``user_id`` and ``base_image_ref`` into each image
that it makes of a server on a local disk. Other images inherit these properties: the snapshot of a
server on volumes, and what Cinder uploads from a volume. Cinder leaves ``base_image_ref`` out, and
of a server on volumes Nova has no image to write there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from related_images import model, validation

Image = Mapping[str, Any]

MARKS: Final = ("instance_uuid", "image_type")
"""An image that has neither was not made by Nova."""

BASE: Final = "base_image_ref"
"""Where Nova writes the image at the root of all that the server was started from."""

VOLUMES: Final = ("block_device_mapping", "bdm_v2")
"""An image that has one of these is a list of volumes, made from an instance on volumes."""


@dataclass(frozen=True)
class NovaClaim:
    """An image that claims to have been made from an instance; ``doubt`` is what contradicts."""

    image_id: str
    owner: str | None
    instance_id: str | None
    kind: str | None
    label: str | None
    created_at: datetime
    doubt: str | None


def read(image: Image) -> NovaClaim | None:
    """What the image claims, or ``None`` if it claims nothing.

    :raises BadInput: if its own id or time cannot be understood
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
        doubt=_doubt(image),
    )


def _doubt(image: Image) -> str | None:
    if image.get("size") == 0 or any(image.get(name) not in (None, "", "[]") for name in VOLUMES):
        return "it was made from an instance on volumes, so the claim is inherited"
    if BASE not in image:
        return (
            "Cinder uploaded it, or its properties were written by hand: Nova's own images carry "
            f"{BASE}"
        )
    if not validation.is_uuid(image[BASE]):
        return f"its {BASE} is {validation.shown(image[BASE])}, and Nova writes the ID of an image"
    if not validation.is_uuid(image.get("instance_uuid")):
        return "it names no instance"
    if image.get("image_type") not in model.MADE_FROM:
        shown = validation.shown(image.get("image_type"))
        return f"its image_type is {shown}, which Nova never writes"
    if not image.get("user_id"):
        return "it has no user_id, which Nova always writes"
    if not image.get("owner"):
        return "it has no owner"
    if not validation.is_text(image["owner"]):
        return "its owner is no project"
    return None
