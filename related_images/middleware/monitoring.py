"""What a monitoring system asks: numbers for Prometheus, and whether relations can be recorded.

Both are paste apps beside Glance's own, at URLs of their own, so that neither needs a token.
"""

import os
from typing import Any, Final

from oslo_middleware.healthcheck.pluginbase import HealthcheckBaseExtension, HealthcheckResult
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from related_images import metrics
from related_images.errors import ConfigurationError, StoreUnavailable
from related_images.middleware.environ import Environ
from related_images.middleware.filter import LOADED
from related_images.middleware.responses import StartResponse, WSGIApp

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"


def metrics_factory(global_conf: dict[str, str] | None, **local_conf: str) -> WSGIApp:
    """Make the paste app ``egg:related-images#metrics``, which answers a scrape of Prometheus.

    :raises ConfigurationError: if it is given an option, or ``PROMETHEUS_MULTIPROC_DIR`` names no
        directory
    """
    if local_conf:
        raise ConfigurationError(
            f"[app:related-images-metrics] has an unknown option {min(local_conf)!r}; it takes none"
        )
    directory = os.environ.get(SHARED)
    if directory is None:
        return make_wsgi_app(metrics.REGISTRY)
    if not os.path.isdir(directory):
        raise ConfigurationError(
            f"{SHARED}={directory} is not a directory; make it before the service starts, and empty"
        )
    return _sums


def _sums(environ: Environ, start_response: StartResponse) -> Any:
    """Answer with the sums over all processes of the server, those that have ended included."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return make_wsgi_app(registry)(environ, start_response)


class RecordingHealthcheck(HealthcheckBaseExtension):
    """The backend ``related_images`` of oslo.middleware's healthcheck app.

    It is available if the filter of this process can record relations. It belongs on a URL of its
    own: one backend that is unavailable makes the whole answer a 503, and on Glance's own
    ``/healthcheck`` a load balancer would take Glance out of service.
    """

    def healthcheck(self, server_port: int) -> HealthcheckResult:
        try:
            for loaded in list(LOADED):
                loaded.check_recording()
        except StoreUnavailable as error:
            return HealthcheckResult(
                available=False, reason="relations cannot be recorded", details=str(error)
            )
        if not LOADED:
            return HealthcheckResult(available=False, reason="no pipeline here has the filter")
        return HealthcheckResult(available=True, reason="relations can be recorded")
