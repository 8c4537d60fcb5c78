"""Sections and plugins: the frozen values that params files are made of.

The folder is the registry: ``strategy: {name: lora}`` imports ``ftlib/strategies/lora.py`` and builds
the one Strategy in it. Adding a strategy, problem, fusion or source is adding a file. Packages
installed beside ftlib add more through entry points (group ``ftlib.strategies`` and so on: entry
point name = plugin name, value = the module that holds it).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    computed_field,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from ftlib.errors import ParamsError, unknown


class Section(BaseModel):
    """A group of parameters: frozen, strict, and closed to unknown keys.

    `polymorphic_serialization` keeps the fields of a subclass held in a field typed as its base; without
    it ``lora r=4`` and ``lora r=8`` would dump alike and share a cache key.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        polymorphic_serialization=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        """Take the lists that YAML and JSON give for the tuples that a frozen value holds."""
        if not isinstance(value, dict):
            return value
        return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


class Plugin(Section):
    """A value found by its file's name: constructible with no arguments, defaults from its source.

    One inheritance level: a base (``ftlib/strategies/base.py``), and one plugin a file beside it.
    """

    kind: ClassVar[str] = "plugin"
    """What a user calls this family, in the singular: 'strategy', 'problem', 'fusion', 'source'."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version shapes its result, beside those of the steps that use it."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """The plugin's name: its module's file name."""
        return type(self).__module__.rpartition(".")[2]

    @classmethod
    def base(cls) -> type[Plugin]:
        """Return the family's base class: the direct child of Plugin."""
        return next(c for c in cls.__mro__ if Plugin in c.__bases__)

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """Return the names of the family's plugins, without importing them."""
        return tuple(sorted(_modules(cls.base())))

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """Return the plugin class called `name`.

        Raises:
            ParamsError: If there is none; the message holds the near names.
        """
        modules = _modules(cls.base())
        if name not in modules:
            raise ParamsError(unknown(cls.kind, name, modules, remedy=f"`ftlib list {plural(cls.kind)}` names all."))
        module = importlib.import_module(modules[name])
        plugins = [
            c
            for c in vars(module).values()
            if inspect.isclass(c) and issubclass(c, cls.base()) and c.__module__ == module.__name__
        ]
        if len(plugins) != 1:
            raise TypeError(f"{module.__name__} must hold one {cls.base().__name__}; it holds {len(plugins)}.")
        return plugins[0]  # type: ignore[return-value]

    @classmethod
    def from_string(cls, text: str) -> dict[str, Any]:
        """Return the fields that a string alone stands for in a params file: ``strategy: lora``."""
        return {"name": text}

    @classmethod
    def card(cls) -> str:
        """Return the plugin's card: its module's docstring."""
        return inspect.cleandoc(inspect.getmodule(cls).__doc__ or "")  # type: ignore[union-attr]

    @model_validator(mode="wrap")
    @classmethod
    def _choose_by_name(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str):
            value = cls.from_string(value)
        if not isinstance(value, dict):
            return handler(value)
        if "name" not in value:
            if cls is not cls.base():
                return handler(value)
            raise PydanticCustomError("plugin_name_missing", "needs a name; expected one of: {names}.",
                                      {"names": ", ".join(cls.available())})  # fmt: skip
        fields = {k: v for k, v in value.items() if k != "name"}
        if not isinstance(value["name"], str):
            raise PydanticCustomError("plugin_name_invalid", "is not a name; expected one of: {names}.",
                                      {"names": ", ".join(cls.available())})  # fmt: skip
        try:
            chosen = cls.named(value["name"])
        except ParamsError as error:
            raise PydanticCustomError("plugin_unknown", "{line}", {"line": str(error)}) from None
        if cls is not cls.base() and chosen is not cls:
            raise PydanticCustomError("plugin_other", "is not a {name}", {"name": cls.__name__})
        return handler(fields) if chosen is cls else chosen.model_validate(fields)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe a field typed as the base as any of its plugins, so that editors complete them."""
        if cls is not cls.base():
            return cls._with_name(handler.resolve_ref_schema(handler(schema)))
        plugins = [cls.named(name) for name in cls.available()]
        described = [p._with_name(handler.resolve_ref_schema(handler(p.__pydantic_core_schema__))) for p in plugins]
        return {"title": cls.__name__, "anyOf": [cls._short_form(), *described]}

    @classmethod
    def _with_name(cls, described: dict[str, Any]) -> dict[str, Any]:
        """Return a plugin's JSON schema with the name that chooses it, first."""
        name = cls.__module__.rpartition(".")[2]
        first = {"name": {"const": name, "description": cls.card().partition("\n")[0]}}
        described["properties"] = {**first, **described.get("properties", {})}
        described["required"] = list(dict.fromkeys(["name", *described.get("required", [])]))
        described["title"] = name
        return described

    @classmethod
    def _short_form(cls) -> dict[str, Any]:
        """Return the JSON schema of the string that may stand for a plugin: its name, unless the family reads more."""
        if cls.from_string.__func__ is Plugin.from_string.__func__:  # type: ignore[attr-defined]
            return {"type": "string", "enum": list(cls.available())}
        return {"type": "string"}


def plural(kind: str) -> str:
    """Return the plural of a family's name, as `ftlib list` spells it."""
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"


def plugins_in(value: Any) -> Iterator[Plugin]:
    """Yield every plugin held anywhere in a value of sections, sequences and mappings."""
    if isinstance(value, Plugin):
        yield value
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from plugins_in(getattr(value, field))
    elif isinstance(value, dict):
        for item in value.values():
            yield from plugins_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from plugins_in(item)


@cache
def _modules(base: type[Plugin]) -> dict[str, str]:
    package = importlib.import_module(base.__module__.rpartition(".")[0])
    folder = {
        m.name: f"{package.__name__}.{m.name}"
        for m in pkgutil.iter_modules(package.__path__)
        if m.name != "base" and not m.name.startswith("_") and re.fullmatch(r"[a-z][a-z0-9_]*", m.name)
    }
    return {**{e.name: e.value for e in entry_points(group=package.__name__)}, **folder}
