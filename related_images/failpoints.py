"""Failpoints: named points at which the tests kill the process or inject a fault.

In production ``hook`` is ``None`` and a failpoint costs one comparison. To add a failpoint, add a
member to :class:`Point` and call :func:`reach` at that place. The tests run with every member.
"""

from collections.abc import Callable
from enum import Enum


class Point(Enum):
    """Every failpoint; the value describes the state at that point."""

    RECORD_BEGUN = "a relation is about to be recorded"
    RECORD_WRITTEN = "the relation is written, not committed"
    RECORD_COMMITTED = "the relation is committed, the request is not yet sent to Glance"
    CREATE_ANSWERED = "Glance has created the image, the caller has no response"
    CREATE_NOTED = "the creation time of the image is recorded, the caller has no response"
    CREATE_REFUSED = "Glance has refused to create the image, the relation is not rolled back"
    CREATE_WITHDRAWN = "the relation of an image that Glance refused is rolled back"
    DELETE_ANSWERED = "Glance has deleted the image, the deletion is not recorded"
    DELETE_NOTED = "the deletion is recorded, the caller has no response"
    ATTACH_WRITTEN = "an attached relation is written, not committed"
    ATTACH_COMMITTED = "an attached relation is committed, the caller has no response"
    DETACH_WRITTEN = "a relation is removed, not committed"
    RECONCILE_JUDGED = "a batch is compared with Glance, nothing is changed"
    RECONCILE_WRITTEN = "a batch is corrected, not committed"
    RECONCILE_SETTLED = "a batch is corrected and committed"
    RECONCILE_FINISHED = "the end of a reconciliation is committed"
    RESOURCES_COMPARED = "some servers are compared with Nova, nothing is changed"
    RESOURCES_WRITTEN = "some servers are corrected, not committed"
    RESOURCES_SETTLED = "some servers are corrected and committed"
    RESOURCES_FINISHED = "the end of a reconciliation of servers is committed"
    MERGE_MOVED = "a batch of resources has moved to another installation"
    MERGE_UNITED = "some relations of a resource have moved to another installation"
    MIGRATE_BEGUN = "a migration is about to begin"
    MIGRATE_FILLED = "a range of rows is filled"
    MIGRATE_RUN = "the migrations have run, the last one not committed"
    MIGRATE_COMMITTED = "the migrations are committed"


hook: Callable[[Point], None] | None = None
"""The function that is called at each failpoint; only tests set it."""


def reach(point: Point) -> None:
    """Call :data:`hook` with ``point``, if a hook is set."""
    if hook is not None:
        hook(point)
