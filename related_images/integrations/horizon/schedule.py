"""When the next backup of a server is due by its stored policy, and whether it is overdue."""

from datetime import datetime, timedelta

from related_images.client.backups import OverdueServer, ServerPolicies


class Schedule:
    """The base class of what a page shows of a server's backups.

    :ivar policies: the stored policy of the server; ``None`` without one
    :ivar newest_at: when its newest active backup was made; ``None`` without one
    """

    policies: ServerPolicies | None
    newest_at: datetime | None
    now: datetime

    @property
    def age(self) -> timedelta | None:
        """The age of the newest backup."""
        return None if self.newest_at is None else max(self.now - self.newest_at, timedelta())

    @property
    def next_due(self) -> datetime | None:
        """When the next backup is due; ``None`` without a policy that says it."""
        known = self.policies
        ages = known.policy.ages if known and known.policy else None
        if known is None or ages is None:
            return None
        return (self.newest_at or known.created_at) + ages.older_than

    @property
    def lateness(self) -> str:
        """``warning`` or ``critical`` if the server is overdue; else empty."""
        known, due = self.policies, self.next_due
        ages = known.policy.ages if known and known.policy else None
        if due is None or due >= self.now or known is None or ages is None:
            return ""
        age = None if self.newest_at is None else self.now - self.newest_at
        late = OverdueServer(
            known.server_id, None, known.project_id, made_at=self.newest_at, age=age
        )
        return late.by(ages).state
