"""Nova's own backup rotation, which is shown nothing but the instance's recorded backups.

Nova lists what claims to be a backup of the instance and deletes the oldest. Users can set these
claims, and images inherit them. Whatever is kept back here is kept from being deleted, so that a
rotation that cannot be answered now is shown nothing at all: the next one makes up for it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from related_images.errors import StoreUnavailable
from related_images.middleware import imagelist
from related_images.middleware.answers import StartResponse, WSGIApp
from related_images.middleware.environ import Environ
from related_images.middleware.identity import Caller
from related_images.queries import Database
from related_images.queries.rotation import recorded_backups
from related_images.wire import headers, words

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
    if image_type != words.BACKUP or not words.is_word(instance_id, words.INSTANCE_ID_LENGTH):
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
    """Answer a rotation with the registry's image list, of recorded, active backups alone.

    It passes if the caller has no recording role, or if several installations may be meant.
    """
    image_ids = _recorded(database, caller, rotation) if caller.may_record else None
    if image_ids is None:
        return app(environ, start_response)
    return imagelist.answer_restricted(
        app, environ, start_response, ACKNOWLEDGEMENT, image_ids, ACTIVE
    )


def _recorded(database: Database, caller: Caller, rotation: Rotation) -> list[str] | None:
    users = caller.speaker().user_ids
    try:
        return recorded_backups(database, users, rotation.instance_id, rotation.backup_type)
    except StoreUnavailable as error:
        LOG.warning(
            "the rotation of %s is shown no backups: %s", rotation.instance_id, error.for_log()
        )
        return []
