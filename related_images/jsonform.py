"""The JSON form of a dataclass: each field is a property of the same name.

The name differs where it is a keyword of Python: see :func:`named`. The API writes this form and
the client reads it. Reading ignores unknown properties, so that an older client understands a newer
server.
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
"""Metadata of a field that is not part of the JSON form. A field with it needs a default."""


def named(name: str) -> dict[str, str]:
    """Return the metadata of a field whose property has this name."""
    return {"json": name}


class JsonForm:
    """Base class of a dataclass that has a JSON form."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """Return the properties by name, ready for :func:`json.dumps`."""
        cls: Any = type(self)
        written = {name: getattr(self, field) for name, field in _names(cls)}
        for name, write in _conversions(cls):
            if written[name] is not None:
                written[name] = write(written[name])
        return written

    @classmethod
    def from_json(cls, properties: Mapping[str, Any]) -> Self:
        """Return an object with the given properties.

        A field with a default may be missing, since an older server does not send it.

        :param properties: a decoded JSON object
        :raises KeyError: if the property of a field without a default is missing
        :raises BadInput: if a time or an ID is malformed
        """
        dataclass_type: Any = cls
        values = {
            item.field: item.read(properties[item.name])
            for item in _properties(dataclass_type)
            if item.is_required or item.name in properties
        }
        return cls(**values)


def types_of(cls: type) -> dict[str, Any]:
    """Return the types of the properties in the JSON form of the dataclass ``cls``, by name."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[field.name] for name, field in _fields(cls).items()}


def _fields(cls: type) -> dict[str, "dataclasses.Field[Any]"]:
    """Return the fields in the JSON form, by the names of their properties."""
    named = ((it.metadata.get("json", it.name), it) for it in dataclasses.fields(cls))
    return {name: it for name, it in named if name}


def but_none(kind: Any) -> Any:
    """Return ``X`` for the type ``X | None``, and ``None`` for a type without ``None``."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    return next(it for it in get_args(kind) if it is not type(None))


@cache
def _names(cls: type) -> tuple[tuple[str, str], ...]:
    """Return the name of each property and of its field."""
    return tuple((name, field.name) for name, field in _fields(cls).items())


@cache
def _conversions(cls: type) -> tuple[tuple[str, Convert], ...]:
    """Return the properties whose value is not that of the field; few, because lists are long."""
    writers = ((name, _writer(kind)) for name, kind in types_of(cls).items())
    return tuple((name, write) for name, write in writers if write is not _unchanged)


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    field: str
    read: Convert
    is_required: bool


@cache
def _properties(cls: type) -> tuple[_Property, ...]:
    fields, types = _fields(cls), types_of(cls)
    return tuple(
        _Property(
            *(name, field.name, _reader(name, types[name])),
            is_required=field.default is dataclasses.MISSING,
        )
        for name, field in fields.items()
    )


def _writer(kind: Any) -> Convert:
    """Return the function that converts a value, which is not ``None``, to JSON."""
    if optional := but_none(kind):
        return _writer(optional)
    if kind is datetime:
        return format_time
    if get_origin(kind) is Mapping:
        return _each_value(_writer(get_args(kind)[1]))
    if get_origin(kind) is tuple:
        return _each(list, _writer(get_args(kind)[0]))
    return JsonForm.as_json if _has_json_form(kind) else _unchanged


def _reader(name: str, kind: Any) -> Convert:
    if optional := but_none(kind):
        return _unless_none(_reader(name, optional))
    if kind is datetime:
        return lambda value: parse_time(name, value)
    if get_origin(kind) is Mapping:
        return _each_value(_reader(name, get_args(kind)[1]))
    if get_origin(kind) is tuple:
        return _each(tuple, _reader(name, get_args(kind)[0]))
    if get_origin(kind) is Annotated:
        return next(filter(callable, kind.__metadata__), _unchanged)
    return kind.from_json if _has_json_form(kind) else _unchanged


def _has_json_form(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, JsonForm)


def _unchanged(value: Item) -> Item:
    return value


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _each(collect: Convert, convert: Convert) -> Convert:
    return lambda values: collect(map(convert, values))


def _each_value(convert: Convert) -> Convert:
    return lambda values: {key: convert(value) for key, value in values.items()}
