"""What has to change in an image, and nothing besides."""

from collections.abc import Collection, Iterable, Iterator, Mapping
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
