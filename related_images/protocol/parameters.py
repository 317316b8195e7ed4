"""Query parameters of our own routes: how each is read, what it means, and its JSON schema.

The filter reads a query by them. The client checks with them what it is given, before it asks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from related_images import model, validation
from related_images.errors import LimitMalformed, ParameterMalformed, ParameterUnknown
from related_images.protocol import schemas

LIMIT_DEFAULT: Final = 100
LIMIT_MOST: Final = 1000
"""Rows of a page; a larger limit is taken for this one, as the registry does with its own."""

IDS_MOST: Final = 100
"""Images whose usage is told at once: their ids are in the query."""

ATTACHMENT: Final = "attachment"
CREATION: Final = "creation"
OWN_REPORTS: Final = (ATTACHMENT, CREATION)

Read = Callable[[Any], Any]
"""Gives the value that a text stands for, or raises :exc:`BadInput`, also for what is no text."""


def _project_id(text: str) -> str:
    if not validation.is_text(text):
        raise ParameterMalformed(f"project_id={validation.shown(text)} is not {validation.TEXT}")
    return text


def _source(text: str) -> str:
    if text not in model.SOURCES:
        raise ParameterMalformed(
            f"source={validation.shown(text)} is not one of {', '.join(model.SOURCES)}"
        )
    return text


def _time(name: str) -> Read:
    return lambda text: validation.parse_time(name, text)


def _truth(name: str) -> Read:
    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise ParameterMalformed(f"{name}={validation.shown(text)} is neither true nor false")
        return text == "true"

    return read


def _image_ids(text: str) -> list[str]:
    ids = text.split(",")
    if len(ids) > IDS_MOST:
        raise ParameterMalformed(
            f"image_ids has {len(ids)} ids and at most {IDS_MOST} may be asked"
        )
    return [validation.image_id(id) for id in dict.fromkeys(ids)]


def _limit(text: str) -> int:
    return min(validation.positive("limit", text, LimitMalformed), LIMIT_MOST)


def _depth(text: str) -> int:
    return validation.positive("depth", text)


def _made_kind(text: str) -> str:
    return model.kind(text, model.MADE_FROM)


def _own_report(text: str) -> str:
    if text not in OWN_REPORTS:
        raise ParameterMalformed(
            f"own_report={validation.shown(text)} is not one of {', '.join(OWN_REPORTS)}"
        )
    return text


@dataclass(frozen=True)
class Filter:
    """A query parameter: how it is read, what it means, and its JSON schema.

    ``needed`` is whether it must be given.
    """

    read: Read
    means: str
    schema: schemas.Json
    needed: bool = False


Filters = dict[str, Filter]

FILTERS: Final[Filters] = {
    "installation_uuid": Filter(
        validation.installation_uuid, "Relations of this installation", schemas.ANY_UUID
    ),
    "instance_id": Filter(
        validation.instance_id, "Relations of this instance", schemas.INSTANCE_ID
    ),
    "image_id": Filter(validation.image_id, "Relations of this image", schemas.UUID),
    "project_id": Filter(_project_id, "Relations of this project", schemas.TEXT),
    "kind": Filter(model.kind, "Relations of this kind", schemas.KIND),
    "label": Filter(validation.label, "Relations with this label", schemas.LABEL),
    "source": Filter(_source, "Relations that this source reports", schemas.SOURCE),
    "created_after": Filter(
        _time("created_after"), "Relations recorded after this time", schemas.TIME
    ),
    "created_before": Filter(
        _time("created_before"), "Relations recorded before this time", schemas.TIME
    ),
    "in_use": Filter(
        _truth("in_use"),
        "Whether the relation tells from which image a live instance was started",
        {"type": "boolean"},
    ),
}
"""The filters of relations and instances."""

LATEST_BEFORE: Final = "latest_before"
INSTANCE_FILTERS: Final[Filters] = {
    **FILTERS,
    LATEST_BEFORE: Filter(
        _time(LATEST_BEFORE),
        "Instances without an image of the kind and label since this time",
        schemas.TIME,
    ),
}
IMAGE_FILTERS: Final[Filters] = {name: one for name, one in FILTERS.items() if name != "image_id"}

IMAGE_IDS: Final = "image_ids"
_ONE_ID: Final = schemas.UUID["pattern"].strip("^$")
USAGE_FILTERS: Final[Filters] = {
    IMAGE_IDS: Filter(
        _image_ids,
        f"1 to {IDS_MOST} ids, separated by commas",
        {"type": "string", "pattern": f"^{_ONE_ID}(,{_ONE_ID}){{0,{IDS_MOST - 1}}}$"},
        needed=True,
    )
}

DESCENDANT_FILTERS: Final[Filters] = {
    "depth": Filter(_depth, "How many generations to follow", schemas.COUNT),
    "kind": Filter(_made_kind, "Images of this kind", schemas.MADE_KIND),
}

DETACHMENT: Final[Filters] = {
    "own_report": Filter(
        _own_report,
        "Take only one's own report of the relation back: one attachment, or the creation of the "
        "image",
        {"type": "string", "enum": list(OWN_REPORTS)},
    ),
    "created_at": Filter(
        _time("created_at"),
        "created_at of the relation with which the attachment was answered",
        schemas.TIME,
    ),
}
"""What says that not the relation is removed, but one's own report of it taken back."""

PAGE: Final[Filters] = {
    "limit": Filter(
        _limit,
        f"Rows of a page; more than {LIMIT_MOST} are taken for {LIMIT_MOST}",
        {**schemas.COUNT, "default": LIMIT_DEFAULT},
    ),
    "marker": Filter(str, "Where the page before ended, from its next link", {"type": "string"}),
}
"""What every list takes besides its filters."""


def check_known(name: str, known: Filters) -> None:
    """Make sure that a parameter is one of the ``known`` ones.

    :raises ParameterUnknown: if it is not; the message names those that are
    """
    if name not in known:
        allowed = f"known are {', '.join(known)}" if known else "leave the query out"
        raise ParameterUnknown(f"{validation.shown(name)} is not known here; {allowed}")
