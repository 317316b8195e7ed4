"""Compute the smallest change of an image, and remember changes of a failed update."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Operation = dict[str, Any]


def patch(
    image: Mapping[str, Any], wanted: Mapping[str, Any], unwanted: Iterable[str]
) -> list[Operation]:
    """Return the JSON patch that sets and removes attributes of an image.

    :param image: the image as Glance shows it
    :param wanted: the attributes to set; the order of tags is ignored
    :param unwanted: the names of the attributes to remove
    :returns: the operations; none for attributes that need no change
    """
    return [*_removals(image, unwanted), *_settings(image, wanted)]


def _removals(image: Mapping[str, Any], unwanted: Iterable[str]) -> Iterator[Operation]:
    for name in sorted(unwanted):
        if name in image:
            yield {"op": "remove", "path": _pointer(name)}


def _settings(image: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Operation]:
    for name, value in sorted(wanted.items()):
        if name not in image:
            yield {"op": "add", "path": _pointer(name), "value": value}
        elif not _is_equal(image[name], value):
            yield {"op": "replace", "path": _pointer(name), "value": value}


def _is_equal(current: Any, wanted: Any) -> bool:
    if isinstance(current, list) and isinstance(wanted, list):
        return sorted(current) == sorted(wanted)
    return bool(current == wanted)


def tags(current: Iterable[str], before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Return the tags of an image after an update of its template.

    :param current: the tags of the image
    :param before: the tags in the previous template
    :param after: the tags in the new template
    """
    return sorted((set(current) - set(before)) | set(after))


def added(before: Collection[str], after: Iterable[str]) -> list[str]:
    """Return the names in ``after`` that are not in ``before``, in order and without duplicates."""
    return [name for name in dict.fromkeys(after) if name not in before]


def _pointer(name: str) -> str:
    """Return the JSON pointer of an attribute (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True)
class Attempt:
    """The changes of an update that has not succeeded yet; a rollback reverts them.

    :ivar was: the previous values of attributes that the update sets and the previous template does
        not name; ``None`` for an attribute that the image did not have
    :ivar tags: the tags that the update adds
    :ivar members: the members that the update adds
    """

    was: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "Attempt":
        """Return the attempt that :meth:`to_json` serialized.

        :param text: the JSON object
        """
        values = json.loads(text)
        return cls(values["was"], tuple(values["tags"]), tuple(values["members"]))

    def to_json(self) -> str:
        """Return the attempt as a JSON object."""
        return json.dumps(asdict(self))

    def merge(self, later: "Attempt") -> "Attempt":
        """Return the changes of this failed attempt and of a later one together.

        :param later: the later attempt
        """
        return Attempt(
            {**later.was, **self.was},
            tuple(dict.fromkeys((*self.tags, *later.tags))),
            tuple(dict.fromkeys((*self.members, *later.members))),
        )

    def to_restore(self) -> dict[str, Any]:
        """Return the attributes to set to their previous values."""
        return {name: value for name, value in self.was.items() if value is not None}

    def to_remove(self) -> set[str]:
        """Return the names of the attributes that the image did not have."""
        return {name for name, value in self.was.items() if value is None}
