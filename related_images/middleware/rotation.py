"""Nova's own backup rotation, which is shown nothing but the server's recorded backups.

Nova lists what claims to be a backup of the server and deletes the oldest. Users can set these
claims, and images inherit them. Nova may send the query with the user's token alone, so it is
narrowed for every caller. An image that is left out is not deleted: a rotation that cannot be
answered now gets an empty list, and the next rotation deletes what this one left.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from related_images import model, validation
from related_images.db import Database, ListedImage
from related_images.db.rotation import InstallationAmbiguous, recorded_backups
from related_images.errors import StoreUnavailable
from related_images.middleware import imagelist
from related_images.middleware.answers import StartResponse, WSGIApp
from related_images.middleware.environ import Environ
from related_images.middleware.identity import Caller
from related_images.protocol import headers

LOG = logging.getLogger(__name__)

CLAIMS: Final = ("image_type", "backup_type", "instance_uuid")
PAGING: Final = ("limit", "marker", "sort_key", "sort_dir")
ACTIVE: Final = "status=active"
ACKNOWLEDGEMENT: Final = ", ".join(headers.FILTER_WORDS[:3])


@dataclass(frozen=True)
class Rotation:
    """What a rotation asks for."""

    instance_id: str
    backup_type: str


def read(environ: Environ) -> Rotation | None:
    """The rotation that a request for the image list is, if it is one."""
    if environ["REQUEST_METHOD"] != "GET" or CLAIMS[2] not in environ.get("QUERY_STRING", ""):
        return None
    given = [(name, text) for name, text, _ in imagelist.parameters(environ["QUERY_STRING"])]
    claims = {name: text for name, text in given if name not in PAGING}
    if set(claims) != set(CLAIMS) or len(given) != len(dict(given)):
        return None
    image_type, backup_type, instance_id = (claims[name] for name in CLAIMS)
    if image_type != model.BACKUP or not validation.is_word(
        instance_id, validation.INSTANCE_ID_LENGTH
    ):
        return None
    return Rotation(instance_id, backup_type)


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    rotation: Rotation,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer a rotation with Glance's image list, of recorded, active backups alone."""
    image_ids = _recorded(database, caller, rotation)
    return imagelist.answer_restricted(
        app, environ, start_response, ACKNOWLEDGEMENT, image_ids, ACTIVE
    )


def _recorded(database: Database, caller: Caller, rotation: Rotation) -> list[ListedImage]:
    users, instance_id = caller.speaker().user_ids, rotation.instance_id
    try:
        return recorded_backups(
            database, users, instance_id, rotation.backup_type, caller.visible_to
        )
    except StoreUnavailable as error:
        LOG.warning(
            "the backup rotation of server %s gets an empty list: %s", instance_id, error.for_log()
        )
    except InstallationAmbiguous as error:
        LOG.warning(
            "the backup rotation of server %s gets an empty list: %s; bind each Nova's service "
            "user to its installation with `related-images installation add`, and let "
            "nova-compute send a service token",
            instance_id,
            error,
        )
    return []
