"""The WSGI filter: it classifies each request and passes it to the module that handles it."""

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from related_images import __version__, metrics
from related_images import config as options
from related_images.config import DEACTIVATE, VERIFIED, Settings
from related_images.db import Database
from related_images.errors import RelatedImagesError, StoreUnavailable
from related_images.middleware import (
    create_image,
    deactivate_image,
    delete_image,
    image_list,
    nova_rotation,
    responses,
    routing,
)
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, request_id
from related_images.middleware.policy import Policy
from related_images.middleware.request import (
    Creation,
    Deactivation,
    Deletion,
    Listing,
    Malformed,
    Rotation,
    classify,
)
from related_images.middleware.responses import StartResponse, WSGIApp

LOG = logging.getLogger(__name__)

SECTION: Final = "filter:related-images"
"""The conventional name of the filter's section: paste does not pass the real one."""


class InstanceAwareMiddleware:
    """A WSGI filter that records which image belongs to which server.

    :mod:`related_images.middleware` describes the headers that it reads and sets.

    :param app: Glance, or the next filter in front of it
    :param settings: the options of the filter
    :raises ConfigurationError: if the database URL or the policy file cannot be used
    """

    def __init__(self, app: WSGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._policy = Policy(settings)
        self._database = Database(settings.connection, settings.database_timeout)
        LOADED.add(self)

    def check_recording(self) -> None:
        """Check that relations can be recorded.

        :raises StoreUnavailable: if the database is unavailable or read-only
        """
        self._database.check_recording()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request, or pass it to Glance unchanged.

        :returns: the response body
        """
        app, database = self._app, self._database
        request = classify(environ)
        if request is None:
            return app(environ, start_response)
        caller = Caller(environ, self._settings, self._policy)
        try:
            match request:
                case Creation(assertion):
                    return create_image.create_image(
                        app, database, environ, start_response, assertion, caller
                    )
                case Listing():
                    return image_list.answer(
                        app, database, caller, request, environ, start_response
                    )
                case Rotation() if self._settings.nova_rotation == VERIFIED:
                    return nova_rotation.answer(
                        app, database, caller, request, environ, start_response
                    )
                case Deletion():
                    return delete_image.answer(
                        app, database, caller, request, environ, start_response
                    )
                case Deactivation() if self._settings.guards(DEACTIVATE):
                    return deactivate_image.answer(
                        app, database, caller, request, environ, start_response
                    )
                case routing.Route():
                    response = routing.handle(app, database, caller, request, environ)
                    return response(environ, start_response)
                case Malformed(error):
                    raise error
            return app(environ, start_response)
        except RelatedImagesError as error:
            _log_error(error, environ)
            return responses.error_response(environ, error)(environ, start_response)


LOADED: Final[weakref.WeakSet[InstanceAwareMiddleware]] = weakref.WeakSet()
"""The filters of this process. The healthcheck reads them: paste creates it separately."""


def _log_error(error: RelatedImagesError, environ: Environ) -> None:
    failed = isinstance(error, StoreUnavailable)
    counter = metrics.FAILED if failed else metrics.REFUSED
    counter.labels(error.code).inc()
    level, word = (logging.WARNING, "failed") if failed else (logging.INFO, "refused")
    LOG.log(level, "%s: %s: %s [%s]", word, error.code, error.for_log(), request_id(environ))


def filter_factory(
    global_conf: dict[str, str] | None, **local_conf: str
) -> Callable[[WSGIApp], InstanceAwareMiddleware]:
    """Return the filter for paste: ``egg:related-images``, or ``paste.filter_factory``.

    :param local_conf: the options in the filter's section of the paste file
    :returns: a function that takes the app behind the filter
    :raises ConfigurationError: if an option is unknown or invalid; the message names it
    """
    settings = options.load(SECTION, local_conf, options.host())
    _log_settings(settings)
    return lambda app: InstanceAwareMiddleware(app, settings)


def _log_settings(settings: Settings) -> None:
    """Log the options, and log an error if the database cannot be used."""
    database = Database(settings.connection, settings.database_timeout)
    LOG.info("related-images %s: database %s, %s", __version__, database.address, settings.shown())
    try:
        database.check()
    except StoreUnavailable as error:
        LOG.error("relations cannot be recorded now: %s", error.for_log())
