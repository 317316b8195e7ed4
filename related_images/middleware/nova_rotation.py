"""Nova's own backup rotation: restrict its image list to the recorded backups of the server.

Nova lists the images with the properties of a backup of the server and deletes the oldest. Users
can set these properties, and images inherit them. Nova may send the query with the user's token
alone, so the list is restricted for every caller. Nova does not delete an image that is not in the
list: if the database is unavailable or fails, the list is empty, and a later rotation deletes the
images.
"""

import logging
from collections.abc import Iterable
from typing import Final

from related_images.db import Database, ListedImage
from related_images.db.recorded_backups import InstallationAmbiguous, recorded_backups
from related_images.middleware import failures, image_list
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.request import Rotation
from related_images.middleware.responses import StartResponse, WSGIApp

LOG = logging.getLogger(__name__)

ACTIVE: Final = "status=active"
ACKNOWLEDGEMENT: Final = "installation_uuid, instance_id, kind"
"""As ``Restriction.acknowledgement()`` of :mod:`related_images.protocol.image_list`."""


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    rotation: Rotation,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer the query with Glance's image list, restricted to recorded, active backups.

    The list is empty if the database is unavailable or fails. It is also empty if the server ID is
    recorded for several installations and the caller's service user is bound to none of them.

    :returns: the response body
    """
    selection = image_list.Selection.of_images(_recorded_images(database, caller, rotation))
    return image_list.answer_restricted(
        app, environ, start_response, rotation.query, ACKNOWLEDGEMENT, selection, ACTIVE
    )


def _recorded_images(database: Database, caller: Caller, rotation: Rotation) -> list[ListedImage]:
    users, instance_id = caller.reporter().user_ids, rotation.instance_id
    with failures.logged("the backup rotation of server %s gets an empty list", instance_id):
        try:
            return recorded_backups(
                database, users, instance_id, rotation.backup_type, caller.visible_to
            )
        except InstallationAmbiguous as error:
            LOG.warning(
                "the backup rotation of server %s gets an empty list: %s; bind the service user of "
                "each Nova to its installation with `related-images installation add`, and "
                "configure nova-compute to send a service token",
                instance_id,
                error,
            )
    return []
