"""Look up the names of images and servers, to show them beside their IDs."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from logging import Logger
from typing import Any, Final, Generic, Protocol, TypeVar

from osc_lib.exceptions import CommandError

from related_images.client import InstanceRef, Relation, RelationsClient
from related_images.client.errors import GlanceError
from related_images.client.glance import PAGE
from related_images.model import SERVER
from related_images.osc.compute import Compute

ONE_TRY: Final = {"timeout": 10.0, "connect_retries": 0, "status_code_retries": 0}
"""Options of a request for names of servers: one attempt, with a timeout in seconds."""


class ImageRow(Protocol):
    """A row of a list of images."""

    @property
    def image_id(self) -> str: ...
    @property
    def image_deleted_at(self) -> datetime | None: ...
    @property
    def project_id(self) -> str | None: ...


Row = TypeVar("Row", bound=ImageRow)


@dataclass(frozen=True)
class Named(Generic[Row]):
    """A row, and the names of its image and its server; ``None`` for an unknown name.

    Only servers have names here: the commands do not request the names of volumes from Cinder.
    """

    row: Row
    image_name: str | None
    server_name: str | None


def resource_of(row: Any) -> InstanceRef | None:
    """Return the resource of a relation, or the source of an image in a lineage."""
    resource: InstanceRef | None = row.instance if isinstance(row, Relation) else row.via
    return resource


def _server_id(row: Any) -> str | None:
    ref = resource_of(row)
    return ref.instance_id if ref and ref.resource_type == SERVER else None


class Names:
    """Look up the names for the rows of a list, a page of rows at a time.

    One request to Glance gets the names of many images. Nova has no filter for several IDs. So for
    each page of rows that has a server without a known name, the next page of Nova's list of
    servers is read. If a service fails, the rows have no names.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param log: gets a warning if a service fails
    """

    def __init__(self, manager: Any, log: Logger) -> None:
        self._relations: RelationsClient = manager.related_images.relations
        self._compute = Compute(manager)
        self._own_project = manager.auth_ref.project_id if manager.auth_ref else None
        self._log = log
        self._images: dict[str, str | None] = {}
        self._servers: dict[str, str] = {}
        self._every_project = False
        self._server_pages = self._pages({})

    def add_to(self, rows: Iterable[Row]) -> Iterator[Named[Row]]:
        """Yield each of ``rows`` with its names. Rows are read when needed, a page at a time."""
        remaining = iter(rows)
        while page := list(itertools.islice(remaining, PAGE)):
            self._find_images(page)
            self._find_servers(page, {id for id in map(_server_id, page) if id})
            for row in page:
                server_id, exists = _server_id(row), row.image_deleted_at is None
                yield Named(
                    row,
                    # another image may have the ID of a deleted image
                    self._images.get(row.image_id) if exists else None,
                    self._servers.get(server_id) if server_id else None,
                )

    def _find_images(self, page: list[Row]) -> None:
        existing = dict.fromkeys(row.image_id for row in page if row.image_deleted_at is None)
        new = [image_id for image_id in existing if image_id not in self._images]
        self._images |= dict.fromkeys(new)
        try:
            found = self._relations.glance.images(new, lambda image: image.get("name"))
            for image_id, name in found:
                self._images[image_id] = name
        except GlanceError as error:
            self._log.warning("some names of images are not shown: %s", error)

    def _find_servers(self, page: list[Row], server_ids: set[str]) -> None:
        owners = {row.project_id for row in page} - {None, self._own_project}
        if owners and not self._every_project:  # Nova lists one project by default
            self._every_project = True
            self._server_pages = self._pages({"all_tenants": "True"})
        if not server_ids <= self._servers.keys():
            try:
                self._servers |= next(self._server_pages, {})
            except CommandError as error:
                self._log.warning("the names of servers are not shown: %s", error)

    def _pages(self, scope: dict[str, str]) -> Iterator[dict[str, str]]:
        return self._compute.pages({"limit": str(PAGE), **scope}, **ONE_TRY)
