"""What has to change in an image, and nothing besides."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Operation = dict[str, Any]


def patch(
    image: Mapping[str, Any], wanted: Mapping[str, Any], unwanted: Iterable[str]
) -> list[Operation]:
    """The JSON patch that gives ``image`` what is ``wanted`` and takes what is not.

    What neither names stays. The order of tags means nothing.
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
        elif not _same(image[name], value):
            yield {"op": "replace", "path": _pointer(name), "value": value}


def _same(present: Any, wanted: Any) -> bool:
    if isinstance(present, list) and isinstance(wanted, list):
        return sorted(present) == sorted(wanted)
    return bool(present == wanted)


def tags(present: Iterable[str], before: Iterable[str], after: Iterable[str]) -> list[str]:
    """The tags that an image has once a template that named ``before`` names ``after``."""
    return sorted((set(present) - set(before)) | set(after))


def added(before: Collection[str], after: Iterable[str]) -> list[str]:
    """What is in ``after`` and was not there ``before``, in its order and once."""
    return [name for name in dict.fromkeys(after) if name not in before]


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True)
class Attempt:
    """What an update may have put on an image; it is known until the update has succeeded.

    :ivar was: the attributes that it changes and the template before did not name, as they were;
        ``None`` for what was not there
    :ivar tags: those that it adds
    :ivar members: likewise
    """

    was: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> "Attempt":
        said = json.loads(text)
        return cls(said["was"], tuple(said["tags"]), tuple(said["members"]))

    def written(self) -> str:
        return json.dumps(asdict(self))

    def then(self, more: "Attempt") -> "Attempt":
        """This one, which failed, and one ``more`` after it."""
        return Attempt(
            {**more.was, **self.was},
            tuple(dict.fromkeys((*self.tags, *more.tags))),
            tuple(dict.fromkeys((*self.members, *more.members))),
        )

    def restored(self) -> dict[str, Any]:
        """What was on the image before."""
        return {name: value for name, value in self.was.items() if value is not None}

    def unwanted(self) -> set[str]:
        """What was not."""
        return {name for name, value in self.was.items() if value is None}
