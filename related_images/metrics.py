"""Counters and histograms for Prometheus.

If the service has several processes, set ``PROMETHEUS_MULTIPROC_DIR`` to a directory before this
module is first imported. The processes store their values there, and a scrape returns the sums.
Without it, a scrape returns the values of one process.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY: Final = CollectorRegistry()
"""A separate registry, so that a scrape has no metrics of other libraries in the process."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

RECORDED: Final = Counter(
    "related_images_recorded", "Relations recorded, by kind", ["kind"], registry=REGISTRY
)
REFUSED: Final = Counter(
    "related_images_refused",
    "Requests answered with an error, except database errors, by error code",
    ["code"],
    registry=REGISTRY,
)
FAILED: Final = Counter(
    "related_images_failed",
    "Requests that failed because of a database error, by error code",
    ["code"],
    registry=REGISTRY,
)
RESTRICTED: Final = Counter(
    "related_images_restricted_lists",
    "Image lists restricted to a server or to recorded backups",
    registry=REGISTRY,
)
RECORDING_SECONDS: Final = Histogram(
    "related_images_recording_seconds",
    "Time to record the relation of an image before Glance is asked to create it",
    buckets=_SECONDS,
    registry=REGISTRY,
)
_DATABASE_SECONDS: Final = Histogram(
    "related_images_database_seconds",
    "Time of a transaction including waits and retries, by task (read or write)",
    ["task"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
READ_SECONDS: Final = _DATABASE_SECONDS.labels("read")
WRITE_SECONDS: Final = _DATABASE_SECONDS.labels("write")
