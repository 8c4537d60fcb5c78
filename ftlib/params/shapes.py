"""The shape of params: which section or plugin a trail of keys leads to, and what may stand there, in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from ftlib.errors import ParamsError
from ftlib.params.documents import Trail
from ftlib.plugins import Plugin, Section, plural

_WORDS: dict[Any, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}


@dataclass(frozen=True)
class Place:
    """Where a trail of keys leads.

    Attributes:
        section: The section or plugin that holds the last key, or would have to.
        field: The field that the trail passed last; None where the last key is unknown.
        annotation: The type of what stands there; None where the last key is unknown.
        trail: The part of the trail that leads through the params; pydantic appends its own words.
    """

    section: type[Section] | None
    field: FieldInfo | None
    annotation: Any
    trail: Trail


def locate(root: type[Section], trail: Trail, value: Any) -> Place:
    """Follow a trail from `root` down through types; `value` tells which plugins were chosen on the way."""
    place = Place(None, None, root, ())
    for key in trail:
        inner = _inner(place, key, value)
        if inner is None:
            break
        value = _item(value, key)
        place = replace(inner, annotation=_meant(inner.annotation, value))
    return place


def _meant(annotation: Any, value: Any) -> Any:
    """Return, of a text or a section, the section where a mapping or a list stands, else the text; others as they
    are."""
    bare = unwrap(annotation)[0]
    if typing.get_origin(bare) not in (Union, types.UnionType):
        return annotation
    kinds = typing.get_args(bare)
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
    texts = [kind for kind in kinds if unwrap(kind)[0] is str]
    if len(kinds) != 2 or not sections or not texts:
        return annotation
    return (sections if isinstance(value, dict | list) else texts)[0]


def _inner(place: Place, key: str | int, value: Any) -> Place | None:
    section = section_of(place.annotation, value)
    if section is not None:
        field = section.model_fields.get(str(key))
        return Place(section, field, field.annotation if field else None, (*place.trail, key))
    annotation, _ = unwrap(place.annotation)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (tuple, list) and isinstance(key, int):
        return Place(place.section, place.field, arguments[0], (*place.trail, key))
    if typing.get_origin(annotation) is dict and key != "[key]":
        return Place(place.section, place.field, arguments[1], (*place.trail, key))
    return None


def _item(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None


def section_of(annotation: Any, value: Any = None) -> type[Section] | None:
    """Return the section class behind an annotation: the plugin that `value` names, where it is a family."""
    annotation, _ = unwrap(annotation)
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        return None
    if not issubclass(annotation, Plugin) or annotation is not annotation.base():
        return annotation
    try:
        return annotation.named(plugin_fields(annotation, value)["name"])
    except (ParamsError, KeyError, TypeError):
        return annotation


def plugin_fields(family: type[Plugin], value: Any) -> dict[str, Any]:
    """Return what a plugin's value says as a mapping: a string is spelt out, anything else has no fields."""
    if isinstance(value, str):
        try:
            return family.from_string(value)
        except ValueError:  # pydantic's own errors are ValueErrors
            return {}
    return value if isinstance(value, dict) else {}


def unwrap(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without Annotated and None, and whether None was allowed."""
    if typing.get_origin(annotation) is Annotated:
        return unwrap(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        kept = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(kept) == 1:
            return unwrap(kept[0])[0], True
        return annotation, len(kept) < len(typing.get_args(annotation))
    return annotation, False


def keys_of(section: type[Section]) -> list[str]:
    """Return the keys that a section takes in a params file."""
    return [*(["name"] if issubclass(section, Plugin) else []), *section.model_fields]


def called(section: type[Section]) -> str:
    """Return what a user calls a section: a plugin by its name, a part of the experiment by its key."""
    if issubclass(section, Plugin) and section is not section.base():
        return f"{section.kind} {section.__module__.rpartition('.')[2]!r}"
    names = {"Experiment": "an experiment", "Stage": "a stage", "FusionMethod": "a fusion", "BaseChoice": "base_model"}
    return names.get(section.__name__, section.__name__.lower())


def expected(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """Return in words what a value of this type looks like: "an integer, at least 1, or null"."""
    limits = [*metadata, *_metadata(annotation)]
    bare, nullable = unwrap(annotation)
    words = _kind(bare) + "".join(f", {limit}" for limit in _limits(limits, "character" if bare is str else "item"))
    return f"{words}, or null" if nullable else words


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (tuple, list):
        return f"a list (each item {expected(arguments[0])})"
    if origin is dict:
        return "a mapping (key: value)"
    if origin in (Union, types.UnionType):
        return " or ".join(expected(a) for a in arguments if a is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Plugin):
        return f"a {annotation.kind}: {_some(annotation.available())} (`ftlib list {plural(annotation.kind)}`)"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"a mapping with the keys {_some(tuple(annotation.model_fields))}"
    return "a mapping (key: value)"


def _some(names: typing.Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" and more" if len(names) > 8 else "")


def _metadata(annotation: Any) -> Iterator[Any]:
    """Yield what Annotated says of a type, or of the one type beside None."""
    if typing.get_origin(annotation) is Annotated:
        for item in annotation.__metadata__:
            yield from item.metadata if isinstance(item, FieldInfo) else [item]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(others) == 1:
            yield from _metadata(others[0])


def _limits(metadata: typing.Sequence[Any], unit: str) -> Iterator[str]:
    for limit in metadata:
        match limit:
            case annotated_types.Ge(ge):
                yield f"at least {ge}"
            case annotated_types.Gt(gt):
                yield f"greater than {gt}"
            case annotated_types.Le(le):
                yield f"at most {le}"
            case annotated_types.Lt(lt):
                yield f"below {lt}" if lt != 2**31 else "below 2^31"
            case annotated_types.MinLen(length):
                yield f"at least {length} {unit}{'s' * (length > 1)}"
            case annotated_types.MaxLen(length):
                yield f"at most {length} {unit}{'s' * (length > 1)}"


def pattern_of(annotation: Any) -> str | None:
    """Return the pattern that a text must match, where there is one."""
    for item in _metadata(annotation):
        pattern = getattr(item, "pattern", None)
        if isinstance(item, StringConstraints) or pattern:
            return str(pattern)
    return None
