"""Find the newest active backup of many servers, with few requests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from related_images import model, validation
from related_images.client.backups.inventory import Inventory
from related_images.client.glance import HIDDEN, PAGE, is_worth_a_page
from related_images.model import Instance, InstanceRef

REQUESTS: Final = len(HIDDEN)
"""Number of requests that find the newest active backup of one server."""

ACTIVE: Final = ("status", "active")

IS_BACKUP: Final = ("relation_kind", model.BACKUP)
"""Leaves out another image that has the ID of a backup now."""


@dataclass(frozen=True, slots=True)
class NewestBackup:
    """The newest active backup of a server."""

    image_id: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class _Candidate:
    """The image of the newest relation of a server.

    :ivar recorded_at: when the relation was recorded
    :ivar image_created_at: when the image was created; ``None`` if that is not recorded
    """

    image_id: str
    recorded_at: datetime
    image_created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Active:
    made_at: datetime
    owner: str | None


@dataclass(frozen=True)
class NewestBackups:
    """Find the newest active backup of each server.

    :param inventory: lists the backups
    :param label: only backups with this label count; ``None`` for all
    :param project_id: only backups that this project owns count; ``None`` for all
    """

    inventory: Inventory
    label: str | None
    project_id: str | None

    def of(self, servers: Mapping[InstanceRef, Instance]) -> dict[InstanceRef, NewestBackup]:
        """Return the newest active backup of those servers that have one, also a hidden one.

        The image of the newest relation of a server is its newest backup if it is active, and was
        created when the relation was recorded. All servers together take few requests for these
        images. Each other server is asked for with requests of its own.

        :param servers: the servers; those that have no backup recorded take no request
        :raises GlanceError: if a request fails
        """
        missing = {ref: it for ref, it in servers.items() if model.BACKUP in it.images}
        newest: dict[InstanceRef, NewestBackup] = {}
        inactive = set[str]()
        for find in (self._latest, self._in_pages):
            candidates = find(missing, inactive)
            active = self._active({each.image_id for each in candidates.values()})
            for ref, candidate in candidates.items():
                image = active.get(candidate.image_id)
                if image is None:
                    inactive.add(candidate.image_id)
                elif self._is_certain(candidate, image):
                    newest[ref] = NewestBackup(candidate.image_id, image.made_at)
                    del missing[ref]
        for ref in missing:
            found = max(self._of_one(ref), key=lambda each: each.made_at, default=None)
            if found is not None:
                newest[ref] = found
        return newest

    def _latest(
        self, servers: Mapping[InstanceRef, Instance], inactive: set[str]
    ) -> dict[InstanceRef, _Candidate]:
        """Return the images that the rows of the servers name as their latest backups."""
        if self.label is not None:
            return {}
        latest = {ref: server.images[model.BACKUP] for ref, server in servers.items()}
        return {
            ref: _Candidate(images.latest_image_id, images.latest_at)
            for ref, images in latest.items()
        }

    def _in_pages(
        self, servers: Mapping[InstanceRef, Instance], inactive: set[str]
    ) -> dict[InstanceRef, _Candidate]:
        """Return the images of the newest relations in pages of all relations, newest first.

        :param inactive: images that do not count
        """
        found: dict[InstanceRef, _Candidate] = {}
        requests = len(servers) * REQUESTS
        if not is_worth_a_page(0, 0, requests):
            return found
        relations = self.inventory.relations.relations(
            kind=model.BACKUP,
            resource_type=model.SERVER,
            label=self.label,
            project_id=self.project_id,
            page_size=PAGE,
        )
        for number, relation in enumerate(relations, 1):
            ref = relation.instance
            counts = relation.image_deleted_at is None and relation.image_id not in inactive
            if counts and ref in servers and ref not in found:
                at = relation.image_created_at
                found[ref] = _Candidate(relation.image_id, relation.created_at, at)
            pages, rest = divmod(number, PAGE)
            is_complete = len(found) == len(servers)
            if is_complete or not (rest or is_worth_a_page(pages, len(found), requests)):
                break
        return found

    def _active(self, image_ids: set[str]) -> dict[str, _Active]:
        glance = self.inventory.relations.glance
        return dict(
            glance.images(image_ids, _read_active, ACTIVE, IS_BACKUP, owner=self.project_id)
        )

    def _is_certain(self, candidate: _Candidate, image: _Active) -> bool:
        """Return whether the active image is certainly the newest backup of the server.

        If the image was not created when its relation was recorded, another one may be newer.
        """
        if self.project_id not in (None, image.owner):
            return False
        if candidate.image_created_at not in (None, image.made_at):
            return False
        return abs(image.made_at - candidate.recorded_at) <= validation.CLOCK_SKEW

    def _of_one(self, ref: InstanceRef) -> Iterator[NewestBackup]:
        """Yield the newest active backup that is not hidden, and the newest hidden one."""
        service = self.inventory.images(ref)
        owned: dict[str, Any] = {} if self.project_id is None else {"owner": self.project_id}
        for hidden in HIDDEN:
            for image in service.backups(
                ref.instance_id, self.label, limit=1, visibility="all", os_hidden=hidden, **owned
            ):
                yield NewestBackup(image.id, made_at(image))


def made_at(image: Mapping[str, Any]) -> datetime:
    """Return the creation time of an image as Glance shows it."""
    return validation.parse_time("created_at", image["created_at"])


def _read_active(image: Mapping[str, Any]) -> _Active:
    return _Active(made_at(image), image.get("owner"))
