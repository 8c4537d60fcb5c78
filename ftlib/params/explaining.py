"""Turns pydantic's errors into lines that a person can act on: what is wrong, what was expected, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ftlib.errors import unknown
from ftlib.params.documents import Document, Trail
from ftlib.params.shapes import Place, called, expected, keys_of, locate, pattern_of, section_of, unwrap
from ftlib.plugins import Plugin, Section

Problem = tuple[Trail, str]
"""Where something is wrong, and the sentence that says what."""


def explain(error: ValidationError, document: Document, root: type[Section]) -> list[Problem]:
    """Return every problem that pydantic found, once, in words."""
    found: dict[Trail, str] = {}
    every = error.errors(include_url=False)
    for details in every:
        if details["type"] == "experiment":
            found.update(crossing(details["ctx"]["lines"]))
            continue
        place = locate(root, details["loc"], document.value)
        if not (_inherited(place.trail, document) or _echo(details, every)):
            found.setdefault(_shown(place.trail, details, document), _sentence(details, place, root))
    return list(found.items())


def _echo(details: ErrorDetails, every: Sequence[ErrorDetails]) -> bool:
    """Return whether a list is called too short only because its items are wrong, which is told already."""
    loc = details["loc"]
    return details["type"] == "too_short" and any(d["loc"][: len(loc)] == loc and d is not details for d in every)


def crossing(lines: str) -> Iterator[Problem]:
    """Yield the problems that ``Experiment`` itself reports as lines "path: message"."""
    for line in lines.splitlines():
        path, _, message = line.partition(": ")
        yield tuple(int(key) if key.isdigit() else key for key in path.split(".")), message


def told(problems: Sequence[Problem], document: Document) -> list[str]:
    """Return problems as full lines, in the order of the file: where, which key, what is wrong."""
    lines = []
    for trail, message in problems:
        where = document.where(trail)
        path = ".".join(map(str, trail))
        lines.append(f"{where}: {message}" if where.startswith(f"--set {path}=") else f"{where}: {path}: {message}")
    return sorted(dict.fromkeys(lines), key=_file_order)


def _file_order(line: str) -> tuple[int, int]:
    """Sort by line number, whatever comes from the command line first."""
    match = re.match(r"[^:]*:(\d+):", line)
    return (1, int(match[1])) if match else (0, 0)


def _shown(trail: Trail, details: ErrorDetails, document: Document) -> Trail:
    """Return the trail as the file spells it: down to the plugin's name, or up to where a short form stands."""
    if details["type"] == "missing":
        return trail
    if details["type"] in ("plugin_unknown", "plugin_name_invalid") and isinstance(document.at(trail), dict):
        return (*trail, "name")
    return document.deepest(trail) or trail


def _inherited(trail: Trail, document: Document) -> bool:
    """Return whether a stage's training key comes from the experiment's section, where it is reported."""
    if len(trail) < 3 or trail[0] != "stages":
        return False
    own = document.at(trail[:3], {})
    shared = document.at(("training",), {})
    if trail[2] != "training" or len(trail) < 4 or not isinstance(own, dict) or not isinstance(shared, dict):
        return False
    return trail[3] not in own and trail[3] in shared


def _sentence(details: ErrorDetails, place: Place, root: type[Section]) -> str:
    tell = _SENTENCES.get(details["type"])
    if tell is not None:
        return tell(details, place, root)
    if details["type"].endswith("_type") or details["type"] in _OUT_OF_RANGE:
        return _wrong_kind(details, place)
    return details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


_OUT_OF_RANGE = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
    "too_short", "too_long", "int_from_float", "multiple_of", "string_too_short", "string_too_long",
}  # fmt: skip


def _missing(details: ErrorDetails, place: Place, root: type[Section]) -> str:
    described = " ".join((place.field.description or "").split()) if place.field else ""
    line = f"is missing; expected {expected(place.annotation, place.field.metadata if place.field else ())}."
    return f"{line} {described}" if described else line


def _unknown_key(details: ErrorDetails, place: Place, root: type[Section]) -> str:
    section = place.section or root
    key = str(place.trail[-1])
    homes = list(_homes(root, key))
    if homes:
        return f"unknown key {key!r} of {called(section)}. It belongs in {' or '.join(homes)}."
    return unknown_key(section, key)


def unknown_key(section: type[Section], key: str) -> str:
    """Return the line for a key that a section does not have."""
    keys = keys_of(section)
    if keys == ["name"]:
        return f"unknown key {key!r}: {called(section)} has no parameters."
    line = unknown("key", key, keys)
    return line.replace(f"{key!r}.", f"{key!r} of {called(section)}.", 1)


def _homes(root: type[Section], key: str) -> Iterator[str]:
    """Yield the sections in which a key would be right."""
    if key in root.model_fields:
        yield "the experiment itself"
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        if section and not issubclass(section, Plugin) and key in section.model_fields:
            yield f"section {name!r}"


def _unknown_value(details: ErrorDetails, place: Place, root: type[Section]) -> str:
    annotation = unwrap(place.annotation)[0]
    if details["loc"][-1] == "[key]":
        key = details["loc"][-2]
        names = [n.strip("' ") for n in re.split(r",| or ", details["ctx"]["expected"])]
        return unknown("key", str(key), names)
    names = [str(n) for n in getattr(annotation, "__args__", ())]
    said = details["input"]
    if not isinstance(said, str):
        return f"{_said(said)}; expected one of: {', '.join(names)}."
    return unknown("value", said, names)


def _wrong_kind(details: ErrorDetails, place: Place) -> str:
    """Tell a value that is of the wrong type or out of range, and how to write it right."""
    said = details["input"]
    metadata = place.field.metadata if place.field and len(place.trail) and _is_field(place) else ()
    wanted = expected(place.annotation, metadata)
    if place.annotation is None:
        return f"{_said(said)}; {details['msg'][:1].lower()}{details['msg'][1:]}."
    line = f"{_said(said)}; expected {wanted}."
    return f"{line} {_remedy(said, place)}".rstrip()


def _is_field(place: Place) -> bool:
    return place.field is not None and place.field.annotation == place.annotation


def _said(value: Any) -> str:
    """Return what was given, in words."""
    match value:
        case None:
            return "is empty"
        case bool():
            return f"{str(value).lower()} is a boolean"
        case int() | float():
            return f"is {value}" if value == value and abs(value) != float("inf") else f"{value} is no finite number"
        case str():
            shown = value if len(value) <= 40 else value[:37] + "..."
            return f"{shown!r} is text"
        case list() | tuple():
            return f"is a list of {len(value)}" if value else "is an empty list"
        case dict():
            return "is a mapping"
    return f"is of type {type(value).__name__}"


def _remedy(said: Any, place: Place) -> str:
    wanted = unwrap(place.annotation)[0]
    default = place.field.get_default(call_default_factory=True) if place.field else None
    if said is None and place.field and not place.field.is_required() and _is_field(place):
        return "Remove the key to use the default."
    if wanted is bool and str(said).lower() in ("yes", "no", "on", "off", "1", "0"):
        return f"Write {'true' if str(said).lower() in ('yes', 'on', '1') else 'false'}."
    if wanted in (int, float) and isinstance(said, str):
        return _number_remedy(said, wanted)
    if wanted is int and isinstance(said, float) and said == round(said):
        return f"Write {round(said)}."
    if wanted is str and isinstance(said, (bool, int, float)):
        return f"Put it in quotes: '{str(said).lower() if isinstance(said, bool) else said}'."
    if wanted is str and isinstance(default, str):
        return f"Write it as in {default!r}."
    if getattr(wanted, "__origin__", None) is tuple and isinstance(said, (str, int, float)):
        return f"Write [{said}]."
    return ""


def _number_remedy(said: str, wanted: type) -> str:
    if wanted is float and re.fullmatch(r"[-+]?(0,\d+|\d+,(\d{1,2}|\d{4,}))", said):
        return f"Write {said.replace(',', '.')}: a decimal point, no comma."
    bare = re.sub(r"[_, ]", "", said)
    if re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", bare):
        return f"Write {bare}, without quotes or separators."
    if wanted is float and re.fullmatch(r"\d+(\.\d+)?%", bare):
        return f"Write {float(bare[:-1]) / 100:g}."
    return ""


def _wrong_pattern(details: ErrorDetails, place: Place, root: type[Section]) -> str:
    said = str(details["input"])
    if "a-z0-9_-" in (pattern_of(place.annotation) or details["ctx"]["pattern"]):
        name = re.sub(r"[^a-z0-9_-]+", "-", said.lower()).strip("-_")[:64]
        remedy = f" Write {name!r}." if name else ""
        return f"{said!r} is no name; names are lower-case letters, digits, '-' and '_', at most 64.{remedy}"
    described = f" ({place.field.description.rstrip('.')})" if place.field and place.field.description else ""
    default = place.field.get_default() if place.field and not place.field.is_required() else None
    example = f", such as {default!r}" if default else ""
    return f"{said!r} does not fit{described}; expected the form {details['ctx']['pattern']}{example}."


_SENTENCES: dict[str, Callable[[ErrorDetails, Place, type[Section]], str]] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "literal_error": _unknown_value,
    "string_pattern_mismatch": _wrong_pattern,
}
