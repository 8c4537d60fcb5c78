"""The section on the worst errors: what was read, what would have been right, what was said, and on what it rests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ftlib.report import heat, spans, words
from ftlib.report.models import Model, chosen
from ftlib.report.story import Story
from ftlib.report.thumbnails import thumbnail

MEMBER, RIGHT = "member:", "right:"
OWN_COLUMNS = frozenset({"row_id", "gold", "predicted", "confidence"})
MOST_CHARACTERS = 1500
"""A text shown in full has at most so many; the row's id finds the rest."""
CLIPPED = 180
"""A longer text is shown by its beginning and opens on demand."""
COLOURED = 600
"""A longer text whose words are coloured opens on demand."""

BESIDE = frozenset({"single_label", "multi_label", "value", "choice"})
"""Targets whose answers are short and stand in columns of their own; others stand below what was read."""

WORST = {
    "value": "furthest off",
    "texts": "furthest from the gold text",
    "likelihood": "most surprised",
    "tags": "wrong and least likely to find what is right",
}
NEVER_RIGHT = frozenset({"texts", "likelihood"})
"""Targets whose answers are better or worse, rather than right or wrong."""

Section = dict[str, Any]


def worst_errors(story: Story, found: list[Model]) -> Section | None:
    """Return the worst test errors of the best model, with what each member said."""
    if story.errors is None or not story.errors.num_rows:
        return None
    columns = story.errors.column_names
    members = [c.removeprefix(MEMBER) for c in columns if c.startswith(MEMBER)]
    members = members if members != [chosen(found).name] else []
    texts = [c for c in columns if c not in OWN_COLUMNS and not c.startswith((MEMBER, RIGHT))]
    beside = story.target in BESIDE
    shown = _Shown(story, texts, members, beside)
    return {
        "name": chosen(found).name,
        "members": members,
        "texts": [t.replace("_", " ") for t in texts],
        "beside": beside,
        "marked": story.target not in NEVER_RIGHT,
        "value": story.target == "value",
        "worst": WORST.get(story.target, "wrong and most sure of it"),
        "explained": bool(story.explanations),
        "rows": [shown.error(row) for row in story.errors.to_pylist()],
    }


class _Shown:
    """How the errors of one story are shown."""

    def __init__(self, story: Story, texts: list[str], members: list[str], beside: bool) -> None:
        self.target, self.texts, self.members, self.beside = story.target, texts, members, beside
        self.explanations: dict[int, list[Mapping[str, Any]]] = {}
        for one in story.explanations:
            self.explanations.setdefault(one["row_id"], []).append(one)

    def error(self, row: Mapping[str, Any]) -> Section:
        """Return one error."""
        gold, predicted = row.get("gold"), row["predicted"]
        missed = abs(predicted - gold) if self.target == "value" else None
        return {
            "id": row.get("row_id"),
            "blocks": [*self._read(row), *self._below(row), *self._why(row)],
            "gold": answer(gold),
            "predicted": answer(predicted),
            "confidence": None if self.target == "value" else row.get("confidence"),
            "off": None if missed is None else predicted - gold,
            "members": [
                (name, self._said(row, row[MEMBER + name]), self._is_right(row, name, missed)) for name in self.members
            ],
        }

    def _read(self, row: Mapping[str, Any]) -> list[Section]:
        """Return the input: each of its columns, the words coloured that an answer rests on."""
        why = self.explanations.get(row.get("row_id"), [])[:1]  # type: ignore[arg-type]
        blocks = []
        for name in self.texts:
            title = name.replace("_", " ") if len(self.texts) > 1 or not self.beside else ""
            coloured = [_coloured(title if part == name else part, one, part) for one in why for part in _of(one, name)]
            if isinstance(row[name], bytes):
                blocks.append(_block(title, thumbnail(row[name])))
            elif self.target == "span" and isinstance(row[name], str):
                golds = (row.get("gold") or "").split(" | ")
                head, whole = spans.in_context(row[name], golds, row["predicted"])
                if not coloured or "<mark" in head:
                    blocks.append(_block(title, head, whole))
            elif not coloured and not (self.target == "tags" and self._is_tagged(row, row[name])):
                blocks.append(_block(title, *clipped(as_text(row[name]))))
            blocks += coloured
        return blocks

    def _below(self, row: Mapping[str, Any]) -> list[Section]:
        """Return the answers that have no columns of their own: gold and predicted."""
        if self.beside:
            return []
        if self.target == "tags" and (tagged := self._tagged(row)) is not None:
            return [
                _block("gold", spans.tagged(tagged, row["gold"], row["predicted"], "right")),
                _block("predicted", spans.tagged(tagged, row["predicted"], row["gold"], "wrong")),
            ]
        told = [] if self.target == "likelihood" else [_block("gold", *clipped(answer(row.get("gold"))))]
        return [*told, _block("predicted", *clipped(answer(row["predicted"])), kind="wrong")]

    def _why(self, row: Mapping[str, Any]) -> list[Section]:
        """Return the scores that are explained, and texts that the model read otherwise than they are given."""
        found = self.explanations.get(row.get("row_id"), [])  # type: ignore[arg-type]
        shown = {part for one in found[:1] for name in self.texts for part in _of(one, name)}
        blocks = [_coloured(name, one, name) for one in found[:1] for name in one["texts"] if name not in shown]
        return [*blocks, _block("", "; ".join(map(_note, found)), kind="why")] if found else blocks

    def _tagged(self, row: Mapping[str, Any]) -> list[str] | None:
        """Return the words that the row's tags are of."""
        return next((w for name in self.texts if (w := self._is_tagged(row, row[name]))), None)

    def _is_tagged(self, row: Mapping[str, Any], value: Any) -> list[str] | None:
        given = value if isinstance(value, list) else str(value or "").split()
        return given if given and len(given) == len(row.get("gold") or ()) else None

    def _said(self, row: Mapping[str, Any], given: Any) -> str:
        if self.target == "tags" and given is not None and (tagged := self._tagged(row)) is not None:
            return spans.listed(tagged, given)
        return clipped(answer(given))[0]

    def _is_right(self, row: Mapping[str, Any], name: str, missed: float | None) -> bool:
        """Return whether a member was right; of a value, whether it is less than half as far off as the best one."""
        given, gold = row[MEMBER + name], row.get("gold")
        if given is None:
            return False
        if missed is not None:
            return bool(abs(given - gold) <= missed / 2)
        if RIGHT + name in row:
            return bool(row[RIGHT + name])
        return set(given) == set(gold or ()) if isinstance(given, list) else bool(given == gold)


# -- values as text --------------------------------------------------------------------------------------


def answer(value: Any) -> str:
    """Return an answer as text: a label, labels, or a number."""
    if value is None:
        return words.NONE
    if value == "":
        return "nothing"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "no label"
    return words.number(value, 2) if isinstance(value, float) else str(value)


def as_text(value: Any) -> str:
    """Return a value of the input as text: lists item by item, messages with who said them, files by their size."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"a file of {words.large(len(value))}B"
    if isinstance(value, (list, tuple)):
        messages = all(isinstance(item, Mapping) and "content" in item for item in value)
        if value and messages:
            return "\n".join(f"{item.get('role', '')}: {item['content']}" for item in value)
        return " · ".join(map(as_text, value))
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, Mapping) else str(value)


def clipped(text: str) -> tuple[str, str]:
    """Return the text's beginning, and the whole where that is more."""
    whole = text
    if len(whole) > MOST_CHARACTERS:
        whole = f"{whole[:MOST_CHARACTERS]}… ({words.count(len(whole) - MOST_CHARACTERS)} more characters)"
    return (f"{_head(whole)}…", whole) if len(whole) > CLIPPED else (whole, "")


def _head(text: str) -> str:
    return text[:CLIPPED].rsplit(" ", 1)[0] if " " in text[CLIPPED // 2 : CLIPPED] else text[:CLIPPED]


def _block(name: str, head: str | Markup, whole: str | Markup = "", kind: str = "") -> Section:
    return {"name": name, "head": head, "whole": whole, "kind": kind}


def _of(one: Mapping[str, Any], column: str) -> list[str]:
    """Return the explained texts that a column holds: itself, or its parts."""
    return [name for name in one["texts"] if name == column or name.startswith(f"{column} ")]


def _note(one: Mapping[str, Any]) -> str:
    """Return in words which score is explained, and the same score of an empty input."""
    scale, without = one.get("scale", "probability"), f"without {one.get('content', 'words')}"
    if scale == "value":
        return f"{without} {words.number(one['baseline'], 2)}"
    kind = " log-probability" if scale == "log_probability" else ""
    return f"{one['explained']}{kind} {words.number(one['score'])}, {without} {words.number(one['baseline'])}"


def _coloured(title: str, one: Mapping[str, Any], column: str) -> Section:
    """Return a text with the words coloured that an answer rests on; a long one opens on demand."""
    text, weighed = one["texts"][column], list(_weighed(one["words"], column))
    most = heat.strongest(value for _, _, _, value in one["words"])
    shown = text[:MOST_CHARACTERS]
    coloured = heat.heated(shown, [w for w in weighed if w[1] <= len(shown)], most)
    if len(shown) < len(text):
        coloured += escape(f"… ({words.count(len(text) - len(shown))} more characters)")
    coloured = coloured.replace("\n", Markup("<br>"))
    return _block(title, coloured) if len(text) <= COLOURED else _block(title, f"{_head(text)}…", coloured)


def _weighed(given: Iterable[Sequence[Any]], column: str) -> Iterable[heat.Weighed]:
    return ((start, end, value) for name, start, end, value in given if name == column)
