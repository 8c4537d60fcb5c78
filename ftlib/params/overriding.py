"""``--set path=value``: change one value of a params document, typed, with near names for wrong paths."""

from __future__ import annotations

import typing
from typing import Any

from ftlib.errors import ParamsError, unknown
from ftlib.params.documents import Document, Trail, parse_value
from ftlib.params.explaining import unknown_key
from ftlib.params.shapes import keys_of, locate, plugin_fields, section_of, unwrap
from ftlib.plugins import Plugin, Section


def override(document: Document, change: str, root: type[Section]) -> Trail:
    """Apply one change to the document: ``stages.0.strategy.r=16``, ``stages.full.training.learning_rate=1e-4``.

    Items of a list are found by position or by their name. Sections that the file leaves out are created; a
    plugin that the file gives by its name alone is spelt out first.

    Returns:
        Where the value stands.

    Raises:
        ParamsError: If the path leads nowhere (with near names) or the value is not YAML.
    """
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise ParamsError(f"--set {change}: expected path=value, such as --set stages.0.training.learning_rate=1e-4.")
    setter = _Setter(document, f"--set {change}", root)
    return setter.set(path.strip().split("."), text)


class _Setter:
    def __init__(self, document: Document, label: str, root: type[Section]) -> None:
        self.document = document
        self.label = label
        self.root = root

    def set(self, keys: list[str], text: str) -> Trail:
        trail: Trail = ()
        container = self.document.value
        for i, key in enumerate(keys[:-1]):
            step = self._step(trail, container, key, keys[i + 1 :])
            container = self._open(container, (*trail, step))
            trail = (*trail, step)
        last = self._step(trail, container, keys[-1], [])
        trail = (*trail, last)
        container[last] = self._value(trail, text)
        for marked in [m for m in self.document.marks if m[: len(trail)] == trail]:
            del self.document.marks[marked]
        self.document.marks[trail] = self.label
        return trail

    def _step(self, trail: Trail, container: Any, key: str, rest: list[str]) -> str | int:
        """Return the key or position that `key` means inside `container`, or say what it could have been."""
        if isinstance(container, list):
            return self._position(trail, container, key)
        place = locate(self.root, trail, self.document.value) if trail else None
        annotation = place.annotation if place else self.root
        section = section_of(annotation, container)
        if section is not None and key not in keys_of(section):
            raise ParamsError(f"{self.label}: {unknown_key(section, key)}")
        if section is None and typing.get_origin(unwrap(annotation)[0]) is not dict:
            above = ".".join(map(str, trail))
            raise ParamsError(f"{self.label}: {above} holds one value, so {'.'.join([key, *rest])!r} leads nowhere.")
        return self._named_key(annotation, key)

    def _named_key(self, annotation: Any, key: str) -> str:
        """Check a mapping's key where only some are allowed, such as the splits."""
        bare = unwrap(annotation)[0]
        if typing.get_origin(bare) is dict:
            allowed = typing.get_args(typing.get_args(bare)[0])
            if allowed and key not in allowed:
                raise ParamsError(f"{self.label}: {unknown('key', key, allowed)}")
        return key

    def _position(self, trail: Trail, items: list[Any], key: str) -> int:
        names = [item.get("name") if isinstance(item, dict) else item for item in items]
        if key in names:
            return names.index(key)
        if key.isdigit() and int(key) < len(items):
            return int(key)
        held = ".".join(map(str, trail))
        if key.lstrip("-").isdigit():
            raise ParamsError(f"{self.label}: {held} has {len(items)} items, counted from 0.")
        raise ParamsError(f"{self.label}: {unknown(f'item of {held}', key, [str(n) for n in names if n])}")

    def _open(self, container: Any, trail: Trail) -> Any:
        """Return the mapping or list at a trail, made or spelt out where the file has none yet."""
        key = trail[-1]
        held = container.get(key) if isinstance(container, dict) else container[key]
        if isinstance(held, (dict, list)):
            return held
        place = locate(self.root, trail, self.document.value)
        wanted = unwrap(place.annotation)[0]
        if isinstance(wanted, type) and issubclass(wanted, Plugin):
            held = {**plugin_fields(wanted, held)}
        elif isinstance(wanted, type) and issubclass(wanted, Section):
            held = {"name": held, "method": held} if isinstance(held, str) else {}
        elif typing.get_origin(wanted) is dict:
            held = {}
        elif typing.get_origin(wanted) is tuple:
            held = []
        else:
            raise ParamsError(f"{self.label}: {'.'.join(map(str, trail))} holds one value, not a section.")
        container[key] = held
        return held

    def _value(self, trail: Trail, text: str) -> Any:
        """Read the value; where only text can stand, digits stay text."""
        value = parse_value(text, self.label)
        place = locate(self.root, trail, self.document.value)
        if unwrap(place.annotation)[0] is str and isinstance(value, (int, float)):
            return text.strip()
        return value
