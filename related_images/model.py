"""The data model: installations, instances, images and the relations between them.

Every layer uses these classes. Times are aware and in UTC; IDs are text. An *instance* is a
resource of one installation: a server of a Nova, a volume, volume snapshot or volume backup of a
Cinder, or a resource of a registered type. The classes that the API shows derive from
:class:`JsonForm`: their fields and types define the JSON of the API and the published schemas.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, NamedTuple, Self

from related_images import validation
from related_images.errors import (
    FieldInvalid,
    KindUnknown,
    OriginRefused,
    ResourceTypeUnknown,
)
from related_images.jsonform import NOT_IN_JSON, JsonForm, named

SNAPSHOT: Final = "snapshot"
BACKUP: Final = "backup"
BOOT: Final = "boot"
SHELVED: Final = "shelved"
"""The image holds the disk of a server while the server is shelved."""
USE: Final = "use"
MADE_FROM: Final = (SNAPSHOT, BACKUP, SHELVED)
"""The kinds of relation that state that the image was made from the instance."""
USES: Final = (BOOT, USE)
"""The kinds of relation that state that the instance was made from the image, or needs it."""
KINDS: Final = (*MADE_FROM, *USES)

SERVER: Final = "server"
VOLUME: Final = "volume"
VOLUME_SNAPSHOT: Final = "volume-snapshot"
VOLUME_BACKUP: Final = "volume-backup"
RESOURCE_TYPES: Final = (SERVER, VOLUME, VOLUME_SNAPSHOT, VOLUME_BACKUP)
"""The built-in types. An administrator registers the types of resources that have leases."""

LONGEST_LEASE_DAYS: Final = 30
"""The default of the longest lease of a registered type."""
LONGEST_LEASE_DAYS_MAX: Final = 366

GAPS_SHOWN: Final = 5
"""The number of gaps that an answer lists for an image."""

SERVICE_USERS_LIMIT: Final = 20
"""The largest number of service users to which one installation is bound."""
SOURCE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    SERVER: (VOLUME,),
    VOLUME: (VOLUME, VOLUME_SNAPSHOT, VOLUME_BACKUP),
    VOLUME_SNAPSHOT: (VOLUME,),
    VOLUME_BACKUP: (VOLUME,),
}
"""The types of resources from which a resource of each type may come.

A server comes from its root volume. No resource comes from a server.
"""

SERVICE: Final = "service"
NOTIFICATION: Final = "notification"
BACKFILL: Final = "backfill"
"""The source of a relation that ``related-images backfill`` took from the image's properties."""
MANUAL: Final = "manual"
SOURCES: Final = (SERVICE, NOTIFICATION, BACKFILL, MANUAL)

NOVA_API: Final = "nova-api"
NOVA_BUS: Final = "nova-bus"
CINDER_API: Final = "cinder-api"
CINDER_BUS: Final = "cinder-bus"
WITNESSES: Final[Mapping[str, str]] = {
    NOVA_API: SERVER,
    NOVA_BUS: SERVER,
    CINDER_API: VOLUME,
    CINDER_BUS: VOLUME,
}
"""The witnesses: the channels that report on an installation, with the type of resources on which
a service user must be allowed to report."""
PROCESS_LENGTH: Final = 64
BUSES: Final = (NOVA_BUS, CINDER_BUS)

USED: Final = "used"
UNUSED: Final = "unused"
UNKNOWN: Final = "unknown"
STATES: Final = (USED, UNUSED, UNKNOWN)
"""Whether live resources use an image."""

InstallationUuid = Annotated[str, validation.installation_uuid]
InstanceId = Annotated[str, validation.instance_id]
ResourceType = Annotated[str, validation.resource_type]
ImageId = Annotated[str, "image ID"]
Kind = Annotated[str, "kind"]
Label = Annotated[str, "label"]
Source = Annotated[str, "source"]
Witness = Annotated[str, "witness"]
State = Annotated[str, "state"]
Count = Annotated[int, "count"]
"""The meaning of a text or a number. A function in the annotation validates a value that is read
from a response. Kinds, labels and sources are not validated: a newer server may have others."""


@dataclass(frozen=True, order=True)
class InstanceRef(JsonForm):
    """The name of a resource: its installation, its type and its ID.

    A server and a volume with the same ID are two resources.

    :param installation_uuid: UUID of the Nova or Cinder deployment; kept in lower case
    :param instance_id: opaque text, 1 to 255 of ``A-Z a-z 0-9 . _ : -``
    :param resource_type: one of :data:`RESOURCE_TYPES`, a registered type, or a type of a newer
        version
    :raises TupleMalformed: if the UUID or the ID is malformed
    :raises ResourceTypeUnknown: if the type is malformed
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    resource_type: ResourceType = SERVER

    def __post_init__(self) -> None:
        uuid = validation.installation_uuid(self.installation_uuid)
        object.__setattr__(self, "installation_uuid", uuid)
        validation.instance_id(self.instance_id)
        if self.resource_type not in RESOURCE_TYPES:
            validation.resource_type(self.resource_type)

    @classmethod
    def unchecked(
        cls, installation_uuid: str, instance_id: str, resource_type: str = SERVER
    ) -> Self:
        """Return a name that was checked before: that of a row, or of a response.

        The checks would take a tenth of the time of a page.
        """
        ref = object.__new__(cls)
        object.__setattr__(ref, "installation_uuid", installation_uuid)
        object.__setattr__(ref, "instance_id", instance_id)
        object.__setattr__(ref, "resource_type", resource_type)
        return ref

    def __str__(self) -> str:
        return f"{self.resource_type} {self.instance_id} of installation {self.installation_uuid}"


class OfInstance(JsonForm):
    """Base class of a dataclass whose JSON form has the name of a resource in three properties."""

    __slots__ = ()

    installation_uuid: str
    instance_id: str
    resource_type: str

    @property
    def instance(self) -> InstanceRef:
        """The name of the resource."""
        return InstanceRef.unchecked(self.installation_uuid, self.instance_id, self.resource_type)


def kind(text: object, allowed: tuple[str, ...] = KINDS) -> str:
    """Return ``text`` if it is one of the ``allowed`` kinds.

    :raises KindUnknown: if it is not
    """
    if text not in allowed:
        raise KindUnknown(
            f"the relation kind {validation.shown(text)} is not allowed here; allowed are "
            f"{', '.join(allowed)}"
        )
    return str(text)


def resource_type(text: object) -> str:
    """Return ``text`` if it is one of :data:`RESOURCE_TYPES`.

    :raises ResourceTypeUnknown: if it is not
    """
    if text not in RESOURCE_TYPES:
        raise ResourceTypeUnknown(
            f"the resource type {validation.shown(text)} is unknown; allowed are "
            f"{', '.join(RESOURCE_TYPES)}"
        )
    return str(text)


def resource_type_for(kind: str, text: object) -> str:
    """Return ``text`` if it may be the type of the resource of a relation of this kind.

    For the kind ``use``, the database knows which types are registered.

    :raises ResourceTypeUnknown: if it is malformed, or not one of :data:`RESOURCE_TYPES` for
        another kind
    """
    return validation.resource_type(text) if kind == USE else resource_type(text)


@dataclass(frozen=True, slots=True)
class ImageState:
    """The creation time and the owner of an image, as Glance reports them."""

    created_at: datetime
    owner: str | None


@dataclass(frozen=True, slots=True)
class NewRelation:
    """A relation to record.

    :ivar project_id: the project that sees it: the owner of the image; for a relation of one of
        :data:`USES` the owner of the resource
    :ivar instance_project_id: the project that owns the resource, if it was reported
    :ivar image_state: the image as Glance reports it, if Glance was asked
    :ivar expires_at: the end of the lease, for the kind ``use`` only
    :ivar volume_snapshot_ids: the volume snapshots to which the image refers
    :raises KindUnknown: if the kind is for servers only, and the resource is of another type
    """

    instance: InstanceRef
    image_id: str
    kind: str
    label: str | None
    source: str
    project_id: str | None
    created_at: datetime
    instance_project_id: str | None = None
    image_state: ImageState | None = None
    expires_at: datetime | None = None
    volume_snapshot_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        resource_type = self.instance.resource_type
        if self.kind == SHELVED and resource_type != SERVER:
            raise KindUnknown(
                f"the relation kind {SHELVED} is for servers only, and the resource is a "
                f"{resource_type}; give another kind"
            )


@dataclass(frozen=True, slots=True)
class NewOrigin:
    """An origin to record: from which other resource a resource comes.

    :ivar source: the other resource; ``None`` if the resource is known to have none
    :ivar since: when the resource was made from the source; for a server, when it got its root
        volume
    :ivar project_id: the project that owns the resource; ``None`` if the reporter does not know it
    :ivar reported_by: the channel of the report, one of :data:`SOURCES`
    :raises OriginRefused: if such a resource cannot come from such a source
    """

    instance: InstanceRef
    source: InstanceRef | None
    since: datetime
    project_id: str | None = None
    reported_by: str = SERVICE

    def __post_init__(self) -> None:
        if self.source is None:
            return
        if self.source == self.instance:
            raise OriginRefused(
                f"the {self.instance} cannot be its own source; give another resource, or null if "
                "it has none"
            )
        if self.source.resource_type not in SOURCE_TYPES[self.instance.resource_type]:
            allowed = "; ".join(
                f"a {type} from a {' or a '.join(sources)}"
                for type, sources in SOURCE_TYPES.items()
            )
            raise OriginRefused(
                f"a {self.instance.resource_type} cannot come from a {self.source.resource_type}; "
                f"allowed are: {allowed}"
            )


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recording a relation changed; it is needed to roll the relation back.

    :ivar created: whether the relation is new
    :ivar revived_from: when the image had been marked deleted, if recording removed that mark from
        the same image; else ``None``
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
class Relation(OfInstance):
    """A relation between an instance and an image.

    A new field needs a column in :func:`related_images.db.relation_queries.find`; the JSON and the
    schemas follow.

    :ivar expires_at: the end of the lease, for the kind ``use``; ``None`` for other kinds
    :ivar ended_at: when a ``shelved`` relation ended: the server was unshelved or deleted, or the
        image was deleted; ``None`` while the server is shelved, and for other kinds
    :ivar volume_snapshot_ids: the volume snapshots to which the image of a server on volumes refers
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
    resource_type: ResourceType = SERVER
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    volume_snapshot_ids: tuple[InstanceId, ...] = ()

    @property
    def made_at(self) -> datetime:
        """When the image was created; if that is unknown, when the relation was recorded."""
        return self.image_created_at or self.created_at


@dataclass(frozen=True, slots=True)
class RegisteredType(JsonForm):
    """A type of resources that may have leases.

    :ivar longest_lease_days: how far in the future a lease may end
    """

    name: ResourceType
    longest_lease_days: Count
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Origin(OfInstance):
    """An origin: from which other resource a resource comes.

    :ivar has_source: false if the resource is known to come from no other resource
    :ivar source: the other resource; ``None`` if there is none, or if the caller may not see it
    :ivar since: when the resource was made from the source
    :ivar project_id: the project that owns the resource, and so sees the origin
    :ivar reported_by: how the origin was reported, as ``source`` of a relation
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    has_source: bool
    source: InstanceRef | None
    since: datetime
    project_id: str | None
    reported_by: Source
    resource_type: ResourceType = SERVER


class ListedImage(NamedTuple):
    """An image of an instance.

    :ivar created_at: when Glance created it; the epoch while that is unknown
    :ivar recorded_at: when the oldest of the matching relations was recorded; ``None`` if the image
        may have been created later than that
    """

    image_id: str
    created_at: datetime
    recorded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Images(JsonForm):
    """The images of one kind that an instance has, without deleted images."""

    count: Count
    oldest_at: datetime
    latest_at: datetime
    latest_image_id: ImageId


@dataclass(frozen=True, slots=True)
class Instance(OfInstance):
    """An instance as one caller sees it.

    :ivar boot_image_id: the image from which the server was last started or rebuilt, or from which
        the volume was made
    :ivar ended_at: when the resource was deleted; ``None`` while it exists
    :ivar images: the images made from it, by kind
    :ivar latest_at: the sort key of the instance in a list of overdue instances
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    project_id: str | None
    boot_image_id: ImageId | None
    ended_at: datetime | None
    images: Mapping[Kind, Images]
    resource_type: ResourceType = SERVER
    latest_at: datetime | None = field(default=None, metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class ServiceUser(JsonForm):
    """A service user to which an installation is bound.

    :ivar user_id: its ID in Keystone
    :ivar resource_types: the types of the resources on which it may report; ``None`` for all types
    """

    user_id: str
    resource_types: tuple[ResourceType, ...] | None = None

    def may_report_on(self, resource_type: str) -> bool:
        """Return whether it may report on resources of this type."""
        return self.resource_types is None or resource_type in self.resource_types

    def __str__(self) -> str:
        types = self.resource_types
        return self.user_id if types is None else f"{self.user_id}:{','.join(types)}"


def service_user(user_id: object, resource_types: object = None) -> ServiceUser:
    """Return the service user with this ID for these types, which are brought into one order.

    :param resource_types: a list of types, built-in or registered ones, or ``None`` for all types
    :raises FieldInvalid: if the ID is no text, or the types are no list or an empty one
    :raises ResourceTypeUnknown: if a type is malformed
    """
    user = validation.text("user_id", user_id)
    if resource_types is None:
        return ServiceUser(user)
    if not isinstance(resource_types, list) or not resource_types:
        raise FieldInvalid(
            f"the field resource_types of the service user {validation.shown(user)} is malformed; "
            f"give null for all types, or a list with some of {', '.join(RESOURCE_TYPES)} and of "
            "the registered types"
        )
    given = {validation.resource_type(one) for one in resource_types}
    built_in = [one for one in RESOURCE_TYPES if one in given]
    return ServiceUser(user, (*built_in, *sorted(given.difference(RESOURCE_TYPES))))


@dataclass(frozen=True, slots=True)
class Installation(JsonForm):
    """A registered installation.

    :ivar service_users: the only service users that may report on its resources; none means that
        every caller with a recording role may
    :ivar witnesses: the witnesses that are expected to report on it, some of :data:`WITNESSES`
    """

    uuid: InstallationUuid
    name: str
    service_users: tuple[ServiceUser, ...]
    registered_at: datetime
    witnesses: tuple[Witness, ...] = ()


def witness(text: object) -> str:
    """Return ``text`` if it is one of :data:`WITNESSES`.

    :raises FieldInvalid: if it is not
    """
    if not isinstance(text, str) or text not in WITNESSES:
        raise FieldInvalid(
            f"the witness {validation.shown(text)} is unknown; allowed are {', '.join(WITNESSES)}"
        )
    return text


def witnesses(given: object) -> tuple[str, ...]:
    """Return the witnesses in a list, each once and in one order.

    :raises FieldInvalid: if it is no list, or one of them is unknown
    """
    if not isinstance(given, list):
        raise FieldInvalid("the field witnesses is malformed; give a list of words")
    wanted = {witness(one) for one in given}
    return tuple(one for one in WITNESSES if one in wanted)


@dataclass(frozen=True, slots=True)
class Interval(JsonForm):
    """A time that was covered.

    :ivar since: its begin
    :ivar until: its end
    """

    since: datetime = field(metadata=named("from"))
    until: datetime


@dataclass(frozen=True, slots=True)
class Heartbeat(JsonForm):
    """The statement of a process that it lost nothing from one time until another.

    :ivar witness: the witness to which the process belongs, one of :data:`WITNESSES`
    :ivar process: the name of the process; for a bus, of the queue
    :ivar since: since when it has lost nothing
    :ivar until: the time until which it has reported everything
    :raises TupleMalformed: if the UUID of the installation is malformed
    :raises FieldInvalid: if the witness is unknown, or the name of the process is malformed
    """

    installation_uuid: InstallationUuid
    witness: Witness
    process: str
    since: datetime = field(metadata=named("from"))
    until: datetime

    def __post_init__(self) -> None:
        uuid = validation.installation_uuid(self.installation_uuid)
        object.__setattr__(self, "installation_uuid", uuid)
        witness(self.witness)
        validation.word("process", self.process, PROCESS_LENGTH, FieldInvalid)

    @property
    def resource_type(self) -> str:
        """The type of resources on which a service user must be allowed to report."""
        return WITNESSES[self.witness]


@dataclass(frozen=True, slots=True)
class Gap(JsonForm):
    """A time in which an expected witness may have missed something.

    :ivar since: its begin; ``None`` if the witness has never covered an earlier time
    :ivar until: its end; ``None`` if it lasts
    """

    installation_uuid: InstallationUuid
    witness: Witness
    since: datetime | None = field(metadata=named("from"))
    until: datetime | None

    def __str__(self) -> str:
        begin, end = map(validation.format_time, (self.since, self.until))
        since = "" if begin is None else f" from {begin}"
        until = " until now" if end is None else f" until {end}"
        return f"{self.witness} of installation {self.installation_uuid}{since}{until}"


@dataclass(frozen=True, slots=True)
class Coverage(JsonForm):
    """The times that a witness of an installation covered without a gap, oldest first."""

    installation_uuid: InstallationUuid
    witness: Witness
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports on an installation, or revokes a report.

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
    """Filters of a list of relations; ``None`` means no restriction.

    :ivar resource_type: ``None`` for every type
    :ivar in_use: whether a relation states that a live resource was made from the image, or has a
        live lease of it
    :ivar leftover: whether a ``shelved`` relation has ended although its image exists
    :ivar visible_to: the project of the caller; ``None`` for callers who see all projects
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
    resource_type: str | None = None
    leftover: bool | None = None


@dataclass(frozen=True, slots=True)
class Leases(JsonForm):
    """The live leases of an image, and the end of the last one; ``None`` if there is none."""

    count: int = 0
    latest_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage(JsonForm):
    """The number of resources that were made from an image: servers and volumes.

    :ivar instances: all of them, deleted ones included
    :ivar live_instances: those that still exist
    :ivar unused_since: when the last of them was deleted, or the last lease ended; ``None`` if the
        image is used, or never was
    :ivar used_by_others: whether live resources of projects other than the image's owner were
        made from it, or have a live lease of it; ``None`` if the caller may not know or it is
        unknown
    :ivar leases: the live leases, also those of other projects if the caller owns the image
    :ivar state: ``used`` if a live resource or a live lease is known; ``unused`` if it is certain
        that there is neither; else ``unknown``
    :ivar gaps: the oldest times in which a use may have been missed, at most :data:`GAPS_SHOWN`
    :ivar more_gaps: the number of the others
    :ivar made_from: the number of resources that the image was made from, as far as the caller sees
        them: usually 1, and 0 for an image that was not made from a recorded resource
    :ivar shelved: the number of servers that are shelved now and need the image; these are not
        counted as instances
    :ivar all_projects: whether the resources of all projects are counted, or only those that the
        caller sees; a response states it once for all images
    """

    image_id: ImageId
    instances: int = 0
    live_instances: int = 0
    unused_since: datetime | None = None
    used_by_others: bool | None = None
    leases: Leases = Leases()
    state: State = UNKNOWN
    gaps: tuple[Gap, ...] = ()
    more_gaps: int = 0
    made_from: int = 0
    shelved: int = 0
    all_projects: bool = field(default=False, metadata=NOT_IN_JSON)

    @property
    def is_unused(self) -> bool:
        """Whether it is certain that no live resource uses the image."""
        return self.state == UNUSED

    @property
    def is_known_to_be_used(self) -> bool:
        """Whether a live resource, a live lease or a shelved server is known."""
        known = self.live_instances or self.leases.count or self.shelved
        return bool(known or self.used_by_others)

    @property
    def no_use_is_recorded(self) -> bool:
        """Whether no live resource, live lease or shelved server is recorded, of any project.

        A witness may have missed one, if the state is ``unknown``.
        """
        return not self.is_known_to_be_used and self.used_by_others is False


@dataclass(frozen=True, slots=True)
class Ancestor(JsonForm):
    """An image from which another one descends.

    :ivar via: the resources between them: the first one was made from the ancestor, and the other
        image was made from the last one
    """

    image_id: ImageId
    via: tuple[InstanceRef, ...]
    kind: Kind
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None
    instance_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Descendant(JsonForm):
    """An image that descends from another one.

    :ivar depth: the number of steps from the root; 1 for a child of the root
    :ivar via: the resources between the parent and the image: the first one was made from the
        parent, and the image was made from the last one
    """

    image_id: ImageId
    depth: int
    parent_image_id: ImageId
    via: tuple[InstanceRef, ...]
    kind: Kind
    created_at: datetime
    image_deleted_at: datetime | None
    project_id: str | None = None
    instance_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dependent(OfInstance):
    """A resource that was made from an image, or uses it.

    :ivar image_id: the image, which is the root or was made from it
    :ivar kind: ``boot`` if the resource, or the first one of ``via``, was made from the image;
        ``use`` if it has a lease of it; ``shelved`` if it is a server that is shelved in it
    :ivar depth: the number of generations of images: 1 if the image is the root
    :ivar via: the resources between the image and this one, which comes from the last of them
    :ivar expires_at: the end of the lease
    """

    installation_uuid: InstallationUuid
    instance_id: InstanceId
    image_id: ImageId
    kind: Kind
    depth: Count
    via: tuple[InstanceRef, ...]
    project_id: str | None
    ended_at: datetime | None
    expires_at: datetime | None
    resource_type: ResourceType = SERVER


@dataclass(frozen=True, slots=True)
class DependentCounts(JsonForm):
    """The number of dependents of one type.

    :ivar live: those that depend on the image, or on an image made from it, now
    :ivar ended: the others
    :ivar direct: those of ``live`` that depend on the image itself
    :ivar indirect: the others of ``live``
    """

    live: int = 0
    ended: int = 0
    direct: int = 0
    indirect: int = 0

    def __add__(self, more: "DependentCounts") -> "DependentCounts":
        return DependentCounts(
            self.live + more.live,
            self.ended + more.ended,
            self.direct + more.direct,
            self.indirect + more.indirect,
        )


@dataclass(frozen=True, slots=True)
class ProjectDependents(JsonForm):
    """The numbers of the dependents that a project owns.

    :ivar project_id: ``None`` for resources whose owner is unknown, or that the caller may not see
    """

    project_id: str | None
    by_type: Mapping[ResourceType, DependentCounts]


@dataclass(frozen=True, slots=True)
class DependentSummary(JsonForm):
    """The numbers of the dependents of an image.

    :ivar projects: the number of projects that own live ones
    :ivar used_by_others: as in :class:`Usage`, for the image itself
    :ivar lower_bound: whether there may be more than these, because not all were counted
    :ivar state: ``used`` if the image is used, or something live depends on an image made from it;
        otherwise as in :class:`Usage`
    """

    image_id: ImageId
    by_type: Mapping[ResourceType, DependentCounts]
    projects: int
    used_by_others: bool | None
    lower_bound: bool
    all_projects: bool
    state: State
    gaps: tuple[Gap, ...] = ()
    more_gaps: int = 0

    @property
    def in_words(self) -> str:
        """The numbers, as a part of an error message; empty if nothing was counted."""
        parts = [part for type, counts in self.by_type.items() for part in _in_words(type, counts)]
        if not parts:
            return ""
        bound = "at least " * self.lower_bound
        owners = f"{_number(self.projects, 'project')}" if self.all_projects else "this project"
        return (
            "its dependents, with those of the images made from it, are "
            f"{bound}{', '.join(parts)}, of {owners}"
        )


def _in_words(type: str, counts: DependentCounts) -> Iterator[str]:
    if counts.live:
        ways = f"{counts.direct} direct, {counts.indirect} indirect"
        yield f"{_number(counts.live, f'live {type}')} ({ways})"
    if counts.ended:
        yield _number(counts.ended, f"ended {type}")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


@dataclass(frozen=True, slots=True)
class RelationPosition:
    """The position of the last relation of a page; the next page begins after it."""

    created_at: datetime
    installation_uuid: str
    instance_id: str
    image_id: str
    kind: str
    resource_type: str = SERVER


@dataclass(frozen=True, slots=True)
class OriginPosition:
    """The position of the last origin of a page; the next page begins after it."""

    since: datetime
    installation_uuid: str
    instance_id: str
    resource_type: str = SERVER


@dataclass(frozen=True, slots=True)
class InstancePosition:
    """The position of the last instance of a page; ``latest_at`` as that page showed it."""

    installation_uuid: str
    instance_id: str
    latest_at: datetime | None
    resource_type: str = SERVER


@dataclass(frozen=True, slots=True)
class Merged:
    """The number of rows of an installation that was merged into another one.

    :ivar moved: the resources that only this installation had
    :ivar united: the resources that both had
    :ivar duplicates: the relations of these that both had
    :ivar left: the resources that this installation still has
    """

    moved: int
    united: int
    duplicates: int
    left: int


@dataclass(frozen=True, slots=True)
class Purged:
    """The number of rows that a purge deleted."""

    relations: int = 0
    images: int = 0
    instances: int = 0
