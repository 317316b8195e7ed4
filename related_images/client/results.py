"""What the calls give back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from related_images.model import InstanceRef
from related_images.validation import parse_time

Json = Mapping[str, Any]


class Image(Mapping[str, Any]):
    """An image as the registry shows it, by key or by attribute.

    :ivar acknowledgement: what the registry said it did with the tuple: the recorded kind, or the
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
class Relation:
    """That an image belongs to an instance; times are aware, in UTC."""

    instance: InstanceRef
    image_id: str
    kind: str
    label: str | None
    source: str
    project_id: str | None
    created_at: datetime
    image_created_at: datetime | None
    image_deleted_at: datetime | None


@dataclass(frozen=True)
class ImagesOfKind:
    """How many images of one kind an instance has, and when they were made."""

    count: int
    oldest_at: datetime
    latest_at: datetime
    latest_image_id: str


@dataclass(frozen=True)
class Instance:
    """An instance and its images by kind; ``ended_at`` once it is gone."""

    instance: InstanceRef
    project_id: str | None
    boot_image_id: str | None
    ended_at: datetime | None
    images: Mapping[str, ImagesOfKind]


@dataclass(frozen=True)
class Usage:
    """How many instances were started from an image, and how many of them live.

    :ivar unused_since: when the last of them ended; ``None`` while one lives or if none ever was
    :ivar all_projects: whether those of every project are counted, or those the caller sees
    :ivar used_by_others: whether live instances of other projects than the image's owner were
        started from it, as far as the caller may know; ``None`` if Glance did not say whose it is
    """

    image_id: str
    instances: int
    live_instances: int
    unused_since: datetime | None
    all_projects: bool
    used_by_others: bool | None = None

    @property
    def is_unused(self) -> bool:
        """Whether it is known that no live instance was started from it."""
        return self.live_instances == 0 and self.used_by_others is False


@dataclass(frozen=True)
class Ancestor:
    """An image that another descends from, ``via`` the instance between them."""

    image_id: str
    via: InstanceRef
    kind: str
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None


@dataclass(frozen=True)
class Descendant:
    """An image made from another, ``depth`` steps down, ``via`` an instance of the one above."""

    image_id: str
    depth: int
    parent_image_id: str
    via: InstanceRef
    kind: str
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None


@dataclass(frozen=True)
class RegistryInfo:
    """What the deployment says of itself; ``answer`` is all of it."""

    version: str
    kinds: tuple[str, ...]
    answer: Json = field(repr=False)


def relation(shown: Json) -> Relation:
    return Relation(
        _ref(shown),
        shown["image_id"],
        shown["kind"],
        shown["label"],
        shown["source"],
        shown["project_id"],
        parse_time("created_at", shown["created_at"]),
        _time(shown, "image_created_at"),
        _time(shown, "image_deleted_at"),
    )


def instance(shown: Json) -> Instance:
    return Instance(
        _ref(shown),
        shown["project_id"],
        shown["boot_image_id"],
        _time(shown, "ended_at"),
        {kind: _images(images) for kind, images in shown["images"].items()},
    )


def usages(body: Json) -> list[Usage]:
    return [
        Usage(
            shown["image_id"],
            shown["instances"],
            shown["live_instances"],
            _time(shown, "unused_since"),
            body["all_projects"],
            shown.get("used_by_others"),
        )
        for shown in body["usages"]
    ]


def ancestor(shown: Json) -> Ancestor:
    return Ancestor(
        shown["image_id"],
        _ref(shown["via"]),
        shown["kind"],
        parse_time("created_at", shown["created_at"]),
        _time(shown, "image_deleted_at"),
        shown.get("project_id"),
    )


def descendant(shown: Json) -> Descendant:
    return Descendant(
        shown["image_id"],
        shown["depth"],
        shown["parent_image_id"],
        _ref(shown["via"]),
        shown["kind"],
        parse_time("created_at", shown["created_at"]),
        _time(shown, "image_deleted_at"),
        shown.get("project_id"),
    )


def registry_info(shown: Json) -> RegistryInfo:
    return RegistryInfo(shown["version"], tuple(shown["kinds"]), shown)


def _ref(shown: Json) -> InstanceRef:
    return InstanceRef(shown["installation_uuid"], shown["instance_id"])


def _images(shown: Json) -> ImagesOfKind:
    return ImagesOfKind(
        shown["count"],
        parse_time("oldest_at", shown["oldest_at"]),
        parse_time("latest_at", shown["latest_at"]),
        shown["latest_image_id"],
    )


def _time(shown: Json, name: str) -> datetime | None:
    text = shown[name]
    return None if text is None else parse_time(name, text)
