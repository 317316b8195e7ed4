"""A client of Cinder for an administrator, which raises if a response is not reliable.

Cinder sorts by any column of a resource, and appends the ID, which is unique. So the order of the
IDs skips nothing, whatever is created or deleted meanwhile.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keystoneauth1.adapter import Adapter

from related_images import validation
from related_images.db.resource_service import OF_CINDER, Page, Presence, Resource
from related_images.errors import RelatedImagesError
from related_images.manage.rate_limit import RateLimit
from related_images.manage.service_admin import (
    ALL_PROJECTS,
    CINDER,
    MALFORMED,
    PAGE,
    Response,
    ServiceAdmin,
)
from related_images.model import VOLUME, VOLUME_BACKUP, VOLUME_SNAPSHOT

LOG = logging.getLogger(__name__)

SKEW: Final = timedelta(minutes=1)
"""How far the clock of Cinder may be behind that of this program."""

_NO_VOLUME: Final = "00000000-0000-0000-0000-000000000000"
"""The volume of a backup that was imported from another Cinder."""

_LASTING: Final = ("available", "in-use")
"""The states of resources that are not expected to be deleted soon."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How Cinder shows the resources of a type.

    :ivar singular: the name of one resource in a response
    :ivar plural: the name of a list, also in paths
    :ivar project: the field with the project, which users cannot change
    :ivar sources: the fields with the source, with the type of each; users cannot change them
    """

    singular: str
    plural: str
    project: str
    sources: Mapping[str, str]


_FORMS: Final[Mapping[str, _Form]] = {
    VOLUME: _Form(
        *("volume", "volumes", "os-vol-tenant-attr:tenant_id"),
        {"snapshot_id": VOLUME_SNAPSHOT, "source_volid": VOLUME},
    ),
    VOLUME_SNAPSHOT: _Form(
        *("snapshot", "snapshots", "os-extended-snapshot-attributes:project_id"),
        {"volume_id": VOLUME},
    ),
    VOLUME_BACKUP: _Form(
        *("backup", "backups", "os-backup-project-attr:project_id"),
        {"volume_id": VOLUME},
    ),
}


def resources(adapter: Adapter, rate_limit: RateLimit) -> "list[CinderResources]":
    """Return the volumes, volume snapshots and volume backups of all projects.

    :param adapter: a keystoneauth adapter of the block storage service
    :param rate_limit: limits all requests, retries included
    """
    cinder = ServiceAdmin(CINDER, adapter, rate_limit)
    return [CinderResources(cinder, one) for one in OF_CINDER]


class CinderResources:
    """The resources of one type; implements
    :class:`related_images.db.resource_service.ResourceService`.
    """

    service_name = CINDER.name

    def __init__(self, cinder: ServiceAdmin, resource_type: str) -> None:
        self.resource_type = resource_type
        self._cinder = cinder
        self._form = _FORMS[resource_type]
        self._began = datetime.now(UTC)

    def require_administrator(self) -> None:
        """Raise unless the caller is an administrator, to whom Cinder shows all projects.

        Cinder lets only administrators list its services, whatever its policy says.

        :raises UntrustedCinderAnswer: if the caller is not an administrator
        :raises CinderUnreachable: if Cinder does not respond
        """
        self._cinder.require_administrator("/os-services", "services")

    def untrusted(self, message: str) -> RelatedImagesError:
        """Return the error for a response of Cinder that is not reliable."""
        return CINDER.untrusted(message)

    def pages(self, after: str) -> Iterator[Page]:
        """Yield the resources after this ID, page by page.

        :param after: the ID of a resource that was listed; empty for all resources
        :raises UntrustedCinderAnswer: if a response is malformed, or the order is wrong
        :raises CinderUnreachable: if Cinder does not respond
        """
        markers, reached = [after] if after else [], after
        while True:
            response, last = self._page_after(markers)
            found = [self._resource(response, one) for one in response.objects(self._form.plural)]
            if not found:
                yield Page({}, None)
                return
            for one in found:
                if one.instance_id <= last:
                    raise response.untrusted(
                        f"the {self._form.singular} {one.instance_id} is not in the order of the "
                        "IDs"
                    )
                last = one.instance_id
            markers = [one.instance_id for one in found]
            if last > reached:
                reached = last
                yield Page({one.instance_id: one for one in found}, reached)

    def look_up(self, instance_id: str) -> Presence:
        """Return whether a resource exists that Cinder did not list.

        :param instance_id: the ID as it was recorded
        :raises UntrustedCinderAnswer: if the response does not say it
        :raises CinderUnreachable: if Cinder does not respond
        """
        if not validation.is_image_id(instance_id):  # a UUID in lower case
            return Presence.FOREIGN
        one = self._shown(instance_id)
        if one is None:
            return Presence.GONE
        is_new = one.created_at > self._began - SKEW
        return Presence.PRESENT if is_new else Presence.DOUBTFUL

    def project_of(self, instance_id: str) -> str | None:
        """Return the project that owns a resource; ``None`` if the resource does not exist.

        :raises UntrustedCinderAnswer: if the response does not say it
        :raises CinderUnreachable: if Cinder does not respond
        """
        one = self._shown(instance_id)
        return None if one is None else one.project_id

    def is_whole(self) -> bool:
        """Return True: Cinder has no cells, and its API lists what is in its one database."""
        return True

    def _page_after(self, markers: list[str]) -> tuple[Response, str]:
        """Return the page after the last marker that still exists, and this marker.

        Cinder does not accept the ID of a deleted resource as a marker.
        """
        while markers:
            response = self._list(marker=markers[-1])
            if not response.is_not_found():
                return response, markers[-1]
            LOG.info("Cinder has deleted the %s %s: listing again", *self._named(markers.pop()))
        return self._list(), ""

    def _list(self, **after: str) -> Response:
        query = {**ALL_PROJECTS, "sort": "id:asc", "limit": str(PAGE), **after}
        return self._cinder.get(f"/{self._form.plural}/detail", **query)

    def _named(self, instance_id: str) -> tuple[str, str]:
        return self._form.singular, instance_id

    def _shown(self, instance_id: str) -> Resource | None:
        """Return a resource; ``None`` if Cinder says that it does not exist."""
        response = self._cinder.get(f"/{self._form.plural}/{instance_id}")
        one = response.shown(self._form.singular, instance_id)
        return None if one is None else self._resource(response, one)

    def _resource(self, response: Response, one: Mapping[str, Any]) -> Resource:
        form = self._form
        try:
            instance_id, project_id = one["id"], one[form.project]
            if not validation.is_image_id(instance_id) or not validation.is_text(project_id):
                raise ValueError("an ID is malformed")
            created_at = validation.parse_time("created_at", one["created_at"])
            return Resource(
                instance_id,
                project_id,
                created_at,
                created_at if one["status"] in _LASTING else None,
                source=_source(self.resource_type, one),
                claimed_image=_claimed_image(one),
            )
        except MALFORMED as error:
            raise response.malformed(form.singular, one, error) from error


def _source(own_type: str, one: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return type and ID of the source that Cinder itself has stored, if it has stored one."""
    for name, resource_type in _FORMS[own_type].sources.items():
        source = one[name]
        if source not in (None, _NO_VOLUME):
            is_itself = (resource_type, source) == (own_type, one["id"])
            if is_itself or not validation.is_image_id(source):
                raise ValueError(f"{name} is malformed")
            return resource_type, source
    return None


def _claimed_image(one: Mapping[str, Any]) -> str | None:
    """Return the image in the metadata of a volume, which a clone inherits and users can change."""
    metadata = one.get("volume_image_metadata")
    image_id = metadata.get("image_id") if isinstance(metadata, Mapping) else None
    return None if image_id is None else str(image_id)
