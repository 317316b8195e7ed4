"""Look up the names of images and servers, to show them beside their IDs."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from logging import Logger
from typing import Any, Final, Generic, Protocol, TypeVar

from osc_lib.exceptions import CommandError

from related_images.client import Dependent, InstanceRef, Relation, RelationsClient
from related_images.client.errors import GlanceError
from related_images.client.glance import PAGE
from related_images.model import SERVER, VOLUME
from related_images.osc.compute import BlockStorage, Compute

ONE_TRY: Final = {"timeout": 10.0, "connect_retries": 0, "status_code_retries": 0}
"""Options of a request for names of servers: one attempt, with a timeout in seconds."""


class ImageRow(Protocol):
    """A row of a list of images."""

    @property
    def image_id(self) -> str: ...
    @property
    def project_id(self) -> str | None: ...


Row = TypeVar("Row", bound=ImageRow)


@dataclass(frozen=True)
class Named(Generic[Row]):
    """A row, and the names of its image and its server; ``None`` for an unknown value.

    :ivar server_name: the name of a volume for a resource of this type, if it was asked for
    """

    row: Row
    image_name: str | None
    server_name: str | None
    image_size: int | None = None


def resource_of(row: Any) -> InstanceRef | None:
    """Return the resource of a relation, or that from which an image in a lineage was made."""
    if isinstance(row, Relation | Dependent):
        return row.instance
    resource: InstanceRef | None = row.via[-1] if row.via else None
    return resource


def _deleted_at(row: Any) -> datetime | None:
    deleted_at: datetime | None = getattr(row, "image_deleted_at", None)
    return deleted_at


SERVICES: Final[Mapping[str, type[Compute]]] = {SERVER: Compute, VOLUME: BlockStorage}
"""The service that knows the names of the resources of a type."""


class _ResourceNames:
    """The names of the resources of one type, read from the list of a service when needed."""

    def __init__(self, service: Compute) -> None:
        self._service = service
        self.names: dict[str, str] = {}
        self.list_every_project = False
        self._pages = self._list({})

    def find(self, ids: set[str], *, of_others: bool) -> None:
        """Read the next page of the list if one of the resources has no name.

        :param of_others: whether another project owns one of them
        :raises CommandError: if the service fails
        """
        if of_others and not self.list_every_project:  # the lists have one project by default
            self.list_every_project = True
            self._pages = self._list({"all_tenants": "True"})
        if not ids <= self.names.keys():
            self.names |= next(self._pages, {})

    def _list(self, scope: dict[str, str]) -> Iterator[dict[str, str]]:
        return self._service.pages({"limit": str(PAGE), **scope}, **ONE_TRY)


class Names:
    """Look up the names for the rows of a list, a page of rows at a time.

    One request to Glance gets the names of many images. Nova and Cinder have no filter for several
    IDs. So for each page of rows that has a server without a known name, the next page of Nova's
    list of servers is read. If a service fails, the rows have no names.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param log: gets a warning if a service fails
    :param types: the types of resources to look up, some of :data:`SERVICES`
    """

    def __init__(self, manager: Any, log: Logger, types: Iterable[str] = (SERVER,)) -> None:
        self._relations: RelationsClient = manager.related_images.relations
        self._own_project = manager.auth_ref.project_id if manager.auth_ref else None
        self._log = log
        self._images: dict[str, tuple[str | None, int | None]] = {}
        self._resources = {type: _ResourceNames(SERVICES[type](manager)) for type in types}

    def add_to(self, rows: Iterable[Row]) -> Iterator[Named[Row]]:
        """Yield each of ``rows`` with its names. Rows are read when needed, a page at a time."""
        remaining = iter(rows)
        while page := list(itertools.islice(remaining, PAGE)):
            self._find_images(page)
            self.find_resources(map(resource_of, page), {row.project_id for row in page})
            for row in page:
                # another image may have the ID of a deleted image
                exists = _deleted_at(row) is None
                name, size = self._images[row.image_id] if exists else (None, None)
                yield Named(row, name, self.of_resource(resource_of(row)), size)

    def of_resource(self, ref: InstanceRef | None) -> str | None:
        """Return the name of a resource, if it was found."""
        known = self._resources.get(ref.resource_type) if ref else None
        return known.names.get(ref.instance_id) if known and ref else None

    def _find_images(self, page: list[Row]) -> None:
        existing = dict.fromkeys(row.image_id for row in page if _deleted_at(row) is None)
        new = [image_id for image_id in existing if image_id not in self._images]
        self._images |= dict.fromkeys(new, (None, None))
        try:
            found = self._relations.glance.images(
                new, lambda image: (image.get("name"), image.get("size"))
            )
            for image_id, known in found:
                self._images[image_id] = known
        except GlanceError as error:
            self._log.warning("some names of images are not shown: %s", error)

    def find_resources(
        self, refs: Iterable[InstanceRef | None], owners: Collection[str | None]
    ) -> None:
        """Look up the names of some resources, with at most one request to each service."""
        wanted = list(refs)
        others = {*owners} - {None, self._own_project}
        for type, resources in self._resources.items():
            ids = {ref.instance_id for ref in wanted if ref and ref.resource_type == type}
            try:
                resources.find(ids, of_others=bool(others))
            except CommandError as error:
                self._log.warning("the names of %ss are not shown: %s", type, error)
