"""The headers of the project. The filter removes the request headers that are listed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from related_images import model, validation
from related_images.errors import TupleConflict, TupleIncomplete
from related_images.model import InstanceRef

INSTALLATION_UUID: Final = "X-Installation-UUID"
INSTANCE_ID: Final = "X-Instance-ID"
RESOURCE_TYPE: Final = "X-Resource-Type"
RELATION_KIND: Final = "X-Relation-Kind"
RELATION_LABEL: Final = "X-Relation-Label"
INSTANCE_PROJECT_ID: Final = "X-Instance-Project-ID"
REQUEST: Final = (
    INSTALLATION_UUID,
    INSTANCE_ID,
    RESOURCE_TYPE,
    RELATION_KIND,
    RELATION_LABEL,
    INSTANCE_PROJECT_ID,
)
"""The instance headers of a request."""

FORCE: Final = "X-Relation-Force"
FORCED: Final = "true"
"""The value with which an administrator deletes an image despite delete protection."""

STRIPPED: Final = (*REQUEST, FORCE)
"""The headers that are removed from a request before Glance sees it."""

RECORDED: Final = "X-Relation-Recorded"
FILTERS_APPLIED: Final = "X-Relation-Filters-Applied"
"""The response headers that acknowledge the instance headers or parameters of the request."""

INCOMPLETE: Final = "X-Relation-Incomplete"
"""The response header of an image list that may be incomplete.

It names the filters for which it is unknown whether some images match.
"""

QUERY: Final = (
    "installation_uuid",
    "instance_id",
    "relation_resource_type",
    "relation_kind",
    "relation_label",
)
"""The query parameters of the image list for the first five headers of :data:`REQUEST`."""


@dataclass(frozen=True)
class Assertion:
    """The instance headers of a request: the resource, and optionally a kind and a label.

    :ivar project_id: the project that owns the resource, if the request names it
    :ivar names_type: whether the request names the resource type; the type is ``server`` otherwise
    """

    instance: InstanceRef
    kind: str | None = None
    label: str | None = None
    project_id: str | None = None
    names_type: bool = False

    def as_headers(self) -> dict[str, str]:
        """Return the request headers with these values."""
        return {name: text for name, text in zip(REQUEST, self._texts(), strict=True) if text}

    def _texts(self) -> tuple[str | None, ...]:
        ref = self.instance
        is_named = self.names_type or ref.resource_type != model.SERVER
        return (
            ref.installation_uuid,
            ref.instance_id,
            ref.resource_type if is_named else None,
            self.kind,
            self.label,
            self.project_id,
        )


def read(values: Mapping[str, str]) -> Assertion | None:
    """Parse the instance headers.

    :param values: the values by the names of the headers
    :returns: ``None`` if there are none
    :raises TupleIncomplete: if the installation UUID or the ID of the resource is missing
    :raises BadInput: if a value is malformed
    """
    installation, instance, resource_type, kind, label, project_id = map(values.get, REQUEST)
    if not values:
        return None
    if installation is None or instance is None:
        raise TupleIncomplete(
            f"only {' and '.join(values)} given; give both {INSTALLATION_UUID} and {INSTANCE_ID} "
            f"({QUERY[0]} and {QUERY[1]} in a query), or none of {', '.join(REQUEST)}"
        )
    return Assertion(
        InstanceRef(
            installation,
            instance,
            model.SERVER if resource_type is None else validation.resource_type(resource_type),
        ),
        None if kind is None else model.kind(kind),
        None if label is None else validation.label(label),
        None if project_id is None else validation.project_id(INSTANCE_PROJECT_ID, project_id),
        names_type=resource_type is not None,
    )


def combined(given: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """Return the values of headers and query parameters, by the names of the headers.

    :raises TupleConflict: if a header and its query parameter have different values
    """
    both = dict(given)
    for name, parameter in zip(REQUEST, QUERY, strict=False):
        if parameter in query and both.setdefault(name, query[parameter]) != query[parameter]:
            raise TupleConflict(
                f"the header {name} and the query parameter {parameter} have different values; "
                "give one of them"
            )
    return both
