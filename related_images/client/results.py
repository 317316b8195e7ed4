"""The objects that the client returns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from related_images.client.errors import NotInstanceAware
from related_images.model import RESOURCE_TYPES, SERVER, USE

Json = Mapping[str, Any]


class Image(Mapping[str, Any]):
    """An image as Glance shows it. Its fields are both keys and attributes.

    :ivar acknowledgement: how the filter used the instance headers: the recorded kind of a new
        image, or the filters of a list; ``None`` for other requests
    """

    def __init__(self, attributes: Json, acknowledgement: str | None = None) -> None:
        self._attributes = dict(attributes)
        self.acknowledgement = acknowledgement

    def __getitem__(self, name: str) -> Any:
        return self._attributes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def __getattr__(self, name: str) -> Any:
        # copy and pickle call this before there are attributes
        attributes = self.__dict__.get("_attributes", {})
        if name not in attributes:
            raise AttributeError(f"the image has no field {name!r}")
        return attributes[name]

    def __repr__(self) -> str:
        return f"<Image {self.get('id')} {self.get('status')}>"


@dataclass(frozen=True)
class FilterInfo:
    """Version and settings of the filter, from ``GET /v2/info/relations``.

    :ivar version: the version of the filter
    :ivar kinds: the kinds of relations
    :ivar resource_types: the types of resources; ``server`` alone if the filter does not list them
    :ivar answer: the whole JSON object
    """

    version: str
    kinds: tuple[str, ...]
    answer: Json = field(repr=False)
    resource_types: tuple[str, ...] = (SERVER,)

    @classmethod
    def from_json(cls, shown: Json) -> "FilterInfo":
        """Return the object for the body of a response.

        :param shown: the JSON object
        :raises KeyError: if a field is missing
        """
        types = tuple(shown.get("resource_types", (SERVER,)))
        return cls(shown["version"], tuple(shown["kinds"]), shown, types)

    def require_type(self, resource_type: str) -> None:
        """Check that the filter knows a type of resources; an older one would ignore it.

        A filter that knows leases checks registered types itself.

        :raises NotInstanceAware: if it does not know the type
        """
        is_registered = resource_type not in RESOURCE_TYPES and USE in self.kinds
        if not is_registered and resource_type not in self.resource_types:
            raise NotInstanceAware(
                f"the related-images filter of this Glance does not know the resource type "
                f"{resource_type}, so nothing was done; it knows "
                f"{', '.join(self.resource_types)}; an operator can upgrade it"
            )
