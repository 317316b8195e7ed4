"""Nova's own backup rotation, which is shown nothing but the server's recorded backups.

Nova lists what claims to be a backup of the server and deletes the oldest. Users can set these
claims, and images inherit them. Nova may send the query with the user's token alone, so it is
narrowed for every caller. An image that is left out is not deleted: a rotation that cannot be
answered now gets an empty list, and the next rotation deletes what this one left.
"""

import logging
from collections.abc import Iterable
from typing import Final

from related_images.db import Database, ListedImage
from related_images.db.recorded_backups import InstallationAmbiguous, recorded_backups
from related_images.errors import StoreUnavailable
from related_images.middleware import image_list
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.request import Rotation
from related_images.middleware.responses import StartResponse, WSGIApp
from related_images.protocol import headers

LOG = logging.getLogger(__name__)

ACTIVE: Final = "status=active"
ACKNOWLEDGEMENT: Final = ", ".join(headers.FILTER_WORDS[:3])


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
    return image_list.answer_restricted(
        app, environ, start_response, rotation.query, ACKNOWLEDGEMENT, image_ids, ACTIVE
    )


def _recorded(database: Database, caller: Caller, rotation: Rotation) -> list[ListedImage]:
    users, instance_id = caller.reporter().user_ids, rotation.instance_id
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
