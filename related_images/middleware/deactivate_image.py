"""Deactivate an image: refuse it while live resources use the image.

An administrator may always deactivate an image. If the database is unavailable or the check fails,
the request passes without the check.
"""

import logging
from collections.abc import Iterable
from typing import Final

from related_images.db import Database, delete_protection
from related_images.errors import ImageInUse
from related_images.middleware import failures, glance, image_use
from related_images.middleware.access import Caller
from related_images.middleware.delete_image import find_id, may_change
from related_images.middleware.environ import Environ, request_id
from related_images.middleware.request import Deactivation
from related_images.middleware.responses import StartResponse, WSGIApp

LOG: Final = logging.getLogger(__name__)


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    request: Deactivation,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Let Glance deactivate the image unless live resources use it.

    :returns: the body of Glance's response
    :raises ImageInUse: if they do and the caller is no administrator
    """
    image_id = find_id(app, environ, request.image)
    if image_id is not None:
        image = glance.find_image(app, caller.environ, image_id)
        if may_change(caller, lambda: image):
            try:
                with failures.logged(
                    "image %s is deactivated without the check of its use", image_id
                ):
                    _check(database, caller, image_id, image, environ)
            except ImageInUse as error:
                raise image_use.with_dependents(app, database, caller, image_id, error) from error
    return app(environ, start_response)


def _check(
    database: Database, caller: Caller, image_id: str, image: object, environ: Environ
) -> None:
    """Refuse the request, or log it for an administrator with the number of dependents.

    :param image: the image as Glance shows it to the caller
    :raises ImageInUse: if live resources use the image and the caller is no administrator
    """
    in_use = delete_protection.check_deactivation(
        database,
        image_id,
        caller.visible_to,
        forced=caller.is_admin,
        image_state=glance.image_state(image),
        counts=caller.settings.guard_counts,
    )
    if caller.is_admin:
        LOG.log(
            logging.WARNING if in_use else logging.INFO,
            "image %s is deactivated by user %s of project %s; %d live resources use it [%s]",
            *(image_id, environ.get("HTTP_X_USER_ID"), caller.project_id, in_use),
            request_id(environ),
        )
