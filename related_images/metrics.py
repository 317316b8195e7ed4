"""Counters and histograms for Prometheus, kept by its own client.

``PROMETHEUS_MULTIPROC_DIR`` must name a directory before this module is first imported, if a server
has several processes: they keep their numbers there, and one scrape gives the sums. Without it each
process shows its own numbers.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY: Final = CollectorRegistry()
"""Our own, so that a scrape shows nothing of other libraries in the process."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

RECORDED: Final = Counter(
    "related_images_recorded", "Relations recorded, by kind", ["kind"], registry=REGISTRY
)
REFUSED: Final = Counter(
    "related_images_refused", "Requests refused, by error code", ["code"], registry=REGISTRY
)
FAILED: Final = Counter(
    "related_images_failed",
    "Requests that failed because of the database, by error code",
    ["code"],
    registry=REGISTRY,
)
RESTRICTED: Final = Counter(
    "related_images_restricted_lists", "Image lists restricted by relation", registry=REGISTRY
)
RECORDING_SECONDS: Final = Histogram(
    "related_images_recording_seconds",
    "Time to record the relation of an image before Glance is asked to create it",
    buckets=_SECONDS,
    registry=REGISTRY,
)
_DATABASE_SECONDS: Final = Histogram(
    "related_images_database_seconds",
    "Time of a transaction, waiting and retries included, by task",
    ["task"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
READ_SECONDS: Final = _DATABASE_SECONDS.labels("read")
WRITE_SECONDS: Final = _DATABASE_SECONDS.labels("write")
