"""The report's first lines: what won, by how much, how sure that is, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.report import words
from ftlib.report.models import Model, chosen, reference
from ftlib.report.story import Story


@dataclass(frozen=True)
class Figure:
    """One of the large figures: what it is, its value, and a line beneath."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The first lines.

    Attributes:
        eyebrow: Problem, labels and rows, in a few words each.
        winner: The chosen model.
        score: Its main metric on test, with the metric's name.
        sentences: The finding in words.
        figures: The large figures.
    """

    eyebrow: list[str]
    winner: str
    score: str
    sentences: list[str]
    figures: list[Figure]


def headline(story: Story, found: list[Model]) -> Headline:
    """Return the first lines of a story."""
    best, other = chosen(found), reference(found)
    value = words.number(best.value("test", story.metric))
    metric = words.metric_name(story.metric)
    fused = best.kind != "member"
    sentences = [_reached(story, best, value, metric, other if fused else None)]
    sentences += _compared(best, other) if fused and other else _unfused(story, best, found)
    return Headline(_eyebrow(story), best.name, f"{value} {metric}", sentences, _figures(story, best, other, found))


def _eyebrow(story: Story) -> list[str]:
    parts = [str(story.evaluation.get("problem", "")).replace("_", " ")]
    if story.labels:
        several = ", any number of them right" if story.target == "multi_label" else ""
        parts.append(words.counted(len(story.labels), "label") + several)
    rows = story.evaluation.get("rows", {}).get("test")
    if rows:
        parts.append(words.counted(rows, "test row"))
    return [p for p in parts if p]


def _reached(story: Story, best: Model, value: str, metric: str, other: Model | None) -> str:
    rows = story.evaluation.get("rows", {}).get("test")
    where = f"On {words.counted(rows, 'test row')}" if rows else "On test"
    text = f"{where}, looked at once, {best.name} reaches {metric} {value}"
    if best.interval:
        text += f" ({story.coverage} interval {words.interval(best.interval)})"
    if other is None or best.gain is None:
        return f"{text}."
    return f"{text}: {_above(best.gain)} the best single member, {other.name} ({words.number(other.value('test', story.metric))})."


def _above(gain: float) -> str:
    size = words.number(abs(gain))
    return "level with" if not float(size) else f"{size} {'better than' if gain > 0 else 'worse than'}"


def _compared(best: Model, other: Model) -> list[str]:
    sentences = []
    if best.p_member is not None:
        sentences.append(words.evidence(best.p_member, better=(best.gain or 0) > 0))
    if best.cost is not None:
        sentences.append(f"An answer costs {words.times(best.cost)} the computation of one by {other.name}.")
    return sentences


def _unfused(story: Story, best: Model, found: list[Model]) -> list[str]:
    fusions = [m for m in found if m.kind != "member"]
    if fusions:
        rival = fusions[0]
        text = f"No fusion did better on validation. The best of them, {rival.name}, comes to "
        text += f"{words.number(rival.value('test', story.metric))} on test"
        return [text + (f" at {words.times(rival.cost)} the cost." if rival.cost else ".")]
    rival_member = next((m for m in found if m is not best), None)
    if rival_member is None:
        return ["It is the only model of this experiment, so nothing was chosen and nothing fused."]
    value = words.number(rival_member.value("test", story.metric))
    return [f"Nothing was fused. Next on validation is {rival_member.name}, with {value} on test."]


def _figures(story: Story, best: Model, other: Model | None, found: list[Model]) -> list[Figure]:
    metric = words.sentence(words.metric_name(story.metric))
    note = f"{words.interval(best.interval)} ({story.coverage})" if best.interval else "on the test rows"
    figures = [Figure(f"{metric} on test", words.number(best.value("test", story.metric)), note)]
    rival = other if best.kind != "member" else None
    if rival is None:
        validation = best.value("validation", story.metric)
        figures.append(Figure(f"{metric} on validation", words.number(validation), "what the choice went by"))
        figures += _member_figures(best, found)
        return figures
    note = f"{words.signed(best.gain_interval[0])} to {words.signed(best.gain_interval[1])}" if best.gain_interval else "on test"
    figures.append(Figure(f"Gain over {rival.name}", words.signed(best.gain), note))
    if best.p_member is not None:
        figures.append(Figure("Evidence", f"p {words.p_value(best.p_member)}".replace("p <", "p < "), words.strength(best.p_member)))
    if best.cost is not None:
        figures.append(Figure("Inference cost", words.times(best.cost), f"of {rival.name}"))
    return figures


def _member_figures(best: Model, found: list[Model]) -> list[Figure]:
    figures = []
    if best.parameters:
        figures.append(Figure("Parameters", words.large(best.parameters), best.detail or "in the model"))
    rivals, fusions = (sum((m.kind == "member") is kind for m in found if m is not best) for kind in (True, False))
    if rivals or fusions:
        note = f"other {'member' if rivals == 1 else 'members'}" + (f" and {words.counted(fusions, 'fusion')}" if fusions else "")
        figures.append(Figure("Compared with", words.count(rivals), note))
    return figures
