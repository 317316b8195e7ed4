"""Named moments at which a process may be stopped, for proving that nothing is lost by it.

In service ``hook`` is ``None`` and a point costs one comparison. Whoever adds a moment at which a
kill matters names it in :class:`Point` and reaches it there; the tests take every member in turn.
"""

from collections.abc import Callable
from enum import Enum


class Point(Enum):
    """Every point; the value says when it is reached."""

    RECORD_BEGUN = "a relation is about to be recorded"
    RECORD_WRITTEN = "the relation is written, not committed"
    RECORD_COMMITTED = "the relation is committed, the registry not yet asked"
    CREATE_ANSWERED = "the registry has made the image, the caller has no answer"
    CREATE_NOTED = "it is noted when Glance made the image, the caller has no answer"
    CREATE_REFUSED = "the registry has refused, the relation is not yet taken back"
    CREATE_WITHDRAWN = "the relation of a refused image is taken back"
    DELETE_ANSWERED = "the registry has deleted the image, which is not yet noted"
    DELETE_NOTED = "the deletion is noted, the caller has no answer"
    ATTACH_WRITTEN = "an attached relation is written, not committed"
    ATTACH_COMMITTED = "an attached relation is committed, the caller has no answer"
    DETACH_WRITTEN = "a relation is removed, not committed"
    RECONCILE_JUDGED = "a batch is judged, nothing is changed"
    RECONCILE_WRITTEN = "a batch is put right, not committed"
    RECONCILE_SETTLED = "a batch is put right and committed"
    RECONCILE_FINISHED = "the end of a reconciliation is committed"
    MIGRATE_BEGUN = "a migration is about to begin"
    MIGRATE_FILLED = "a range of rows is filled"
    MIGRATE_RUN = "the migrations have run, not committed"
    MIGRATE_COMMITTED = "the migrations are committed"


hook: Callable[[Point], None] | None = None
"""What happens at a point; set by a fault injector alone."""


def reach(point: Point) -> None:
    """Let a fault injector act here."""
    if hook is not None:
        hook(point)
