"""What is wrong with a template, found before anything is made; needs no Heat."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from related_images import model, validation
from related_images.errors import BadInput
from related_images.integrations.heat import names
from related_images.integrations.heat.heat_credentials import GROUP, option
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
class Template:
    """The properties of an image in a template.

    :ivar values: of all properties; empty where one is not known yet
    :ivar raw: the same as the template has them, functions and all
    :ivar is_known: whether what the template says there is known already
    """

    values: Values
    raw: Values
    is_known: Callable[[Any], bool]

    def knows(self, name: str) -> bool:
        """Whether the value of the property is known already."""
        return self.is_known(self.raw.get(name))

    def knows_part(self, name: str, key: str) -> bool:
        """The same of one key of a map, which may come from elsewhere as a whole."""
        written = self.raw.get(name)
        return self.is_known(written.get(key) if isinstance(written, Mapping) else written)

    def lacks(self, *properties: str) -> bool:
        """Whether none of these properties has a value, nor will have one."""
        return not any(self.values[name] or not self.knows(name) for name in properties)


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
    label = values[names.LABEL]
    return WantedRelation(
        instance, values[names.KIND], None if label is None else validation.label(label)
    )


def _instance(values: Values) -> InstanceRef | None:
    configured = option("installation_uuid")
    if values[names.SERVER]:
        return InstanceRef(configured, values[names.SERVER])
    given = values[names.INSTANCE]
    if not given:
        return None
    return InstanceRef(given[names.INSTALLATION] or configured, given[names.ID])


def faults(template: Template) -> list[str]:
    """Everything that keeps a template from becoming an image."""
    found = [*_source(template), *_relation(template), *_members(template.values)]
    return [*found, *_formats(template), *_user_defined(template)]


def _source(template: Template) -> Iterator[str]:
    values = template.values
    if values[names.LOCATION] and values[names.IMAGE]:
        yield "location and image exclude each other: give one of them"
    if template.lacks(names.LOCATION, names.IMAGE, names.SERVER):
        yield (
            "the image has no source: give location (a URL to import from), image (one that is "
            "there) or server (to take a snapshot of)"
        )
    is_snapshot = template.lacks(names.LOCATION, names.IMAGE)
    if is_snapshot and values[names.KIND] == model.BOOT:
        yield "a snapshot of the server cannot be of the kind boot: give location or image"


def _relation(template: Template) -> Iterator[str]:
    values = template.values
    if values[names.SERVER] and values[names.INSTANCE]:
        yield "server and instance exclude each other: give one of them"
    elif values[names.LABEL] and template.lacks(names.SERVER, names.INSTANCE):
        yield "a label needs a server or an instance to which the image belongs"
    belongs = values[names.SERVER] or values[names.INSTANCE]
    if belongs and not option("installation_uuid") and _lacks_installation(template):
        yield (
            "no installation is known: give instance its installation, or have installation_uuid "
            f"set under [{GROUP}] of heat.conf"
        )
    elif all(map(template.knows, (names.INSTANCE, names.SERVER, names.LABEL))):
        yield from _malformed(values)


def _lacks_installation(template: Template) -> bool:
    given = template.values[names.INSTANCE] or {}
    known = template.knows_part(names.INSTANCE, names.INSTALLATION)
    return not given.get(names.INSTALLATION) and known


def _malformed(values: Values) -> Iterator[str]:
    try:
        wanted_relation(values)
    except BadInput as error:
        yield str(error)


def _members(values: Values) -> Iterator[str]:
    visibility = values[names.VISIBILITY] or "shared"
    if values[names.MEMBERS] and visibility != "shared":
        yield f"an image with members is shared, and not {visibility}"


def _formats(template: Template) -> Iterator[str]:
    values = template.values
    disk, container = values[names.DISK_FORMAT], values[names.CONTAINER_FORMAT]
    lacks_disk = template.lacks(names.DISK_FORMAT)
    if values[names.LOCATION] and (lacks_disk or template.lacks(names.CONTAINER_FORMAT)):
        yield "an image from a location needs disk_format and container_format"
    if container in _MACHINE_FORMATS and disk != container and (disk or lacks_disk):
        yield f"with container_format {container}, disk_format must be the same and is {disk}"


def _user_defined(template: Template) -> Iterator[str]:
    values = template.values
    given = values[names.PROPERTIES] or {}
    for name, value in given.items():
        yield from _name(name)
        is_missing = value is None and not template.knows_part(names.PROPERTIES, name)
        if not isinstance(value, str) and not is_missing:
            yield (
                f"the value of the property {validation.shown(name)} is "
                f"{validation.shown(value)}, which is "
                "no text: put it into quotes; what a parameter or an attribute gives becomes text "
                "by str_replace"
            )
    many = len(given) + sum(values[name] is not None for name in names.OPTIONAL)
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
    elif name in BASE or name in names.OPTIONAL:
        own = name in names.OF_TEMPLATES
        hint = "give it beside properties" if own else "it is Glance's to set"
        yield f"{name} is a property that Glance's images have of themselves: {hint}"
    elif not 0 < len(name) <= NAME_LENGTH:
        shown = validation.shown(name)
        yield f"the property name {shown} is not 1 to {NAME_LENGTH} characters long"
