"""The headers of the project, named once: what is stripped is computed from this table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from related_images import model, validation
from related_images.errors import TupleConflict, TupleIncomplete
from related_images.model import InstanceRef

INSTALLATION_UUID: Final = "X-Installation-UUID"
INSTANCE_ID: Final = "X-Instance-ID"
RELATION_KIND: Final = "X-Relation-Kind"
RELATION_LABEL: Final = "X-Relation-Label"
INSTANCE_PROJECT_ID: Final = "X-Instance-Project-ID"
REQUEST: Final = (
    INSTALLATION_UUID,
    INSTANCE_ID,
    RELATION_KIND,
    RELATION_LABEL,
    INSTANCE_PROJECT_ID,
)
"""What a request says of an instance."""

FORCE: Final = "X-Relation-Force"
FORCED: Final = "true"
"""With this value: the deletion of an image in use is meant; an administrator may say so."""

STRIPPED: Final = (*REQUEST, FORCE)
"""Read from a request, and removed from it before the registry sees it."""

RECORDED: Final = "X-Relation-Recorded"
FILTERS_APPLIED: Final = "X-Relation-Filters-Applied"
"""Both set on a response: what was done with the tuple of its request."""

QUERY: Final = ("installation_uuid", "instance_id", "relation_kind", "relation_label")
"""The first four as query parameters of the image list, in the order of :data:`REQUEST`."""

FILTER_WORDS: Final = ("installation_uuid", "instance_id", "kind", "label")
"""The same four as the acknowledgement of a filtered list names them."""


@dataclass(frozen=True)
class Assertion:
    """What a request says of an instance: the tuple, and if given a kind and a label.

    ``project_id`` is whose the instance is, where that is known.
    """

    instance: InstanceRef
    kind: str | None = None
    label: str | None = None
    project_id: str | None = None

    def as_headers(self) -> dict[str, str]:
        """The request headers that say this."""
        return {name: text for name, text in zip(REQUEST, self._texts(), strict=True) if text}

    def acknowledgement(self) -> str:
        """The value of :data:`FILTERS_APPLIED` on a list that was filtered by this."""
        pairs = zip(FILTER_WORDS, self._texts(), strict=False)
        return ", ".join(word for word, text in pairs if text)

    def _texts(self) -> tuple[str | None, ...]:
        ref = self.instance
        return (ref.installation_uuid, ref.instance_id, self.kind, self.label, self.project_id)


def read(values: Mapping[str, str]) -> Assertion | None:
    """Read what the headers say; ``values`` by their names.

    :returns: ``None`` if none of them is there
    :raises TupleIncomplete: if a part of the tuple is missing
    :raises BadInput: if a value is malformed
    """
    installation, instance, kind, label, project_id = map(values.get, REQUEST)
    if not values:
        return None
    if installation is None or instance is None:
        raise TupleIncomplete(
            f"{' and '.join(values)} came alone; give both {INSTALLATION_UUID} and {INSTANCE_ID} "
            f"({QUERY[0]} and {QUERY[1]} in a query), or none of {', '.join(REQUEST)}"
        )
    return Assertion(
        InstanceRef(installation, instance),
        None if kind is None else model.kind(kind),
        None if label is None else validation.label(label),
        None if project_id is None else validation.project_id(INSTANCE_PROJECT_ID, project_id),
    )


def combined(given: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """The values of headers and those of query parameters, all by the names of the headers.

    :raises TupleConflict: if both name the same thing differently
    """
    both = dict(given)
    for name, parameter in zip(REQUEST, QUERY, strict=False):
        if parameter in query and both.setdefault(name, query[parameter]) != query[parameter]:
            raise TupleConflict(
                f"the header {name} and the query parameter {parameter} differ; give one of them"
            )
    return both
