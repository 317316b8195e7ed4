"""What the calls give back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


class Image(Mapping[str, Any]):
    """An image as Glance shows it, by key or by attribute.

    :ivar acknowledgement: what the filter did with the instance headers: the recorded kind, or the
        filters of the list; ``None`` for an image that was looked at alone
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
        # copying and unpickling ask before there are attributes
        attributes = self.__dict__.get("_attributes", {})
        if name not in attributes:
            raise AttributeError(f"the registry gave the image no {name!r}")
        return attributes[name]

    def __repr__(self) -> str:
        return f"<Image {self.get('id')} {self.get('status')}>"


@dataclass(frozen=True)
class FilterInfo:
    """What the deployment says of itself; ``answer`` is all of it."""

    version: str
    kinds: tuple[str, ...]
    answer: Json = field(repr=False)

    @classmethod
    def from_json(cls, shown: Json) -> "FilterInfo":
        return cls(shown["version"], tuple(shown["kinds"]), shown)
