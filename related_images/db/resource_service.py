"""The resources of Nova or Cinder, as an administrator sees them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Protocol

from related_images.model import SERVER, VOLUME, VOLUME_BACKUP, VOLUME_SNAPSHOT

OF_NOVA: Final = (SERVER,)
OF_CINDER: Final = (VOLUME, VOLUME_SNAPSHOT, VOLUME_BACKUP)
"""The types of the resources of each service."""


class Presence(Enum):
    """What a service responds about one resource."""

    GONE = "it does not exist"
    PRESENT = "it exists, and is in a state in which it is not listed, or not in order"
    DOUBTFUL = "it exists and should have been listed, or the service does not know its state"
    FOREIGN = "its ID is not one of this service"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a service lists.

    :ivar created_at: when its creation was requested
    :ivar launched_at: when it was last made from its image or source; ``None`` if that has not
        succeeded yet
    :ivar image_id: the image that a server was made from; ``None`` if there is none
    :ivar is_image_settled: whether the image is the lasting one; Nova gives a server another image
        during some actions
    :ivar has_failed: whether the creation of a server failed: it does not hold its image
    :ivar source: type and ID of the resource of the same service that it was made from
    :ivar claimed_image: the image that it was made from according to what users can change
    """

    instance_id: str
    project_id: str
    created_at: datetime
    launched_at: datetime | None
    image_id: str | None = None
    is_image_settled: bool = True
    has_failed: bool = False
    source: tuple[str, str] | None = None
    claimed_image: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some resources of a service.

    :ivar resources: by ID
    :ivar until: this page and those before it have all resources up to this ID; ``None`` if no
        page follows
    """

    resources: Mapping[str, Resource]
    until: str | None


class ResourceService(Protocol):
    """The resources of one type in a service, as an administrator sees them.

    Every method raises if a response is not conclusive.
    """

    service_name: str
    resource_type: str

    def untrusted(self, message: str) -> Exception:
        """Return the error for a response that is not reliable."""

    def pages(self, after: str) -> Iterator[Page]:
        """Yield all resources after this ID in the order of their IDs, and maybe others."""

    def look_up(self, instance_id: str) -> Presence:
        """Return whether a resource exists that was not listed."""

    def project_of(self, instance_id: str) -> str | None:
        """Return the project that owns a resource now; ``None`` if it does not exist."""

    def is_whole(self) -> bool:
        """Return whether no part of the service is down, so that it lists all resources."""
