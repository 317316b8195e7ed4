"""The filter itself: what is done about each sort of request."""

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from related_images import __version__, metrics
from related_images import config as options
from related_images.config import VERIFIED, Settings
from related_images.db import Database
from related_images.errors import RelatedImagesError, StoreUnavailable
from related_images.middleware import (
    create_image,
    delete_image,
    image_list,
    nova_rotation,
    responses,
    routing,
)
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, request_id
from related_images.middleware.request import (
    Creation,
    Deletion,
    Listing,
    Malformed,
    Rotation,
    classify,
)
from related_images.middleware.responses import StartResponse, WSGIApp

LOG = logging.getLogger(__name__)

SECTION: Final = "filter:related-images"
"""The section of the filter as it is called by convention: paste tells a filter no name."""


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
        app, database = self._app, self._database
        asked = classify(environ)
        if asked is None:
            return app(environ, start_response)
        caller = Caller(environ, self._settings)
        try:
            match asked:
                case Creation(assertion):
                    return create_image.create_image(
                        app, database, environ, start_response, assertion, caller
                    )
                case Listing():
                    return image_list.answer(app, database, caller, asked, environ, start_response)
                case Rotation() if self._settings.nova_rotation == VERIFIED:
                    return nova_rotation.answer(
                        app, database, caller, asked, environ, start_response
                    )
                case Deletion():
                    return delete_image.answer(
                        app, database, caller, asked, environ, start_response
                    )
                case routing.Route():
                    response = routing.answer(app, database, caller, asked, environ)
                    return response(environ, start_response)
                case Malformed(error):
                    raise error
            return app(environ, start_response)
        except RelatedImagesError as error:
            _report(error, environ)
            return responses.refusal(environ, error)(environ, start_response)


LOADED: Final[weakref.WeakSet[InstanceAwareMiddleware]] = weakref.WeakSet()
"""The filters of this process, for the healthcheck, which paste makes on its own."""


def _report(error: RelatedImagesError, environ: Environ) -> None:
    failed = isinstance(error, StoreUnavailable)
    counter = metrics.FAILED if failed else metrics.REFUSED
    counter.labels(error.code).inc()
    level, word = (logging.WARNING, "failed") if failed else (logging.INFO, "refused")
    LOG.log(level, "%s: %s: %s [%s]", word, error.code, error.for_log(), request_id(environ))


def filter_factory(
    global_conf: dict[str, str] | None, **local_conf: str
) -> Callable[[WSGIApp], InstanceAwareMiddleware]:
    """Make the filter for paste, by ``paste.filter_factory`` or ``egg:related-images``.

    :raises ConfigurationError: naming what is wrong in the section of the filter
    """
    settings = options.load(SECTION, local_conf, options.host())
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
