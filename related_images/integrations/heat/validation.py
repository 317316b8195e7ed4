"""Find the errors in the template of an image before anything is created; needs no Heat."""

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
"""The attributes of every image; no user-defined property can have one of these names."""
NAME_LENGTH: Final = 255
_AMAZON_FORMATS: Final = ("ami", "ari", "aki")


@dataclass(frozen=True)
class Template:
    """The properties of an image in a template.

    :ivar values: the values of all properties; empty if a value is not known yet
    :ivar raw: the properties as the template has them, with functions
    :ivar is_known: returns ``True`` if a raw value is known
    """

    values: Values
    raw: Values
    is_known: Callable[[Any], bool]

    def is_property_known(self, name: str) -> bool:
        """Return True if the value of a property is known.

        :param name: name of the property
        """
        return self.is_known(self.raw.get(name))

    def is_key_known(self, name: str, key: str) -> bool:
        """Return True if the value of a key is known, in a property that is a map.

        :param name: name of the property
        :param key: key of the map
        """
        source = self.raw.get(name)
        return self.is_known(source.get(key) if isinstance(source, Mapping) else source)

    def has_none_of(self, *properties: str) -> bool:
        """Return True if no property has a value, nor will have one."""
        return not any(self.values[name] or not self.is_property_known(name) for name in properties)


@dataclass(frozen=True)
class WantedRelation:
    """The relation of an image in a template."""

    instance: InstanceRef
    kind: str
    label: str | None


def wanted_relation(values: Values) -> WantedRelation | None:
    """Return the relation in a template.

    :param values: the values of all properties
    :returns: ``None`` if the template has no server
    :raises BadInput: if the server ID, the installation or the label is malformed
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
    instance = values[names.INSTANCE]
    if not instance:
        return None
    return InstanceRef(instance[names.INSTALLATION] or configured, instance[names.ID])


def problems(template: Template) -> list[str]:
    """Return every error of a template, as far as its values are known.

    :param template: the properties of the image
    """
    found = [*_source(template), *_relation(template), *_members(template.values)]
    return [*found, *_formats(template), *_user_defined(template)]


def _source(template: Template) -> Iterator[str]:
    values = template.values
    if values[names.LOCATION] and values[names.IMAGE]:
        yield "location and image exclude each other: use one of them"
    if template.has_none_of(names.LOCATION, names.IMAGE, names.SERVER):
        yield (
            "the image has no source: set location (a URL to import from), image (an existing "
            "image) or server (to create a snapshot of)"
        )
    is_snapshot = template.has_none_of(names.LOCATION, names.IMAGE)
    if is_snapshot and values[names.KIND] == model.BOOT:
        yield "a snapshot of the server cannot be of the kind boot: set location or image"


def _relation(template: Template) -> Iterator[str]:
    values = template.values
    if values[names.SERVER] and values[names.INSTANCE]:
        yield "server and instance exclude each other: use one of them"
    elif values[names.LABEL] and template.has_none_of(names.SERVER, names.INSTANCE):
        yield "a label needs a server or an instance that the image belongs to"
    has_server = values[names.SERVER] or values[names.INSTANCE]
    if has_server and not option("installation_uuid") and _has_no_installation(template):
        yield (
            "no installation is known: set installation of instance, or installation_uuid in "
            f"[{GROUP}] of heat.conf"
        )
    elif all(map(template.is_property_known, (names.INSTANCE, names.SERVER, names.LABEL))):
        yield from _malformed(values)


def _has_no_installation(template: Template) -> bool:
    instance = template.values[names.INSTANCE] or {}
    is_known = template.is_key_known(names.INSTANCE, names.INSTALLATION)
    return not instance.get(names.INSTALLATION) and is_known


def _malformed(values: Values) -> Iterator[str]:
    try:
        wanted_relation(values)
    except BadInput as error:
        yield str(error)


def _members(values: Values) -> Iterator[str]:
    visibility = values[names.VISIBILITY] or "shared"
    if values[names.MEMBERS] and visibility != "shared":
        yield f"an image with members must have the visibility shared, not {visibility}"


def _formats(template: Template) -> Iterator[str]:
    values = template.values
    disk, container = values[names.DISK_FORMAT], values[names.CONTAINER_FORMAT]
    has_no_disk = template.has_none_of(names.DISK_FORMAT)
    if values[names.LOCATION] and (has_no_disk or template.has_none_of(names.CONTAINER_FORMAT)):
        yield "an image from a location needs disk_format and container_format"
    if container in _AMAZON_FORMATS and disk != container and (disk or has_no_disk):
        yield f"container_format {container} needs disk_format {container}, not {disk}"


def _user_defined(template: Template) -> Iterator[str]:
    values = template.values
    properties = values[names.PROPERTIES] or {}
    for name, value in properties.items():
        yield from _name(name)
        is_unknown = value is None and not template.is_key_known(names.PROPERTIES, name)
        if not isinstance(value, str) and not is_unknown:
            yield (
                f"the value of the property {validation.shown(name)} is "
                f"{validation.shown(value)}, which is not a string: quote it; convert the value "
                "of a parameter or an attribute with str_replace"
            )
    number = len(properties) + sum(values[name] is not None for name in names.OPTIONAL)
    if number > option("property_quota"):
        yield (
            f"the image would have {number} properties and {option('property_quota')} are allowed "
            f"(property_quota in [{GROUP}] of heat.conf)"
        )


def _name(name: object) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"the property name {validation.shown(name)} is not a string: quote it"
    elif name.startswith(RESERVED_PREFIX):
        shown = validation.shown(name)
        yield f"the property {shown} is reserved for Glance, like every {RESERVED_PREFIX}*"
    elif name in BASE or name in names.OPTIONAL:
        is_settable = name in names.OF_TEMPLATES
        hint = "set it outside properties" if is_settable else "only Glance sets it"
        yield f"{name} is an attribute of Glance's images: {hint}"
    elif not 0 < len(name) <= NAME_LENGTH:
        shown = validation.shown(name)
        yield f"the property name {shown} is not 1 to {NAME_LENGTH} characters long"
