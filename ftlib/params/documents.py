"""YAML documents whose every key remembers its line, read as YAML 1.2 means it.

PyYAML follows YAML 1.1, in which ``no`` is false, ``5e-5`` is text, ``12:30`` is 750 and ``2024-01-01`` a
date. A label called ``no`` must stay a label and a learning rate a number, so scalars are read here by the
core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema). Duplicate keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftlib.errors import ParamsError

Trail = tuple[str | int, ...]
"""Keys and positions from the top of a document down to one value."""

MAX_VALUES = 20_000
"""More values than any params file holds; anchors that multiply each other would fill the memory."""

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"
_KNOWN_TAGS = {_PLAIN, *(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))}


@dataclass
class Document:
    """What a params file says, and where it says it.

    Attributes:
        label: What the user calls it: the path as given.
        value: Plain dicts, lists and scalars.
        marks: Trail -> where its key stands: "params/sst2.yaml:12", or the ``--set`` that gave it.
    """

    label: str
    value: Any
    marks: dict[Trail, str] = field(default_factory=dict)

    def where(self, trail: Trail) -> str:
        """Return where a value stands, or its nearest parent that stands anywhere."""
        for length in range(len(trail), 0, -1):
            if trail[:length] in self.marks:
                return self.marks[trail[:length]]
        return self.label

    def at(self, trail: Trail, default: Any = None) -> Any:
        """Return the value at a trail, or `default` where there is none."""
        value = self.value
        for key in trail:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def deepest(self, trail: Trail) -> Trail:
        """Return the longest beginning of a trail that the document holds."""
        nothing = object()
        return next(trail[:n] for n in range(len(trail), -1, -1) if self.at(trail[:n], nothing) is not nothing)


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ParamsError: If it is not there, not UTF-8 or not one YAML mapping; with line and column.
    """
    return parse_document(_text(path), str(path))


def parse_document(text: str, label: str) -> Document:
    """Read YAML text; `label` is what messages call it."""
    node = _compose(text, label)
    if node is None:
        raise ParamsError(f"{label}: is empty; expected an experiment. `ftlib schema` describes what one holds.")
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "one value"
        raise ParamsError(
            f"{label}:{node.start_mark.line + 1}: holds {found}; expected a mapping, one 'key: value' a line."
        )
    reader = _Reader(label)
    value = reader.value(node, ())
    if reader.problems:
        raise ParamsError(*reader.problems)
    return Document(label, value, reader.marks)


def parse_value(text: str, label: str) -> Any:
    """Return what a value typed on the command line means: a YAML scalar, ``[list]`` or ``{mapping}``."""
    if text[:1] not in ("[", "{", '"', "'"):
        return plain_scalar(text.strip())
    reader = _Reader("")
    try:
        node = _compose(text, "")
        value = reader.value(node, ()) if node else None
    except ParamsError as error:
        reader.problems += error.problems
    if reader.problems:
        raise ParamsError(*(f"{label}{re.sub(r'^:[0-9:]*', ':', line)}" for line in reader.problems))
    return value


def plain_scalar(text: str) -> Any:
    """Return what a scalar without quotes means in YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(_missing(path)) from None
    except IsADirectoryError:
        raise ParamsError(f"{path}: is a folder; expected a params file, such as {path}/quickstart.yaml.") from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise ParamsError(
            f"{path}:{line}:{column}: is not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start:,}). "
            "Save the file as UTF-8."
        ) from None


def _missing(path: Path) -> str:
    import difflib

    folder = path.parent if path.parent.is_dir() else Path()
    files = sorted(str(p) for pattern in ("*.yaml", "*.yml") for p in folder.glob(pattern))
    near = difflib.get_close_matches(str(path), files, n=2, cutoff=0.6)
    remedy = f" Did you mean {' or '.join(map(repr, near))}?" if near else " Give the path of a params file."
    return f"{path}: there is no such file.{remedy}"


def _compose(text: str, label: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, _Loader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = f"{before.count(chr(10)) + 1}:{len(before) - (before.rfind(chr(10)) + 1) + 1}"
        raise ParamsError(f"{label}:{at}: holds the control character {error.character:#04x}; remove it.") from None
    except yaml.MarkedYAMLError as error:
        raise ParamsError(_syntax(error, label)) from None
    except RecursionError:
        raise ParamsError(f"{label}: is nested too deeply to be an experiment.") from None


_SYNTAX = (
    (r"unknown escape character", "has an unknown \\ escape in double quotes; use single quotes."),
    (r"character '\\t'", "holds a tab; YAML is indented with spaces."),
    (r"character '(?P<c>.)' that cannot start", "has a text that begins with {c!r}; put it in quotes."),
    (r"mapping values are not allowed", "has a ':' where none can be; put a text with ': ' in quotes, or indent it."),
    (r"could not find expected ':'", "is not 'key: value'; a ':' and a space are missing here or on the line above."),
    (r"expected <block end>", "is indented unlike the lines above; keys of one section start in one column."),
    (r"expected ',' or '\]'", "opens a list with [ and does not close it; a ',' or ']' is missing."),
    (r"expected ',' or '\}'", "opens a mapping with {{ and does not close it; a ',' or '}}' is missing."),
    (r"expected the node content, but found '<stream end>'", "ends inside a list or mapping; a ] or }} is missing."),
    (r"expected the node content", "lacks a value here."),
    (r"unexpected end of stream", "opens a quote and never closes it."),
    (r"undefined alias '(?P<c>.*)'", "uses *{c}, but no &{c} comes before it."),
    (r"another document", "begins a second document; a params file holds one experiment."),
)  # fmt: skip
_OPENED = ("expected ',' or", "unexpected end of stream")  # told where it opens, not where the reader gave up


def _syntax(error: yaml.MarkedYAMLError, label: str) -> str:
    said = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    if error.context_mark and any(text in said for text in _OPENED):
        mark = error.context_mark
    at = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
    for pattern, sentence in _SYNTAX:
        match = re.search(pattern, said)
        if match:
            return f"{at}: {sentence.format(**match.groupdict())}"
    return f"{at}: is not YAML: {error.problem or error.context}."


class _Loader(yaml.SafeLoader):
    """Leaves scalars without quotes as they are, for `plain_scalar` to read."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _TAG + "merge" if value == "<<" else _PLAIN
        return str(super().resolve(kind, value, implicit))


class _Reader:
    """Turns nodes into plain values, and notes where each stands and what is wrong with it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.marks: dict[Trail, str] = {}
        self.problems: list[str] = []
        self.num_values = 0
        self.open: set[int] = set()  # nodes we are inside of: an anchor may hold itself

    def value(self, node: yaml.Node, trail: Trail) -> Any:
        self.num_values += 1
        if id(node) in self.open or self.num_values > MAX_VALUES:
            raise ParamsError(f"{self._at(node)}: anchors repeat each other without end; write the values out.")
        if node.tag not in _KNOWN_TAGS:
            self._problem(
                node, f"the tag {node.tag.removeprefix(_TAG)!r} is refused; a params file holds plain values."
            )
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, trail)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, (*trail, i)) for i, item in enumerate(node.value)]
            return node.value if node.tag == _TAG + "str" else plain_scalar(node.value)
        finally:
            self.open.discard(id(node))

    def _item(self, node: yaml.Node, trail: Trail) -> Any:
        self.marks[trail] = self._at(node)
        return self.value(node, trail)

    def _mapping(self, node: yaml.MappingNode, trail: Trail) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                for other in self._merged(value_node):
                    merged = {**self.value(other, trail), **merged}
                continue
            key = self._key(key_node)
            if key in own:
                self._problem(key_node, f"the key {key!r} is given twice in one section; keep one of the two.")
            self.marks[(*trail, key)] = self._at(key_node)
            own[key] = self.value(value_node, (*trail, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> Iterator[yaml.MappingNode]:
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(item, yaml.MappingNode):
                yield item
            else:
                self._problem(item, "<< takes a mapping, such as *defaults, or a list of them.")

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or (not node.style and node.value in ("", "~", "null")):
            self._problem(node, "a key must be a word.")
            return ""
        return str(node.value)

    def _problem(self, node: yaml.Node, sentence: str) -> None:
        self.problems.append(f"{self._at(node)}: {sentence}")

    def _at(self, node: yaml.Node) -> str:
        return f"{self.label}:{node.start_mark.line + 1}"
