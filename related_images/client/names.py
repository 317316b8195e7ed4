"""Look up the names of images and servers, to show them beside their IDs."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from related_images.client.errors import GlanceError
from related_images.client.glance import PAGE
from related_images.client.relations import RelationsClient
from related_images.model import Dependent, InstanceRef, Relation

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


class NamingService(Protocol):
    """A service that lists its resources with their names."""

    def pages(self, query: Mapping[str, str], **options: Any) -> Iterator[dict[str, str]]:
        """Yield pages of resources, as names by ID, with one request for each page.

        :param query: filters of the service, and ``limit``
        :param options: options of keystoneauth1's ``Adapter.request``
        """


class _ResourceNames:
    """The names of the resources of one type, read from the list of a service when needed."""

    def __init__(self, service: NamingService) -> None:
        self._service = service
        self.names: dict[str, str] = {}
        self.list_every_project = False
        self._pages = self._list({})

    def find(self, ids: set[str], *, of_others: bool) -> None:
        """Read the next page of the list if one of the resources has no name.

        :param of_others: whether another project owns one of them
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

    :param relations: the client for the names of images
    :param own_project: the project of the caller; ``None`` if unknown
    :param services: the services by the type of their resources
    :param failures: the errors with which a service fails
    :param warn: called with a message and its arguments if Glance or a service fails
    """

    def __init__(
        self,
        relations: RelationsClient,
        own_project: str | None,
        services: Mapping[str, NamingService],
        failures: type[Exception],
        warn: Callable[..., object],
    ) -> None:
        self._relations = relations
        self._own_project = own_project
        self._failures = failures
        self._warn = warn
        self._images: dict[str, tuple[str | None, int | None]] = {}
        self._resources = {type: _ResourceNames(service) for type, service in services.items()}

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
            self._warn("some names of images are not shown: %s", error)

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
            except self._failures as error:
                self._warn("the names of %ss are not shown: %s", type, error)
