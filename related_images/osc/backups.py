"""The backups of instances as the registry has them now, judged and deleted one by one."""

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from related_images import model, validation
from related_images.client import (
    Image,
    Instance,
    InstanceRef,
    NotThere,
    Usage,
)
from related_images.client.errors import ClientError
from related_images.client.registry import HIDDEN
from related_images.client.retention import Backup, Decision, Group
from related_images.osc.commands import PAGE
from related_images.osc.plugin import Clients

LOG = logging.getLogger(__name__)

KEPT: Final = "keep"
DUE: Final = "remove"
REMOVED: Final = "removed"
FAILED: Final = "failed"
STOPPED: Final = "stopped"


class Shelf:
    """The backups of instances."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._alive: dict[InstanceRef, bool] = {}

    def backups(self, instance: Instance, label: str | None) -> list[Backup]:
        """Every backup of the instance, those that are hidden or unfinished among them."""
        ref = instance.instance
        service = self._clients.images(ref.installation_uuid)
        recorded = service.relations(ref.instance_id, kind=model.BACKUP, label=label, limit=PAGE)
        labels = {relation.image_id: relation.label for relation in recorded}
        listed = itertools.chain.from_iterable(
            service.list(
                ref.instance_id, kind=model.BACKUP, label=label, page_size=PAGE, os_hidden=hidden
            )
            for hidden in HIDDEN
        )
        images = [image for image in listed if image.id in labels]
        usages = self._clients.relations.usages([image.id for image in images])
        return [
            self._backup(image, instance, labels[image.id], usage)
            for image, usage in zip(images, usages, strict=True)
        ]

    def _backup(self, image: Image, instance: Instance, label: str | None, usage: Usage) -> Backup:
        relations = list(self._clients.relations.relations(image_id=image.id, limit=PAGE))
        return Backup(
            image_id=image.id,
            instance=instance.instance,
            label=label,
            created_at=validation.parse_time("created_at", image.created_at),
            status=image.status,
            protected=image.protected,
            hidden=image.os_hidden,
            in_use=any(it.kind == model.BOOT and self._is_alive(it.instance) for it in relations),
            orphan=instance.ended_at is not None,
            of_another=any(
                it.kind in model.MADE_FROM and it.instance != instance.instance for it in relations
            ),
            project_id=image.get("owner"),
            used_by_others=usage.used_by_others,
        )

    def _is_alive(self, ref: InstanceRef) -> bool:
        if ref not in self._alive:
            try:
                self._alive[ref] = self._clients.relations.instance(ref).ended_at is None
            except NotThere:
                self._alive[ref] = True  # nothing says that it has ended
        return self._alive[ref]

    def is_unchanged(self, backup: Backup) -> bool:
        """Whether the image is as it was, and nobody has started an instance from it since."""
        try:
            image = self._clients.images(backup.instance.installation_uuid).get(backup.image_id)
        except NotThere:
            return False
        (usage,) = self._clients.relations.usages([backup.image_id])
        made_at = validation.parse_time("created_at", image.created_at)
        now = (made_at, image.status, image.protected, image.os_hidden)
        is_same = now == (backup.created_at, backup.status, backup.protected, backup.hidden)
        return is_same and usage.is_unused

    def delete(self, backup: Backup) -> None:
        service = self._clients.images(backup.instance.installation_uuid)
        service.delete(backup.image_id, instance_id=backup.instance.instance_id)


@dataclass
class Verdict:
    """What was decided on a backup and what came of it."""

    decision: Decision
    outcome: str

    @classmethod
    def of(cls, decision: Decision) -> "Verdict":
        return cls(decision, KEPT if decision.keep else DUE)


@dataclass(frozen=True)
class Sweep:
    """One instance's verdicts, carried out group by group."""

    shelf: Shelf
    instance: Instance
    label: str | None
    verdicts: list[Verdict]

    def run(self) -> Iterator[None]:
        """Delete what is due, yielding after each; a group that has changed is left alone."""
        for group in dict.fromkeys(verdict.decision.backup.group for verdict in self.verdicts):
            planned = [v for v in self.verdicts if v.decision.backup.group == group]
            due = [verdict for verdict in planned if verdict.outcome == DUE]
            if due and self._has_changed(group, planned):
                _stop(due)
            for verdict in reversed(due):
                if verdict.outcome == DUE:
                    self._carry_out(verdict, due)
                yield

    def _has_changed(self, group: Group, planned: Iterable[Verdict]) -> bool:
        try:
            found = self.shelf.backups(self.instance, self.label)
        except ClientError as error:
            LOG.error("%s cannot be looked at again: %s", self.instance.instance.instance_id, error)
            return True
        return {verdict.decision.backup for verdict in planned} != {
            backup for backup in found if backup.group == group
        }

    def _carry_out(self, verdict: Verdict, due: Iterable[Verdict]) -> None:
        backup = verdict.decision.backup
        try:
            if self.shelf.is_unchanged(backup):
                self.shelf.delete(backup)
                verdict.outcome = REMOVED
            else:
                _stop(due)
        except ClientError as error:
            verdict.outcome = FAILED
            LOG.error("%s: %s", backup.image_id, error)


def _stop(due: Iterable[Verdict]) -> None:
    for verdict in due:
        if verdict.outcome == DUE:
            verdict.outcome = STOPPED
            LOG.error(
                "%s: not removed, since a backup of the same instance and label is not as it was "
                "when this was decided; run it again",
                verdict.decision.backup.image_id,
            )
