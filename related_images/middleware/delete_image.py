"""Delete an image: check the delete protection before, mark the image deleted after.

If the database is unavailable or the check fails, the request passes without the check, as does
every request without instance headers.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from related_images import failpoints, validation
from related_images.config import DELETE
from related_images.db import Database, ImageState, delete_protection
from related_images.db.delete_protection import StartedDeletion
from related_images.db.recording import image_deleted
from related_images.errors import ImageInUse
from related_images.failpoints import Point
from related_images.middleware import failures, glance, image_use
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, glance_context, request_id
from related_images.middleware.request import Deletion
from related_images.middleware.responses import Headers, StartResponse, WSGIApp

LOG = logging.getLogger(__name__)


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    request: Deletion,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Let Glance delete the image, and mark it deleted if Glance did.

    :returns: the body of Glance's response
    :raises ImageInUse: if delete protection is on, live resources use the image, and the request
        is not a forced one of an administrator
    """
    image_id = find_id(app, environ, request.image)
    if image_id is None:
        return app(environ, start_response)
    if caller.settings.guards(DELETE):
        guarded = Guarded(app, database, caller, image_id, request.forced)
        return guarded.delete(environ, start_response)
    return app(environ, Outcome(database, image_id, start_response).start_response)


def find_id(app: WSGIApp, environ: Environ, image: str) -> str | None:
    """Return the ID of the image that Glance finds for a path, or ``None`` if there is none.

    :param image: the ID in the path, in any spelling

    Some databases compare without case or accents and find an image by another spelling of its ID.
    Glance is asked which image it finds.
    """
    if validation.is_image_id(image):
        return image
    found = glance.find_image(app, environ, image)
    image_id = image.lower() if found is None else found.get("id")
    return image_id if validation.is_image_id(image_id) else None


def may_change(caller: Caller, image: Callable[[], Mapping[str, Any] | None]) -> bool:
    """Return whether Glance may delete or deactivate the image for this caller.

    It may for an owner or an administrator, and refuses all others. The check must not tell them
    who uses the image, nor stop others from starting servers from it. Glance's own context tells
    an administrator, who may have no token if Glance runs without authentication, from an
    anonymous caller, who may only read. Without a context, Glance may treat every caller that is
    not identified as an administrator, so an image that it shows is protected.

    :param image: returns the image as Glance shows it to the caller; ``None`` if Glance fails
    """
    context = glance_context(caller.environ)
    if caller.is_admin or getattr(context, "is_admin", False):
        return True
    if not caller.is_identified and context is not None:
        return False
    found, project_id = image(), caller.project_id
    if found is None:
        return True
    if not caller.is_identified:
        return bool(found)
    return project_id is not None and found.get("owner") == project_id


@dataclass(frozen=True)
class Outcome:
    """Glance's response to a deletion; ``started`` is the deletion as recorded before."""

    database: Database
    image_id: str
    send: StartResponse
    started: StartedDeletion | None = None

    def start_response(self, status: str, given: Headers, *exc_info: Any) -> Any:
        """Record the result and pass Glance's status and headers on."""
        with failures.logged(
            "result of the deletion of image %s is left to reconciliation", self.image_id
        ):
            self._record(status)
        return self.send(status, given, *exc_info)

    def _record(self, status: str) -> None:
        if status.startswith("204"):
            failpoints.reach(Point.DELETE_ANSWERED)
            if self.started:
                delete_protection.deleted(self.database, self.started)
            else:
                image_deleted(self.database, self.image_id)
            failpoints.reach(Point.DELETE_NOTED)
        elif self.started and not status.startswith("5"):
            delete_protection.withdraw(self.database, self.started)


@dataclass(frozen=True)
class Guarded:
    """A request to delete ``image_id``, with delete protection on.

    ``forced`` is whether the request has ``X-Relation-Force``.
    """

    app: WSGIApp
    database: Database
    caller: Caller
    image_id: str
    forced: bool

    def delete(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let Glance delete the image unless live resources use it.

        :returns: the body of Glance's response
        :raises ImageInUse: if they do and no administrator forces the deletion
        """
        try:
            started = self._start() if may_change(self.caller, lambda: self._image) else None
        except ImageInUse as error:
            raise image_use.with_dependents(
                self.app, self.database, self.caller, self.image_id, error
            ) from error
        if started is not None and started.in_use:
            self._log_force(started, environ)
        outcome = Outcome(self.database, self.image_id, start_response, started)
        return self.app(environ, outcome.start_response)

    @cached_property
    def _image(self) -> dict[str, Any] | None:
        """The image as Glance shows it to the caller; ``None`` if Glance fails."""
        return glance.find_image(self.app, self.caller.environ, self.image_id)

    def _start(self) -> StartedDeletion | None:
        try:
            return self._start_deletion(None)
        except ImageInUse:
            # the resources may use an earlier image with this ID
            return self._start_deletion(glance.image_state(self._image))

    def _start_deletion(self, image_state: ImageState | None) -> StartedDeletion | None:
        caller = self.caller
        try:
            with failures.logged("image %s is deleted without the check of its use", self.image_id):
                return delete_protection.begin(
                    self.database,
                    self.image_id,
                    caller.visible_to,
                    forced=self.forced and caller.is_admin,
                    image_state=image_state,
                    counts=caller.settings.guard_counts,
                    service=caller.service(),
                )
        except ImageInUse as error:
            if not self.forced:
                raise
            raise ImageInUse(
                error.use,
                f"{error.advice}; X-Relation-Force was ignored, because the caller has none of "
                f"these admin roles: {caller.admin_roles}",
            ) from error
        return None

    def _log_force(self, started: StartedDeletion, environ: Environ) -> None:
        LOG.warning(
            "deletion of image %s is forced by user %s of project %s, although %d live resources "
            "use it [%s]",
            started.image_id,
            environ.get("HTTP_X_USER_ID"),
            self.caller.project_id,
            started.in_use,
            request_id(environ),
        )
