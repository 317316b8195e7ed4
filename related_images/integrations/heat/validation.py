"""What is wrong with a template, found before anything is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from heat.common import exception
from heat.engine import function

from related_images.errors import BadInput
from related_images.integrations.heat import schema
from related_images.integrations.heat.recording import GROUP, option
from related_images.wire import words
from related_images.wire.words import InstanceRef

Values = Mapping[str, Any]

RESERVED_PREFIX: Final = "os_glance_"
# fmt: off
BASE: Final = frozenset((
    "checksum", "container_format", "created_at", "deleted", "deleted_at", "direct_url",
    "disk_format", "file", "id", "location", "locations", "min_disk", "min_ram", "name",
    "os_hash_algo", "os_hash_value", "os_hidden", "owner", "protected", "schema", "self",
    "size", "status", "stores", "tags", "updated_at", "virtual_size", "visibility",
))
# fmt: on
"""Names that every image of Glance has."""
NAME_LENGTH: Final = 255
_MACHINE_FORMATS: Final = ("ami", "ari", "aki")


@dataclass(frozen=True)
class WantedRelation:
    instance: InstanceRef
    kind: str
    label: str | None


def wanted_relation(values: Values) -> WantedRelation | None:
    """The relation that a template asks for.

    :raises BadInput: if the instance or the label is malformed
    """
    instance = _instance(values)
    if instance is None:
        return None
    label = values[schema.LABEL]
    return WantedRelation(
        instance, values[schema.KIND], None if label is None else words.label(label)
    )


def _instance(values: Values) -> InstanceRef | None:
    configured = option("installation_uuid")
    if values[schema.SERVER]:
        return InstanceRef(configured, values[schema.SERVER])
    given = values[schema.INSTANCE]
    if not given:
        return None
    return InstanceRef(given[schema.INSTALLATION] or configured, given[schema.ID])


def check(values: Values, raw: Values) -> None:
    """Refuse a template that cannot become an image.

    :param values: of all properties; ``None`` where one is not known yet
    :param raw: the same as the template has them, functions and all
    :raises StackValidationFailed: with everything that is wrong
    """
    faults = [*_source(values), *_relation(values, raw), *_members(values), *_formats(values)]
    faults += _user_defined(values, raw)
    if faults:
        raise exception.StackValidationFailed(message="; ".join(faults))


def _source(values: Values) -> Iterator[str]:
    given = [name for name in (schema.LOCATION, schema.IMAGE) if values[name]]
    if len(given) > 1:
        yield "location and image exclude each other: give one of them"
    if not given and not values[schema.SERVER]:
        yield (
            "the image has no source: give location (a URL to import from), image (one that is "
            "there) or server (to take a snapshot of)"
        )
    if not given and values[schema.KIND] == words.BOOT:
        yield "a snapshot of the server cannot be of the kind boot: give location or image"


def _relation(values: Values, raw: Values) -> Iterator[str]:
    if values[schema.SERVER] and values[schema.INSTANCE]:
        yield "server and instance exclude each other: give one of them"
    elif values[schema.LABEL] and not (values[schema.SERVER] or values[schema.INSTANCE]):
        yield "a label needs a server or an instance to which the image belongs"
    instance = values[schema.INSTANCE] or {}
    own = instance.get(schema.INSTALLATION)
    if (values[schema.SERVER] or instance) and not (own or option("installation_uuid")):
        yield (
            "no installation is known: give instance its installation, or have installation_uuid "
            f"set under [{GROUP}] of heat.conf"
        )
    elif is_known(raw.get(schema.INSTANCE)) and is_known(raw.get(schema.SERVER)):
        yield from _malformed(values)


def _malformed(values: Values) -> Iterator[str]:
    try:
        wanted_relation(values)
    except BadInput as error:
        yield str(error)


def _members(values: Values) -> Iterator[str]:
    if values[schema.MEMBERS] and values[schema.VISIBILITY] not in (None, "shared"):
        yield f"an image with members is shared, and not {values[schema.VISIBILITY]}"


def _formats(values: Values) -> Iterator[str]:
    disk, container = values[schema.DISK_FORMAT], values[schema.CONTAINER_FORMAT]
    if values[schema.LOCATION] and not (disk and container):
        yield "an image from a location needs disk_format and container_format"
    if container in _MACHINE_FORMATS and disk != container:
        yield f"with container_format {container}, disk_format must be the same and is {disk}"


def _user_defined(values: Values, raw: Values) -> Iterator[str]:
    given = values[schema.PROPERTIES] or {}
    written = raw.get(schema.PROPERTIES)
    for name, value in given.items():
        yield from _name(name)
        if not isinstance(value, str) and not _is_unknown_yet(written, name, value):
            yield (
                f"the value of the property {words.shown(name)} is {words.shown(value)}, which is "
                "no text: put it into quotes"
            )
    many = len(given) + sum(values[name] is not None for name in schema.OPTIONAL)
    if many > option("property_quota"):
        yield (
            f"the image would have {many} properties and {option('property_quota')} are allowed "
            f"(property_quota under [{GROUP}] of heat.conf)"
        )


def _name(name: str) -> Iterator[str]:
    if name.startswith(RESERVED_PREFIX):
        yield f"the property {words.shown(name)} is reserved for Glance, as all {RESERVED_PREFIX}*"
    elif name in BASE or name in schema.OPTIONAL:
        own = name in schema.PROPERTIES_SCHEMA
        hint = "give it beside properties" if own else "it is Glance's to set"
        yield f"{name} is a property that Glance's images have of themselves: {hint}"
    elif not 0 < len(name) <= NAME_LENGTH:
        yield f"the property name {words.shown(name)} is not 1 to {NAME_LENGTH} characters long"


def _is_unknown_yet(written: Any, name: str, value: Any) -> bool:
    """Whether a value is missing because it comes from a resource that is still to be made."""
    source = written.get(name) if isinstance(written, Mapping) else written
    return value is None and not is_known(source)


def is_known(source: Any) -> bool:
    """Whether what a template says is there in so many words."""
    if isinstance(source, Mapping):
        return all(is_known(value) for value in source.values())
    if isinstance(source, list):
        return all(is_known(value) for value in source)
    return not isinstance(source, function.Function)
