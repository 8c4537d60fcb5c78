"""Sections on what the results rest on: the data's way from read to kept, encoding, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ftlib.report import curves, diagnostics, words
from ftlib.report.models import Model, parameters
from ftlib.report.story import Story

WIDTHS = (860.0, 372.0)
"""Pixels of a chart on a desktop and on a phone."""
SPLITS = ("train", "fusion", "validation", "test")

Section = dict[str, Any]


# -- data ------------------------------------------------------------------------------------------------


def funnel(story: Story) -> Section | None:
    """Return the rows' way as a staircase: read, rejected by reason, kept, left out as leaks, in each split."""
    cleaning, rows = story.cleaning, story.splits.get("rows") or {}
    read = cleaning.get("read") or sum((story.collected.get("rows") or {}).values())
    if not read:
        return None
    rejected = sorted((cleaning.get("rejected") or {}).items(), key=lambda item: (-item[1], item[0]))
    kept = cleaning.get("kept", read - sum(n for _, n in rejected))
    steps = [_step("read", "Read", 0, read, read, _by_split(story))]
    edge = read
    for reason, number in rejected:
        edge -= number
        steps.append(_step("lost", reason.replace("_", " "), edge, number, read))
    if rejected:
        steps.append(_step("kept", "Kept by cleaning", 0, kept, read))
    steps += _split_steps(story, kept, read, rows)
    repaired = [(k.replace("_", " "), n) for k, n in (cleaning.get("repaired") or {}).items() if n]
    return {
        "steps": steps,
        "read": read,
        "used": sum(rows.values()) or kept,
        "rejected": read - kept,
        "repaired": repaired,
        "labels": _label_table(story),
    }


def _split_steps(story: Story, kept: int, read: int, rows: Mapping[str, int]) -> list[Section]:
    if not rows:
        return []
    left_out = kept - sum(rows.values())
    steps = []
    if left_out > 0:
        steps.append(
            _step("lost", "left out: also in another split", sum(rows.values()), left_out, read, _leaks(story))
        )
    edge = 0
    for name in _ordered(rows):
        steps.append(_step("split", words.sentence(name), edge, rows[name], read))
        edge += rows[name]
    return steps


def _step(kind: str, name: str, start: float, number: int, read: int, note: str = "") -> Section:
    share = number / read
    place = {"left": round(start / read * 100, 3), "width": round(share * 100, 3)}
    return {"kind": kind, "name": name, "number": number, "share": share, "note": note, **place}


def _by_split(story: Story) -> str:
    rows = story.collected.get("rows") or {}
    return " · ".join(f"{name} {words.count(rows[name])}" for name in _ordered(rows)) if len(rows) > 1 else ""


def _leaks(story: Story) -> str:
    leaks = story.splits.get("leaks") or {}
    return " · ".join(
        f"{k.replace('_', ' ')} {words.count(v)}" for k, v in leaks.items() if isinstance(v, (int, float)) and v
    )


def _ordered(names: Mapping[str, Any]) -> list[str]:
    return [*(s for s in SPLITS if s in names), *sorted(n for n in names if n not in SPLITS)]


def _label_table(story: Story) -> Section | None:
    """Return how often each label occurs in each split, in file order or, where they are many, by frequency."""
    counts = {split: by for split, by in (story.splits.get("labels") or {}).items() if by}
    if not counts:
        return None
    splits = _ordered(counts)
    words_of = {split: sum(counts[split].values()) for split in splits}
    rows_of = {} if story.target == "tags" else story.splits.get("rows") or {}
    totals = {split: rows_of.get(split) or words_of[split] for split in splits}
    labels = list(dict.fromkeys([*story.labels, *(label for by in counts.values() for label in by)]))
    if len(labels) > 12:
        labels.sort(key=lambda label: (-counts[splits[0]].get(label, 0), label))
    rows = [
        (label, [(counts[s].get(label, 0), counts[s].get(label, 0) / max(totals[s], 1)) for s in splits])
        for label in labels
    ]
    rare = sorted((story.splits.get("only_in_train") or {}).items())
    most = max((share for _, cells in rows for _, share in cells), default=0) or 1
    kinds = {"multi": story.target == "multi_label", "words": story.target == "tags"}
    return {"splits": splits, "rows": rows, "most": most, "rare": rare, **kinds}


def encoding(story: Story) -> Section | None:
    """Return how long rows are in tokens, and what was cut."""
    splits = [s for s in _ordered(story.encoding) if story.encoding[s].get("rows")]
    if not splits:
        return None
    rows = [{"split": s, **story.encoding[s], "length": story.encoding[s].get("length") or {}} for s in splits]
    longest = max((r["length"].get("max", 0) for r in rows), default=0) or 1
    for row in rows:
        row["at"] = {k: round(v / longest * 100, 2) for k, v in row["length"].items() if isinstance(v, (int, float))}
    return {
        "rows": rows,
        "longest": longest,
        "chart": _lengths(rows[0]),
        "first": rows[0],
        "tokens": sum(r.get("tokens", 0) for r in rows),
    }


def _lengths(row: Mapping[str, Any]) -> list[Markup]:
    """Return the histogram of lengths for both widths, where encoding counted one."""
    counted = row["length"].get("histogram")
    if not counted:
        return []
    return [diagnostics.lengths(counted["edges"], counted["counts"], width=width) for width in WIDTHS]


# -- how it was made -------------------------------------------------------------------------------------


def made(story: Story, found: list[Model]) -> Section:
    """Return the parameters of members and fusions, seeds and rows."""
    by_name = {m.name: m for m in found}
    members = [_made_member(card, story, by_name.get(card["name"])) for card in story.members]
    fusions = [
        (
            str(f["name"]),
            str((f.get("method") or {}).get("name", f["name"])),
            parameters(f.get("method") or {}),
            f.get("members_used") or [],
        )
        for f in story.evaluation.get("fusions") or ()
    ]
    facts = parameters(story.settings)
    problem = [("problem", str(story.evaluation.get("problem", "")))] if story.evaluation.get("problem") else []
    rows = [(f"{s} rows", words.count(n)) for s, n in (story.splits.get("rows") or {}).items()]
    stratified = story.splits.get("stratified")
    rows += [] if stratified is None else [("stratified", "yes" if stratified else "no")]
    return {
        "members": members,
        "fusions": fusions,
        "facts": [*problem, ("chosen by", f"validation {words.metric_name(story.metric)}"), *facts, *rows],
    }


def _made_member(card: Mapping[str, Any], story: Story, model: Model | None) -> Section:
    strategy = card.get("strategy", "")
    own = parameters(strategy) if isinstance(strategy, Mapping) else []
    higher = story.evaluation.get("higher_is_better", True)
    history = story.histories.get(card["name"], [])
    course = curves.course(card["name"], history, story.metric, higher_is_better=higher)
    epochs = max((row.get("epoch") or 0 for row in history), default=None)
    return {
        "name": card["name"],
        "strategy": str(strategy.get("name", "")) if isinstance(strategy, Mapping) else str(strategy),
        "start": card.get("start_from", "base"),
        "parameters": [*own, *parameters(card, leave_out=("name", "strategy", "start_from"))],
        "size": model.parameters if model else None,
        "steps": course.steps if course else None,
        "best_step": course.best[0] if course and course.best else None,
        "epochs": epochs,
    }
