"""The report's first lines: what won, by how much, how sure that is, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from ftlib.report import words
from ftlib.report.models import Model, chosen, reference
from ftlib.report.slices import falls_behind
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
        verb: What it does: it wins, or reaches its score alone.
        score: Its main metric on test, with the metric's name.
        sentences: The finding in words.
        figures: The large figures.
    """

    eyebrow: list[str]
    winner: str
    verb: str
    score: str
    sentences: list[Markup]
    figures: list[Figure]


def headline(story: Story, found: list[Model]) -> Headline:
    """Return the first lines of a story."""
    best, other = chosen(found), reference(found)
    score = f"{words.number(best.value('test', story.metric))} {words.metric_name(story.metric)}"
    fused = best.kind != "member"
    sentences = [_reached(story, best, other if fused else None)]
    sentences += _compared(best, other) if fused and other else _unfused(story, best, found)
    sentences += _behind(story)
    verb = "wins with" if len(found) > 1 else "reaches"
    return Headline(_eyebrow(story), best.name, verb, score, sentences, _figures(story, best, other, found))


def _eyebrow(story: Story) -> list[str]:
    parts = [str(story.evaluation.get("problem", "")).replace("_", " ")]
    if story.labels:
        several = ", any number a row" if story.target == "multi_label" else ""
        parts.append(words.counted(len(_kinds(story)), "type" if story.target == "tags" else "label") + several)
    if rows := _test_rows(story):
        parts.append(rows)
    return [p for p in parts if p]


def _kinds(story: Story) -> list[str]:
    """Return the labels; of tags in BIO the types of spans."""
    if story.target != "tags" or not any(label.startswith("B-") for label in story.labels):
        return story.labels
    return list(dict.fromkeys(label[2:] for label in story.labels if label != "O"))


def _test_rows(story: Story) -> str:
    rows = (story.evaluation.get("rows") or {}).get("test")
    return words.counted(rows, "test row") if rows else ""


def _reached(story: Story, best: Model, other: Model | None) -> Markup:
    value, metric = words.number(best.value("test", story.metric)), words.metric_name(story.metric)
    where = f"On {_test_rows(story) or 'the test rows'}, looked at once,"
    text = Markup("{} {} reaches {} {}").format(where, _name(best), metric, value)
    if best.interval:
        text += f" ({story.coverage} interval {words.interval(best.interval)})"
    if other is None or best.gain is None:
        return text + "."
    rival = words.number(other.value("test", story.metric))
    return text + Markup(": {} the best single member, {} ({}).").format(_above(best.gain), _name(other), rival)


def _name(model: Model) -> Markup:
    """Return a model's name, kept apart from the sentence's own direction of writing."""
    return Markup("<bdi>{}</bdi>").format(model.name)


def _above(gain: float) -> str:
    size = words.number(abs(gain))
    return f"{size} {'better than' if gain > 0 else 'worse than'}" if float(size) else "level with"


def _compared(best: Model, other: Model) -> list[Markup]:
    sentences = []
    if best.p_member is not None:
        sentences.append(escape(words.evidence(best.p_member, better=(best.gain or 0) > 0)))
    if best.cost is not None:
        sentences.append(
            Markup("An answer costs {} the computation of one by {}.").format(words.times(best.cost), _name(other))
        )
    return sentences


def _unfused(story: Story, best: Model, found: list[Model]) -> list[Markup]:
    fusion = _best_fusion(story, found)
    if fusion:
        value, cost = words.number(fusion.value("test", story.metric)), words.times(fusion.cost)
        text = Markup("Validation preferred it to every fusion. The best of them, {}, comes to {} on test").format(
            _name(fusion), value
        )
        return [text + (f" at {cost} the cost." if fusion.cost else ".")]
    rival = next((m for m in found if m is not best), None)
    if rival is None:
        return [Markup("It is the only model of this experiment: nothing was chosen and nothing fused.")]
    value = words.number(rival.value("test", story.metric))
    return [Markup("Nothing was fused. Next on validation is {}, with {} on test.").format(_name(rival), value)]


def _behind(story: Story) -> list[Markup]:
    """Say on which part of the rows the model is furthest behind, where that is more than luck."""
    worst = min(falls_behind(story), key=lambda entry: entry["gap"], default=None)
    if worst is None:
        return []
    figures = words.number(worst["metric"]), words.number(worst["rest"])
    where = Markup("Where {} is <bdi>{}</bdi>").format(worst["column"].replace("_", " "), worst["value"])
    return [where + " it falls behind: {} against {} elsewhere.".format(*figures)]


def _best_fusion(story: Story, found: list[Model]) -> Model | None:
    fusions = [m for m in found if m.kind != "member"]
    named = [m for m in fusions if m.name == story.evaluation.get("best_fusion")]
    return next(iter([*named, *fusions]), None)


def _figures(story: Story, best: Model, other: Model | None, found: list[Model]) -> list[Figure]:
    metric = words.sentence(words.metric_name(story.metric))
    note = f"{words.interval(best.interval)} ({story.coverage})" if best.interval else "on the test rows"
    figures = [Figure(f"{metric} on test", words.number(best.value("test", story.metric)), note)]
    rival = other if best.kind != "member" else None
    if rival is None:
        validation = best.value("validation", story.metric)
        figures.append(
            Figure(
                f"{metric} on validation",
                words.number(validation),
                "what the choice went by" if len(found) > 1 else "on the validation rows",
            )
        )
        figures += _member_figures(best, found)
        return figures
    note = (
        f"{words.signed(best.gain_interval[0])} to {words.signed(best.gain_interval[1])}"
        if best.gain_interval
        else "on test"
    )
    figures.append(Figure(f"Gain over {rival.name}", words.signed(best.gain), note))
    if best.p_member is not None:
        figures.append(Figure("Evidence", words.p_phrase(best.p_member), words.strength(best.p_member)))
    if best.cost is not None:
        figures.append(Figure("Inference cost", words.times(best.cost), f"of {rival.name}"))
    return figures


def _member_figures(best: Model, found: list[Model]) -> list[Figure]:
    figures = []
    if best.parameters:
        figures.append(Figure("Parameters", words.large(best.parameters), best.detail or "in the model"))
    rivals, fusions = (sum((m.kind == "member") is kind for m in found if m is not best) for kind in (True, False))
    if rivals or fusions:
        note = f"other {'member' if rivals == 1 else 'members'}" + (
            f" and {words.counted(fusions, 'fusion')}" if fusions else ""
        )
        figures.append(Figure("Compared with", words.count(rivals), note))
    return figures
