"""Which instances lack a recent backup."""

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from related_images import model, validation
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.server_policies import ServerPolicies
from related_images.client.backups.stored_policy import Ages
from related_images.client.glance import HIDDEN, PAGE
from related_images.client.image import Image
from related_images.model import Instance, InstanceRef

FUTURE: Final = "future"
"""The state of an instance whose newest backup is dated in the future: its age is not known."""


@dataclass(frozen=True)
class OverdueServer:
    """An instance without a recent active backup, and the newest it has, if any.

    ``age`` is ``None`` without a backup, and if that is dated in the future.
    """

    instance_id: str
    installation_uuid: str | None
    project_id: str | None
    image_id: str | None = None
    made_at: datetime | None = None
    age: timedelta | None = None
    state: str = "critical"

    def by(self, ages: Ages) -> "OverdueServer":
        """The same, and how bad that is."""
        if self.age is None and self.made_at is not None:
            return replace(self, state=FUTURE)
        limit = timedelta.max if ages.critical is None else ages.critical
        is_critical = self.age is None or self.age > limit
        return replace(self, state="critical" if is_critical else "warning")


@dataclass(frozen=True)
class OverdueSearch:
    """Looks for instances that are late: of a project, of an installation, with a label."""

    inventory: Inventory
    label: str | None = None
    project_id: str | None = None
    installation_uuid: str | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def _filters(self) -> dict[str, Any]:
        return {"project_id": self.project_id, "installation_uuid": self.installation_uuid}

    def instances(self) -> Iterator[Instance]:
        """Every instance among which it looks."""
        return self.inventory.relations.instances(**self._filters, page_size=PAGE)

    def overdue(self, ages: Ages, among: Container[str] | None = None) -> Iterator[OverdueServer]:
        """Those with no active backup as young as ``ages`` say.

        :param among: the ids of the instances to look at, which exist whatever was reported;
            ``None`` for all that were not reported gone
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
        idle = (relations.instance(ref) for ref in self._without_active(since))
        seen = set[InstanceRef]()
        for instance in itertools.chain(none_since, idle):
            ref = instance.instance
            is_meant = instance.ended_at is None if among is None else ref.instance_id in among
            if is_meant and ref not in seen:
                seen.add(ref)
                yield self._judged(instance).by(ages)

    def overdue_by_policy(
        self, known: Mapping[str, ServerPolicies], recorded: Container[str]
    ) -> Iterator[OverdueServer]:
        """Each server by its own ages; one without a backup once it is older than that itself.

        All are looked for once, by the shortest age: who is late by a longer one is late by that.

        :param known: the policies by the IDs of the servers that carry them
        :param recorded: the IDs of the instances that relations tell of
        """
        ages = ages_of(known)
        if not ages:
            return
        unheard_of = (
            OverdueServer(id, self.installation_uuid, known[id].project_id)
            for id in ages
            if id not in recorded
        )
        shortest = min(it.older_than for it in ages.values())
        for late in itertools.chain(self.overdue(Ages(shortest), ages), unheard_of):
            own, existed = ages[late.instance_id], self.now - known[late.instance_id].created_at
            judged = late.by(own)
            age = existed if late.age is None else late.age
            if judged.state == FUTURE or age > own.older_than:
                yield judged

    def _without_active(self, since: datetime) -> list[InstanceRef]:
        """Instances with a recent backup of which none is active."""
        recent = self.inventory.relations.relations(
            kind=model.BACKUP,
            label=self.label,
            # just before, since that time itself is not overdue
            created_after=since - timedelta(microseconds=1),
            page_size=PAGE,
            **self._filters,
        )
        images: dict[InstanceRef, dict[str, datetime | None]] = {}
        for relation in recent:
            if relation.image_deleted_at is None:
                made_at = relation.image_created_at
                images.setdefault(relation.instance, {})[relation.image_id] = made_at
        active = self._active(image for found in images.values() for image in found)
        return [
            instance
            for instance, found in images.items()
            # an image with the ID of a backup and another time is another one
            if not any(
                image in active and made_at in (None, active[image])
                for image, made_at in found.items()
            )
        ]

    def _active(self, image_ids: Iterable[str]) -> dict[str, datetime]:
        """When those were made that are active and not of the future, hidden ones among them."""
        glance = self.inventory.relations.glance
        made = glance.images(image_ids, _made_at, ("status", "active"))
        return {id: at for id, at in made if not self._is_future(at)}

    def _is_future(self, time: datetime) -> bool:
        return time > self.now + validation.CLOCK_SKEW

    def _judged(self, instance: Instance) -> OverdueServer:
        ref = instance.instance
        late = (ref.instance_id, ref.installation_uuid, instance.project_id)
        newest = max(self._newest(ref), key=_made_at, default=None)
        if newest is None:
            return OverdueServer(*late)
        made_at = _made_at(newest)
        age = None if self._is_future(made_at) else max(self.now - made_at, timedelta())
        return OverdueServer(*late, newest.id, made_at, age)

    def _newest(self, ref: InstanceRef) -> Iterator[Image]:
        """Its newest active backup that is not hidden, and the newest that is."""
        service = self.inventory.images(ref.installation_uuid)
        owner = self.project_id
        owned: dict[str, Any] = {} if owner is None else {"owner": owner}
        for hidden in HIDDEN:
            yield from service.backups(
                ref.instance_id, self.label, limit=1, visibility="all", os_hidden=hidden, **owned
            )


def ages_of(known: Mapping[str, ServerPolicies]) -> dict[str, Ages]:
    """The ages that policies have, by the IDs of the servers."""
    return {it.server_id: it.policy.ages for it in known.values() if it.policy and it.policy.ages}


def _made_at(image: Mapping[str, Any]) -> datetime:
    return validation.parse_time("created_at", image["created_at"])
