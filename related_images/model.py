"""What the project is about: installations, instances, images and the relations between them.

Every layer uses these classes. Times are aware and in UTC; IDs are text. What the API shows has a
:class:`JsonForm`: its JSON and the published schemas are made from the fields and their types here.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, NamedTuple

from related_images import validation
from related_images.errors import KindUnknown
from related_images.jsonform import NOT_IN_JSON, JsonForm

SNAPSHOT: Final = "snapshot"
BACKUP: Final = "backup"
BOOT: Final = "boot"
MADE_FROM: Final = (SNAPSHOT, BACKUP)
"""The kinds whose image was made from the instance."""
KINDS: Final = (*MADE_FROM, BOOT)

SERVICE: Final = "service"
NOTIFICATION: Final = "notification"
BACKFILL: Final = "backfill"
"""The source of what an image's own properties claim."""
MANUAL: Final = "manual"
SOURCES: Final = (SERVICE, NOTIFICATION, BACKFILL, MANUAL)

InstallationUuid = Annotated[str, validation.installation_uuid]
InstanceId = Annotated[str, validation.instance_id]
ImageId = Annotated[str, "image ID"]
Kind = Annotated[str, "kind"]
Label = Annotated[str, "label"]
Source = Annotated[str, "source"]
Count = Annotated[int, "count"]
"""What a text or a number is. The function reads it in an answer; a kind and a source that a newer
server has are read as they are."""


@dataclass(frozen=True, order=True)
class InstanceRef(JsonForm):
    """An instance of one installation.

    :param installation_uuid: UUID of the Nova deployment; kept in lower case
    :param instance_id: opaque text, 1 to 255 of ``A-Z a-z 0-9 . _ : -``
    :raises TupleMalformed: if either is not of that form
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId

    def __post_init__(self) -> None:
        uuid = validation.installation_uuid(self.installation_uuid)
        object.__setattr__(self, "installation_uuid", uuid)
        validation.instance_id(self.instance_id)


def kind(text: object, allowed: tuple[str, ...] = KINDS) -> str:
    """Give ``text`` if it is one of the ``allowed`` kinds, or raise :exc:`KindUnknown`."""
    if text not in allowed:
        raise KindUnknown(
            f"the relation kind {validation.shown(text)} cannot stand here; allowed are "
            f"{', '.join(allowed)}"
        )
    return str(text)


@dataclass(frozen=True, slots=True)
class ImageState:
    """What Glance says of an image that it has: when it made it, and whose it is."""

    created_at: datetime
    owner: str | None


@dataclass(frozen=True, slots=True)
class NewRelation:
    """A relation to be recorded.

    ``project_id`` is who sees it: who owns the image, for a ``boot`` who owns the instance.
    ``instance_project_id``, where known, is who owns the instance; ``seen`` is the image where
    Glance was asked.
    """

    installation_uuid: str
    instance_id: str
    image_id: str
    kind: str
    label: str | None
    source: str
    project_id: str | None
    created_at: datetime
    instance_project_id: str | None = None
    seen: ImageState | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recording did, so that it can be taken back.

    ``created`` is false where the relation was there before. ``revived_from`` is the time at which
    the image had been marked deleted, where it had and is the same.
    """

    image_id: str
    relation_ref: int
    created: bool
    image_ref: int
    instance_ref: int
    image_created: bool
    instance_created: bool
    revived_from: datetime | None


@dataclass(frozen=True, slots=True)
class Relation(JsonForm):
    """That an image belongs to an instance.

    A new field needs its column in the database, and nothing else.
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    image_id: ImageId
    kind: Kind
    label: Label | None
    source: Source
    project_id: str | None
    created_at: datetime
    image_created_at: datetime | None
    image_deleted_at: datetime | None

    @property
    def instance(self) -> InstanceRef:
        return InstanceRef(self.installation_uuid, self.instance_id)


class ListedImage(NamedTuple):
    """An image of an instance; ``created_at`` is the epoch while it is not known.

    ``recorded_at`` is when the oldest of the relations was recorded that it is listed for; ``None``
    if that says nothing of when it was made.
    """

    image_id: str
    created_at: datetime
    recorded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Images(JsonForm):
    """The images of one kind that an instance has and that are not deleted."""

    count: Count
    oldest_at: datetime
    latest_at: datetime
    latest_image_id: ImageId


@dataclass(frozen=True, slots=True)
class Instance(JsonForm):
    """An instance as one caller sees it; ``images`` by kind, ``ended_at`` once it is gone.

    ``latest_at`` is where it stands in a list of those without an image since a time.
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    project_id: str | None
    boot_image_id: ImageId | None
    ended_at: datetime | None
    images: Mapping[Kind, Images]
    latest_at: datetime | None = field(default=None, metadata=NOT_IN_JSON)

    @property
    def instance(self) -> InstanceRef:
        return InstanceRef(self.installation_uuid, self.instance_id)


@dataclass(frozen=True, slots=True)
class Installation(JsonForm):
    uuid: InstallationUuid
    name: str
    service_user_id: str | None
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports on an installation, or takes a report back.

    :ivar user_ids: the IDs of the service users in the request
    :ivar require_registered: whether the installation must be registered
    :ivar for_any_installation: whether a registration with another service user does not matter,
        as for an administrator, who may remove that registration
    """

    user_ids: Set[str]
    require_registered: bool = False
    for_any_installation: bool = False


@dataclass(frozen=True, slots=True)
class Filters:
    """Which relations are asked for; ``None`` leaves a filter out.

    ``in_use`` are those that tell from which image a live instance was started.
    ``visible_to`` is the project whose relations alone are seen; ``None`` sees all.
    """

    installation_uuid: str | None = None
    instance_id: str | None = None
    image_id: str | None = None
    project_id: str | None = None
    kind: str | None = None
    label: str | None = None
    source: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    in_use: bool | None = None
    visible_to: str | None = None


@dataclass(frozen=True, slots=True)
class Usage(JsonForm):
    """How many instances were started from an image, and how many of them live.

    :ivar unused_since: when the last of them ended; ``None`` while one lives or if none ever was
    :ivar used_by_others: whether live instances of other projects than the image's owner were
        started from it, as far as the caller may know; ``None`` if that cannot be told
    :ivar all_projects: whether those of every project are counted, or those the caller sees; an
        answer says it once for all of its images
    """

    image_id: ImageId
    instances: int = 0
    live_instances: int = 0
    unused_since: datetime | None = None
    used_by_others: bool | None = None
    all_projects: bool = field(default=False, metadata=NOT_IN_JSON)

    @property
    def is_unused(self) -> bool:
        """Whether it is known that no live instance was started from it."""
        return self.live_instances == 0 and self.used_by_others is False


@dataclass(frozen=True, slots=True)
class Ancestor(JsonForm):
    """An image that another descends from, ``via`` the instance between them."""

    image_id: ImageId
    via: InstanceRef
    kind: Kind
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None
    instance_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Descendant(JsonForm):
    """An image made from another, ``depth`` steps down, ``via`` an instance of the one above."""

    image_id: ImageId
    depth: int
    parent_image_id: ImageId
    via: InstanceRef
    kind: Kind
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None
    instance_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RelationPosition:
    """The last relation of a page: where the next one begins."""

    created_at: datetime
    installation_uuid: str
    instance_id: str
    image_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class InstancePosition:
    """The last instance of a page; ``latest_at`` as that instance had it."""

    installation_uuid: str
    instance_id: str
    latest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows a purge took away."""

    relations: int = 0
    images: int = 0
    instances: int = 0
