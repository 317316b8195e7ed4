"""The JSON form of a dataclass: each of its fields is the property of that name.

The API writes it and the client reads it. A reader leaves out the properties that it does not know,
so that it understands a newer server.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from related_images.validation import format_time, parse_time

Item = TypeVar("Item")
Convert = Callable[[Any], Any]

NOT_IN_JSON: Final = {"json": False}
"""Metadata of a field that the JSON form does not have; it needs a default."""


class JsonForm:
    """A dataclass with a JSON form."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        shape: Any = type(self)
        return {one.name: one.write(getattr(self, one.name)) for one in _properties(shape)}

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> Self:
        """Read it; a property that an older server does not show is the default, if it has one.

        :raises KeyError: if a property is missing
        :raises BadInput: if a time or an ID is malformed
        """
        shape: Any = cls
        values = {
            one.name: one.read(shown[one.name])
            for one in _properties(shape)
            if one.is_needed or one.name in shown
        }
        return cls(**values)


def types_of(shape: type) -> dict[str, Any]:
    """The types of the fields that the JSON form of ``shape`` has."""
    hints = get_type_hints(shape, include_extras=True)
    shown = (it.name for it in dataclasses.fields(shape) if it.metadata.get("json", True))
    return {name: hints[name] for name in shown}


def but_none(kind: Any) -> Any:
    """``X`` for the type ``X | None``; ``None`` for a type that does not allow ``None``."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    return next(it for it in get_args(kind) if it is not type(None))


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    write: Convert
    read: Convert
    is_needed: bool


@cache
def _properties(shape: type) -> tuple[_Property, ...]:
    defaults = {it.name: it.default for it in dataclasses.fields(shape)}
    return tuple(
        _Property(name, _writer(kind), _reader(name, kind), defaults[name] is dataclasses.MISSING)
        for name, kind in types_of(shape).items()
    )


def _writer(kind: Any) -> Convert:
    if optional := but_none(kind):
        return _if_there(_writer(optional))
    if kind is datetime:
        return format_time
    if get_origin(kind) is Mapping:
        return _of_each(_writer(get_args(kind)[1]))
    return JsonForm.as_json if _is_form(kind) else _same


def _reader(name: str, kind: Any) -> Convert:
    if optional := but_none(kind):
        return _if_there(_reader(name, optional))
    if kind is datetime:
        return lambda value: parse_time(name, value)
    if get_origin(kind) is Mapping:
        return _of_each(_reader(name, get_args(kind)[1]))
    if get_origin(kind) is Annotated:
        return next(filter(callable, kind.__metadata__), _same)
    return kind.from_json if _is_form(kind) else _same


def _is_form(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, JsonForm)


def _same(value: Item) -> Item:
    return value


def _if_there(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _of_each(convert: Convert) -> Convert:
    return lambda values: {key: convert(value) for key, value in values.items()}
