"""Monitoring: metrics for Prometheus, and a healthcheck of recording.

Both are paste apps beside Glance's own, with their own URLs, so that they need no token.
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

MULTIPROC_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"


def metrics_factory(global_conf: dict[str, str] | None, **local_conf: str) -> WSGIApp:
    """Return the paste app ``egg:related-images#metrics``, which Prometheus scrapes.

    :raises ConfigurationError: if ``local_conf`` has an option, or ``PROMETHEUS_MULTIPROC_DIR`` is
        set and is not a directory
    """
    if local_conf:
        raise ConfigurationError(
            f"[app:related-images-metrics] has an unknown option {min(local_conf)!r}; this app "
            "has no options, remove it"
        )
    directory = os.environ.get(MULTIPROC_DIR)
    if directory is None:
        return make_wsgi_app(metrics.REGISTRY)
    if not os.path.isdir(directory):
        raise ConfigurationError(
            f"{MULTIPROC_DIR}={directory} is not a directory; create it empty before the "
            "service starts"
        )
    return _multiprocess_metrics


def _multiprocess_metrics(environ: Environ, start_response: StartResponse) -> Any:
    """Answer a scrape with the sums over all processes of the service, ended ones included."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return make_wsgi_app(registry)(environ, start_response)


class RecordingHealthcheck(HealthcheckBaseExtension):
    """The backend ``related_images`` of oslo.middleware's healthcheck app.

    It is available if the filter of this process can record relations. Give it its own URL: one
    unavailable backend makes the response a 503, and on Glance's own ``/healthcheck`` that makes a
    load balancer take Glance out of service.
    """

    def healthcheck(self, server_port: int) -> HealthcheckResult:
        """Return whether relations can be recorded, and why not."""
        try:
            for loaded in list(LOADED):
                loaded.check_recording()
        except StoreUnavailable as error:
            return HealthcheckResult(
                available=False, reason="relations cannot be recorded", details=str(error)
            )
        if not LOADED:
            return HealthcheckResult(
                available=False, reason="no pipeline of this process has the filter"
            )
        return HealthcheckResult(available=True, reason="relations can be recorded")
