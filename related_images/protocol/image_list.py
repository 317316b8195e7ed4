"""The query parameters that restrict Glance's image list by relation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from related_images import model, validation
from related_images.errors import ParameterUnknown, TupleConflict
from related_images.model import Filters, InstanceRef
from related_images.protocol import headers, parameters
from related_images.protocol.headers import Assertion

PAGES: Final = 100
"""The largest number of Glance's pages that one request for a restricted list reads."""

PREFIX: Final = "relation_"

_PARSERS: Final[dict[str, parameters.Parser]] = {
    "relation_installation_uuid": validation.installation_uuid,
    "relation_resource_type": model.resource_type,
    "relation_kind": model.kind,
    "relation_label": validation.label,
    "relation_source": parameters.source("relation_source"),
    "relation_created_after": parameters.time("relation_created_after"),
    "relation_created_before": parameters.time("relation_created_before"),
    "relation_in_use": parameters.boolean("relation_in_use"),
    "relation_descends_from": validation.image_id,
}

NAMES: Final = (*headers.QUERY[:2], *_PARSERS)
"""The names of the parameters."""

WORDS: Final = tuple(name.removeprefix(PREFIX) for name in _PARSERS)
"""Their names without the prefix."""

ON_IMAGE: Final = ("in_use", "descends_from")
"""The conditions on the image itself; all others are conditions on one relation of it."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """The conditions of a restricted image list; ``None`` means no condition.

    Except the instance, each field is named as its parameter without the prefix.

    :ivar installation_uuid: the installation of the resource, if the request names no instance
    :ivar resource_type: the type, if the request names it; the type of an instance is in
        ``instance`` too
    :ivar in_use: whether a live resource uses the image
    :ivar descends_from: the ID of an image
    """

    instance: InstanceRef | None = None
    installation_uuid: str | None = None
    resource_type: str | None = None
    kind: str | None = None
    label: str | None = None
    source: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    in_use: bool | None = None
    descends_from: str | None = None

    @property
    def asks_for_relation(self) -> bool:
        """Whether the image must have a relation with certain values."""
        return self.instance is not None or any(
            getattr(self, word) is not None for word in WORDS if word not in ON_IMAGE
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of that relation: without a kind, those of images made from a resource."""
        return model.MADE_FROM if self.kind is None else (self.kind,)

    def filters(self, visible_to: str | None) -> Filters:
        """Return the conditions on the relation, except the kind, as filters of relations.

        :param visible_to: the project of the caller; ``None`` if the caller sees all projects
        """
        ref = self.instance
        return Filters(
            installation_uuid=ref.installation_uuid if ref else self.installation_uuid,
            instance_id=ref.instance_id if ref else None,
            resource_type=ref.resource_type if ref else self.resource_type,
            label=self.label,
            source=self.source,
            created_after=self.created_after,
            created_before=self.created_before,
            visible_to=visible_to,
        )

    def query(self) -> dict[str, str]:
        """Return the parameters with their values as text."""
        ref = self.instance
        of_instance = (ref.installation_uuid, ref.instance_id) if ref else ()
        given = dict(zip(NAMES, of_instance, strict=False))
        named = ((PREFIX + word, getattr(self, word)) for word in WORDS)
        return given | {name: _text(value) for name, value in named if value is not None}

    def acknowledgement(self) -> str:
        """Return the value of :data:`headers.FILTERS_APPLIED` for the list."""
        return ", ".join(name.removeprefix(PREFIX) for name in self.query())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(validation.format_time(value)) if isinstance(value, datetime) else str(value)


def read(given: Mapping[str, str], assertion: Assertion | None) -> Restriction:
    """Parse the parameters of an image list.

    :param given: their values by name, without those that :func:`related_images.protocol.headers`
        parses if there is an ``assertion``
    :param assertion: the instance, its kind and its label, from headers or from parameters
    :raises TupleConflict: if ``given`` names another installation than the instance
    :raises BadInput: if a value is malformed
    """
    if assertion is None:
        return Restriction(**_parsed(given))
    ref = assertion.instance
    others = _parsed({name: text for name, text in given.items() if name not in headers.QUERY})
    if others.pop("installation_uuid", ref.installation_uuid) != ref.installation_uuid:
        raise TupleConflict(
            f"relation_installation_uuid is not the installation of the {ref}; omit this parameter"
        )
    return Restriction(
        **others,
        instance=ref,
        resource_type=ref.resource_type if assertion.names_type else None,
        kind=assertion.kind,
        label=assertion.label,
    )


def _parsed(given: Mapping[str, str]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX): _PARSERS[name](text) for name, text in given.items()}


def is_own(name: str) -> bool:
    """Return whether a query parameter of the image list is one of :data:`NAMES`.

    :raises ParameterUnknown: if it is not, but has the prefix of these parameters
    """
    if name in NAMES:
        return True
    if name.startswith(PREFIX):
        raise ParameterUnknown(
            f"the query parameter {validation.shown(name)} is unknown; of those that begin with "
            f"{PREFIX}, allowed are: {', '.join(_PARSERS)}"
        )
    return False
