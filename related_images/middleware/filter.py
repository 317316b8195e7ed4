"""The filter itself: which requests are ours, and the way of those that are not."""

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote

from related_images import __version__, metrics, validation
from related_images import config as options
from related_images.config import IN_USE, VERIFIED, Settings
from related_images.db import Database, listing
from related_images.errors import MethodOverridden, RelatedImagesError, StoreUnavailable
from related_images.middleware import (
    api,
    guard,
    imagelist,
    recording,
    registry,
    rotation,
)
from related_images.middleware.answers import (
    StartResponse,
    WSGIApp,
    answer,
    answer_error,
)
from related_images.middleware.call import recording_forbidden
from related_images.middleware.environ import (
    Environ,
    carries_tuple,
    path_below_api,
    request_id,
    take_force,
    take_tuple,
)
from related_images.middleware.identity import Caller
from related_images.protocol import headers, paths

LOG = logging.getLogger(__name__)

SECTION: Final = "filter:related-images"
"""The section of the filter as it is called by convention: paste tells a filter no name."""

METHOD_OVERRIDE: Final = "_method"
"""Where this query parameter or form field is, the registry's router takes the method from it."""

FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
"""In what is posted as one of these the registry's router looks for such a field."""

IMAGES: Final = (paths.IMAGES, paths.IMAGES + "\n")
"""The registry's router lets a path end in a line break."""


class InstanceAwareMiddleware:
    """A WSGI filter that lets the registry ``app`` know its images' instances.

    The package :mod:`related_images.middleware` says what goes in and out.

    :param app: the registry, speaking Images API v2
    :param settings: what the section of the filter says
    :raises ConfigurationError: if the database URL cannot be used
    """

    def __init__(self, app: WSGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._database = Database(settings.connection, settings.database_timeout)
        LOADED.add(self)

    def check_recording(self) -> None:
        """Find out whether relations can be recorded.

        :raises StoreUnavailable: if they cannot
        """
        self._database.check_recording()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = path_below_api(environ)
        route = None if path is None else api.route(path)
        if not (route or carries_tuple(environ) or self._concerns_us(environ, path)):
            return self._app(environ, start_response)
        try:
            return self._answer(environ, start_response, path, route)
        except RelatedImagesError as error:
            _report(error, environ)
            return answer_error(environ, start_response, error)

    def _concerns_us(self, environ: Environ, path: str | None) -> bool:
        """Whether a request to the registry, without our headers, is ours by query or method."""
        if path is None:
            return False
        if path not in IMAGES:
            return _may_be_deletion(environ) and _image_of(path) is not None
        query = _query(environ)
        return bool(query) and (
            headers.QUERY[0] in imagelist.asserted(query) or self._rotation(environ) is not None
        )

    def _rotation(self, environ: Environ) -> rotation.Rotation | None:
        return rotation.read(environ) if self._settings.nova_rotation == VERIFIED else None

    def _answer(
        self,
        environ: Environ,
        start_response: StartResponse,
        path: str | None,
        route: api.Route | None,
    ) -> Iterable[bytes]:
        given, forced = take_tuple(environ), take_force(environ)
        if path in IMAGES and environ["REQUEST_METHOD"] == "GET":
            given = headers.combined(given, imagelist.asserted(_query(environ)))
        assertion = headers.read(given)
        if path is None:
            return self._app(environ, start_response)
        if assertion and path in IMAGES:
            return self._images(environ, start_response, assertion)
        caller = Caller(environ, self._settings)
        asked = self._rotation(environ) if path in IMAGES else None
        if asked is not None:
            return rotation.answer(
                self._app, self._database, caller, asked, environ, start_response
            )
        if route is not None:
            status, body = api.handle(self._app, self._database, caller, environ, route)
            return answer(start_response, status, body)
        image_id = self._image_to_delete(environ, path)
        if image_id is not None and self._settings.guard == IN_USE:
            guarded = guard.Guarded(self._app, self._database, caller, image_id, forced)
            return guarded.delete(environ, start_response)
        if image_id is not None:
            outcome = guard.Outcome(self._database, image_id, start_response)
            return self._app(environ, outcome.start_response)
        return self._app(environ, start_response)

    def _image_to_delete(self, environ: Environ, path: str) -> str | None:
        """The image that the registry deletes if it answers 204, by the id it has in relations.

        Some databases find an image by other spellings of its id too, in capitals or with accents:
        which image that is, if any, the registry says.
        """
        spelled = _image_of(path) if _may_be_deletion(environ) else None
        if spelled is None or validation.is_image_id(spelled):
            return spelled
        shown = registry.shown(self._app, environ, spelled)
        found = spelled.lower() if shown is None else shown.get("id")
        return found if validation.is_image_id(found) else None

    def _images(
        self, environ: Environ, start_response: StartResponse, assertion: headers.Assertion
    ) -> Iterable[bytes]:
        if _overrides_method(environ):
            raise MethodOverridden(
                f"leave out the query parameter {METHOD_OVERRIDE}, and use the method itself"
            )
        method = environ["REQUEST_METHOD"]
        if method == "POST":
            return self._create(environ, start_response, assertion)
        if method == "GET":
            return self._list(environ, start_response, assertion)
        return self._app(environ, start_response)

    def _create(
        self, environ: Environ, start_response: StartResponse, assertion: headers.Assertion
    ) -> Iterable[bytes]:
        caller = Caller(environ, self._settings)
        if not caller.may_record:
            raise recording_forbidden(self._settings)
        return recording.create_image(
            self._app, self._database, environ, start_response, assertion, caller
        )

    def _list(
        self, environ: Environ, start_response: StartResponse, assertion: headers.Assertion
    ) -> Iterable[bytes]:
        ref = assertion.instance
        images = listing.images_of_instance(
            self._database,
            ref.installation_uuid,
            ref.instance_id,
            assertion.kind,
            assertion.label,
            Caller(environ, self._settings).visible_to,
        )
        return imagelist.answer_restricted(
            self._app, environ, start_response, assertion.acknowledgement(), images
        )


LOADED: Final[weakref.WeakSet[InstanceAwareMiddleware]] = weakref.WeakSet()
"""The filters of this process, for the healthcheck, which paste makes on its own."""


def _report(error: RelatedImagesError, environ: Environ) -> None:
    failed = isinstance(error, StoreUnavailable)
    counter = metrics.FAILED if failed else metrics.REFUSED
    counter.labels(error.code).inc()
    level, word = (logging.WARNING, "failed") if failed else (logging.INFO, "refused")
    LOG.log(level, "%s: %s: %s [%s]", word, error.code, error.for_log(), request_id(environ))


def _query(environ: Environ) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return query


def _overrides_method(environ: Environ) -> bool:
    return any(name == METHOD_OVERRIDE for name, _, _ in imagelist.parameters(_query(environ)))


def _image_of(path: str) -> str | None:
    """How the image is spelled whose own path this is."""
    if not path.startswith(paths.IMAGES + "/"):
        return None
    spelled = path.removeprefix(paths.IMAGES + "/").removesuffix("\n")
    return spelled if spelled and "/" not in spelled else None


def _may_be_deletion(environ: Environ) -> bool:
    """Whether the registry may take the request for a DELETE.

    Its router may find another method than the request's in the query, or in a form that is posted.
    It leaves out of the query what cannot be decoded.
    """
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if method == "DELETE" or (method == "POST" and _is_form(environ)):
        return True
    return METHOD_OVERRIDE in query and "DELETE" in unquote(query, errors="ignore").upper()


def _is_form(environ: Environ) -> bool:
    kind = environ.get("CONTENT_TYPE", "").lower()
    return kind.split(";", 1)[0] in FORMS


def filter_factory(
    global_conf: dict[str, str] | None, **local_conf: str
) -> Callable[[WSGIApp], InstanceAwareMiddleware]:
    """Make the filter for paste, by ``paste.filter_factory`` or ``egg:related-images``.

    :raises ConfigurationError: naming what is wrong in the section of the filter
    """
    settings = options.load(SECTION, local_conf)
    _report_state(settings)
    return lambda app: InstanceAwareMiddleware(app, settings)


def _report_state(settings: Settings) -> None:
    """Log what is in force, and what would otherwise be found out at the first request."""
    database = Database(settings.connection, settings.database_timeout)
    LOG.info("related-images %s: database %s, %s", __version__, database.address, settings.shown())
    try:
        database.check()
    except StoreUnavailable as error:
        LOG.error("relations cannot be recorded for now: %s", error.for_log())
