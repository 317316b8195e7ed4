"""What is wrong with a template, found before anything is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from heat.common import exception
from heat.engine import function

from related_images import model, validation
from related_images.errors import BadInput
from related_images.integrations.heat import schema
from related_images.integrations.heat.recording import GROUP, option
from related_images.model import InstanceRef

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
        instance, values[schema.KIND], None if label is None else validation.label(label)
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

    :param values: of all properties; empty where one is not known yet
    :param raw: the same as the template has them, functions and all
    :raises StackValidationFailed: with everything that is wrong
    """
    faults = [*_source(values, raw), *_relation(values, raw), *_members(values)]
    faults += [*_formats(values, raw), *_user_defined(values, raw)]
    if faults:
        raise exception.StackValidationFailed(message="; ".join(faults))


def _source(values: Values, raw: Values) -> Iterator[str]:
    if values[schema.LOCATION] and values[schema.IMAGE]:
        yield "location and image exclude each other: give one of them"
    if _lacks(values, raw, schema.LOCATION, schema.IMAGE, schema.SERVER):
        yield (
            "the image has no source: give location (a URL to import from), image (one that is "
            "there) or server (to take a snapshot of)"
        )
    is_snapshot = _lacks(values, raw, schema.LOCATION, schema.IMAGE)
    if is_snapshot and values[schema.KIND] == model.BOOT:
        yield "a snapshot of the server cannot be of the kind boot: give location or image"


def _relation(values: Values, raw: Values) -> Iterator[str]:
    if values[schema.SERVER] and values[schema.INSTANCE]:
        yield "server and instance exclude each other: give one of them"
    elif values[schema.LABEL] and _lacks(values, raw, schema.SERVER, schema.INSTANCE):
        yield "a label needs a server or an instance to which the image belongs"
    belongs = values[schema.SERVER] or values[schema.INSTANCE]
    if belongs and not option("installation_uuid") and _lacks_installation(values, raw):
        yield (
            "no installation is known: give instance its installation, or have installation_uuid "
            f"set under [{GROUP}] of heat.conf"
        )
    elif all(is_known(raw.get(name)) for name in (schema.INSTANCE, schema.SERVER, schema.LABEL)):
        yield from _malformed(values)


def _lacks_installation(values: Values, raw: Values) -> bool:
    given, written = values[schema.INSTANCE] or {}, raw.get(schema.INSTANCE)
    return not given.get(schema.INSTALLATION) and is_known(_part(written, schema.INSTALLATION))


def _malformed(values: Values) -> Iterator[str]:
    try:
        wanted_relation(values)
    except BadInput as error:
        yield str(error)


def _members(values: Values) -> Iterator[str]:
    visibility = values[schema.VISIBILITY] or "shared"
    if values[schema.MEMBERS] and visibility != "shared":
        yield f"an image with members is shared, and not {visibility}"


def _formats(values: Values, raw: Values) -> Iterator[str]:
    disk, container = values[schema.DISK_FORMAT], values[schema.CONTAINER_FORMAT]
    lacks_disk = _lacks(values, raw, schema.DISK_FORMAT)
    if values[schema.LOCATION] and (lacks_disk or _lacks(values, raw, schema.CONTAINER_FORMAT)):
        yield "an image from a location needs disk_format and container_format"
    if container in _MACHINE_FORMATS and disk != container and (disk or lacks_disk):
        yield f"with container_format {container}, disk_format must be the same and is {disk}"


def _user_defined(values: Values, raw: Values) -> Iterator[str]:
    given = values[schema.PROPERTIES] or {}
    written = raw.get(schema.PROPERTIES)
    for name, value in given.items():
        yield from _name(name)
        is_missing = value is None and not is_known(_part(written, name))
        if not isinstance(value, str) and not is_missing:
            yield (
                f"the value of the property {validation.shown(name)} is "
                f"{validation.shown(value)}, which is "
                "no text: put it into quotes; what a parameter or an attribute gives becomes text "
                "by str_replace"
            )
    many = len(given) + sum(values[name] is not None for name in schema.OPTIONAL)
    if many > option("property_quota"):
        yield (
            f"the image would have {many} properties and {option('property_quota')} are allowed "
            f"(property_quota under [{GROUP}] of heat.conf)"
        )


def _name(name: object) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"the property name {validation.shown(name)} is no text: put it into quotes"
    elif name.startswith(RESERVED_PREFIX):
        shown = validation.shown(name)
        yield f"the property {shown} is reserved for Glance, as all {RESERVED_PREFIX}*"
    elif name in BASE or name in schema.OPTIONAL:
        own = name in schema.PROPERTIES_SCHEMA
        hint = "give it beside properties" if own else "it is Glance's to set"
        yield f"{name} is a property that Glance's images have of themselves: {hint}"
    elif not 0 < len(name) <= NAME_LENGTH:
        shown = validation.shown(name)
        yield f"the property name {shown} is not 1 to {NAME_LENGTH} characters long"


def _lacks(values: Values, raw: Values, *names: str) -> bool:
    """Whether none of these properties has a value, nor will have one."""
    return not any(values[name] or not is_known(raw.get(name)) for name in names)


def _part(written: Any, name: str) -> Any:
    """What a template says of one key of a map, which may come from elsewhere as a whole."""
    return written.get(name) if isinstance(written, Mapping) else written


def is_known(source: Any) -> bool:
    """Whether nothing that a template says here comes from a resource that is still to be made."""
    return all(resource.action != resource.INIT for resource in function.dependencies(source))
