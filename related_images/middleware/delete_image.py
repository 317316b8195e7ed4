"""Deleting an image: noting that the registry did, and before, whether images in use are guarded.

Where the database cannot tell, the deletion passes as if there were no guard, as every request
without a tuple does.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from related_images import failpoints, validation
from related_images.config import IN_USE
from related_images.db import Database, ImageState, deletions
from related_images.db.deletions import StartedDeletion
from related_images.db.recording import image_deleted
from related_images.errors import ImageInUse, StoreUnavailable
from related_images.failpoints import Point
from related_images.middleware import glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, request_id
from related_images.middleware.request import Deletion
from related_images.middleware.responses import Headers, StartResponse, WSGIApp

LOG = logging.getLogger(__name__)


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    asked: Deletion,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Let Glance delete the image, unless images in use are guarded and it is, and note that.

    :raises ImageInUse: if live instances were started from it, and no administrator forces it
    """
    image_id = _image_to_delete(app, environ, asked.spelled)
    if image_id is None:
        return app(environ, start_response)
    if caller.settings.guard == IN_USE:
        guarded = Guarded(app, database, caller, image_id, asked.forced)
        return guarded.delete(environ, start_response)
    return app(environ, Outcome(database, image_id, start_response).start_response)


def _image_to_delete(app: WSGIApp, environ: Environ, spelled: str) -> str | None:
    """The image that Glance deletes if it answers 204, by the ID it has in relations.

    Some databases find an image by other spellings of its ID too, in capitals or with accents:
    which image that is, if any, Glance says.
    """
    if validation.is_image_id(spelled):
        return spelled
    shown = glance.shown(app, environ, spelled)
    found = spelled.lower() if shown is None else shown.get("id")
    return found if validation.is_image_id(found) else None


@dataclass(frozen=True)
class Outcome:
    """What the registry makes of a deletion; ``begun`` if it is noted as on its way."""

    database: Database
    image_id: str
    respond: StartResponse
    begun: StartedDeletion | None = None

    def start_response(self, status: str, given: Headers, *exc_info: Any) -> Any:
        """Note it, and answer as the registry does."""
        try:
            self._note(status)
        except StoreUnavailable as error:
            LOG.warning(
                "outcome of deleting image %s is left to be reconciled: %s",
                self.image_id,
                error.for_log(),
            )
        return self.respond(status, given, *exc_info)

    def _note(self, status: str) -> None:
        if status.startswith("204"):
            failpoints.reach(Point.DELETE_ANSWERED)
            if self.begun:
                deletions.deleted(self.database, self.begun)
            else:
                image_deleted(self.database, self.image_id)
            failpoints.reach(Point.DELETE_NOTED)
        elif self.begun and not status.startswith("5"):
            deletions.withdraw(self.database, self.begun)


@dataclass(frozen=True)
class Guarded:
    """A request to delete ``image_id``; ``forced`` if it asks to do so although it is in use."""

    app: WSGIApp
    database: Database
    caller: Caller
    image_id: str
    forced: bool

    def delete(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let the registry delete the image unless live instances were started from it.

        :raises ImageInUse: if there are such, and no administrator forces it
        """
        begun = self._begin() if self._may_be_deleted() else None
        if begun is not None and begun.in_use:
            self._log_force(begun, environ)
        outcome = Outcome(self.database, self.image_id, start_response, begun)
        return self.app(environ, outcome.start_response)

    def _may_be_deleted(self) -> bool:
        """Whether the registry may do it: the image is the caller's own, or he an administrator.

        Anybody else is left to the registry, which refuses. He must learn nothing of who uses the
        image, and keep nobody from starting an instance from it. Where nobody is identified, the
        registry may take everybody for an administrator.
        """
        if self.caller.is_admin or not self.caller.is_identified:
            return True
        image, own = self._image, self.caller.project_id
        return image is None or (own is not None and image.get("owner") == own)

    @cached_property
    def _image(self) -> dict[str, Any] | None:
        """The image as Glance shows it to the caller; ``None`` if Glance fails to say."""
        return glance.shown(self.app, self.caller.environ, self.image_id)

    def _begin(self) -> StartedDeletion | None:
        try:
            return self._begun(None)
        except ImageInUse:
            # another image that had the ID before may be what they were started from
            return self._begun(glance.seen(self._image))

    def _begun(self, seen: ImageState | None) -> StartedDeletion | None:
        caller = self.caller
        forced = self.forced and caller.is_admin
        try:
            return deletions.begin(
                self.database, self.image_id, caller.visible_to, forced=forced, seen=seen
            )
        except ImageInUse as error:
            if not self.forced:
                raise
            raise ImageInUse(
                f"{error}; this caller sent X-Relation-Force and has none of the roles of an "
                f"administrator: {caller.admins}"
            ) from error
        except StoreUnavailable as error:
            LOG.warning("deletion of image %s passes unguarded: %s", self.image_id, error.for_log())
        return None

    def _log_force(self, begun: StartedDeletion, environ: Environ) -> None:
        LOG.warning(
            "deletion of image %s is forced by user %s of project %s, though %d live instances "
            "were started from it [%s]",
            begun.image_id,
            environ.get("HTTP_X_USER_ID"),
            self.caller.project_id,
            begun.in_use,
            request_id(environ),
        )
