"""Find servers without a recent backup."""

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from related_images import model, validation
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.newest import ACTIVE, NewestBackup, NewestBackups, made_at
from related_images.client.backups.server_policies import ServerPolicies
from related_images.client.backups.stored_policy import Ages
from related_images.client.glance import PAGE, is_worth_a_page
from related_images.model import Instance, InstanceRef, Relation

FUTURE: Final = "future"
"""The state of a server whose newest backup has a time in the future, so its age is unknown."""


@dataclass(frozen=True)
class OverdueServer:
    """A server without a recent active backup.

    :ivar image_id: ID of its newest active backup; ``None`` if it has no active backup
    :ivar made_at: creation time of this backup
    :ivar age: age of this backup; ``None`` without a backup, or if its time is in the future
    :ivar state: ``warning``, ``critical`` or ``future``
    """

    instance_id: str
    installation_uuid: str | None
    project_id: str | None
    image_id: str | None = None
    made_at: datetime | None = None
    age: timedelta | None = None
    state: str = "critical"

    def by(self, ages: Ages) -> "OverdueServer":
        """Return a copy with the state for these ages.

        :param ages: the maximum age and the critical age
        """
        if self.age is None and self.made_at is not None:
            return replace(self, state=FUTURE)
        limit = timedelta.max if ages.critical is None else ages.critical
        is_critical = self.age is None or self.age > limit
        return replace(self, state="critical" if is_critical else "warning")


@dataclass(frozen=True)
class OverdueSearch:
    """Find servers without a recent backup.

    :param inventory: lists the backups
    :param label: only backups with this label count; default: all
    :param project_id: only servers with images of this project
    :param installation_uuid: only servers of this installation
    :param now: the current time
    """

    inventory: Inventory
    label: str | None = None
    project_id: str | None = None
    installation_uuid: str | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def _filters(self) -> dict[str, Any]:
        return {
            "project_id": self.project_id,
            "installation_uuid": self.installation_uuid,
            "resource_type": model.SERVER,
        }

    def instances(self) -> Iterator[Instance]:
        """Return all recorded servers of the project and installation."""
        return self.inventory.relations.instances(**self._filters, page_size=PAGE)

    def overdue(self, ages: Ages, among: Container[str] | None = None) -> Iterator[OverdueServer]:
        """Yield the servers whose newest active backup is too old or missing.

        :param ages: the maximum age of the newest backup
        :param among: IDs of existing servers, to check only these, even if they are recorded as
            deleted; ``None`` for all servers that are not recorded as deleted
        """
        since = self.now - ages.older_than
        relations = self.inventory.relations
        none_since = relations.instances(
            kind=model.BACKUP,
            label=self.label,
            latest_before=since,
            page_size=PAGE,
            **self._filters,
        )
        late = (
            instance
            for instance in itertools.chain(none_since, self._without_active(since))
            if (instance.ended_at is None if among is None else instance.instance_id in among)
        )
        newest_backups = NewestBackups(self.inventory, self.label, self.project_id)
        seen = set[InstanceRef]()
        while part := list(itertools.islice(late, PAGE)):
            servers = {each.instance: each for each in part if each.instance not in seen}
            seen.update(servers)
            newest = newest_backups.of(servers)
            for ref, instance in servers.items():
                yield self._overdue_server(instance, newest.get(ref)).by(ages)

    def overdue_by_policy(
        self, known: Mapping[str, ServerPolicies], recorded: Container[str]
    ) -> Iterator[OverdueServer]:
        """Yield the servers whose newest active backup is too old, by the policy of each server.

        A server without a backup is overdue when the server itself is older than the maximum age.

        :param known: the policies by server ID
        :param recorded: IDs of the servers that have relations
        """
        ages = ages_of(known)
        if not ages:
            return
        unrecorded = (
            OverdueServer(id, self.installation_uuid, known[id].project_id)
            for id in ages
            if id not in recorded
        )
        # one search with the shortest age finds all servers that are overdue by a longer one
        shortest = min(each.older_than for each in ages.values())
        for server in itertools.chain(self.overdue(Ages(shortest), ages), unrecorded):
            own = ages[server.instance_id]
            result = server.by(own)
            server_age = self.now - known[server.instance_id].created_at
            age = server_age if server.age is None else server.age
            if result.state == FUTURE or age > own.older_than:
                yield result

    def _without_active(self, since: datetime) -> Iterator[Instance]:
        """Yield the servers whose recent backups are all inactive."""
        recent = self._relations(
            # created_after excludes the time itself, but a backup of that time is not overdue
            created_after=since - timedelta(microseconds=1)
        )
        images: dict[InstanceRef, dict[str, datetime | None]] = {}
        for relation in recent:
            if relation.image_deleted_at is None:
                made_at = relation.image_created_at
                images.setdefault(relation.instance, {})[relation.image_id] = made_at
        active = self._active(image for found in images.values() for image in found)
        return self._instances(
            instance
            for instance, found in images.items()
            # an image with the same ID and another creation time is a different image
            if not any(
                image in active and made_at in (None, active[image])
                for image, made_at in found.items()
            )
        )

    def _instances(self, refs: Iterable[InstanceRef]) -> Iterator[Instance]:
        """Yield these servers: from pages of all servers while these are worth it."""
        missing = set(refs)
        wanted = len(missing)
        if is_worth_a_page(0, 0, wanted):
            for number, instance in enumerate(self.instances(), 1):
                if instance.instance in missing:
                    missing.remove(instance.instance)
                    yield instance
                pages, rest = divmod(number, PAGE)
                if not (
                    missing and (rest or is_worth_a_page(pages, wanted - len(missing), wanted))
                ):
                    break
        for ref in sorted(missing):
            yield self.inventory.relations.instance(ref)

    def _relations(self, **filters: Any) -> Iterator[Relation]:
        """Return the backup relations of the search, newest first."""
        return self.inventory.relations.relations(
            kind=model.BACKUP, label=self.label, page_size=PAGE, **self._filters, **filters
        )

    def _active(self, image_ids: Iterable[str]) -> dict[str, datetime]:
        """Return the creation times of the active images, also hidden ones, not in the future."""
        glance = self.inventory.relations.glance
        made = glance.images(image_ids, made_at, ACTIVE, owner=self.project_id)
        return {id: at for id, at in made if not self._is_future(at)}

    def _is_future(self, time: datetime) -> bool:
        return time > self.now + validation.CLOCK_SKEW

    def _overdue_server(self, instance: Instance, newest: NewestBackup | None) -> OverdueServer:
        ids = (instance.instance_id, instance.installation_uuid, instance.project_id)
        if newest is None:
            return OverdueServer(*ids)
        at = newest.made_at
        age = None if self._is_future(at) else max(self.now - at, timedelta())
        return OverdueServer(*ids, newest.image_id, at, age)


def ages_of(known: Mapping[str, ServerPolicies]) -> dict[str, Ages]:
    """Return the ages in policies, by server ID.

    :param known: the policies by server ID
    """
    return {
        server.server_id: server.policy.ages
        for server in known.values()
        if server.policy and server.policy.ages
    }
