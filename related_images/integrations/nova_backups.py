"""Backups that the owner of a server makes with ``createImage``.

Nova's ``createBackup`` refuses servers on volumes. For every server, the metadata of
``createImage`` can say that the image is a backup, and give its label. A user who may call
``createBackup`` can choose the same there, with ``backup_type``. The relation always names the
server of the request.
"""

from collections.abc import Mapping
from typing import Any, Final

from webob.exc import HTTPBadRequest

from related_images import model, validation
from related_images.errors import LabelMalformed

KIND: Final = "relation_kind"
LABEL: Final = "relation_label"
BACKUP_TYPE: Final = "backup_type"
"""The property of the images of ``createBackup`` with the type of the backup."""

Properties = Mapping[str, Any]


def take(kind: str, properties: Properties) -> tuple[str, str | None, dict[str, Any]]:
    """Return what to record of an image, and the properties that remain.

    :param kind: the kind of the image if its metadata give none
    :param properties: the metadata of the request
    :returns: the kind, the label, and the properties of the image
    :raises HTTPBadRequest: if the metadata give another kind, a label without a kind, a malformed
        label, or one of them for ``createBackup``, which states both by itself
    """
    others = {key: value for key, value in properties.items() if key not in (KIND, LABEL)}
    if len(others) == len(properties):
        return kind, _backup_type(kind, properties), others
    if kind != model.SNAPSHOT:
        raise _refused(
            f"{KIND} and {LABEL} are metadata of createImage; createBackup records the kind "
            f"{model.BACKUP} and the backup_type as label, so omit them"
        )
    if properties.get(KIND) != model.BACKUP:
        given = validation.shown(properties[KIND]) if KIND in properties else "missing"
        raise _refused(
            f"{KIND} is {given}, and must be {model.BACKUP}; omit {KIND} and {LABEL} for a snapshot"
        )
    return model.BACKUP, _label(properties), others


def _label(properties: Properties) -> str | None:
    try:
        return validation.label(properties[LABEL]) if LABEL in properties else None
    except LabelMalformed as error:
        raise _refused(f"{LABEL}: {error}") from error


def _refused(message: str) -> HTTPBadRequest:
    # nova-api shows the explanation, which is not the first argument
    return HTTPBadRequest(explanation=message)


def _backup_type(kind: str, properties: Properties) -> str | None:
    """Return the type of a backup. Nova accepts any text; one that is no valid label is omitted."""
    text = properties.get(BACKUP_TYPE)
    is_label = kind == model.BACKUP and validation.is_word(text, validation.LABEL_LENGTH)
    return text if is_label else None
