"""Sections on results: leaderboard, gain against cost, learning curves, where the best model errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftlib.report import comparison, curves, diagnostics, matrices, words
from ftlib.report.models import Model, chosen, reference
from ftlib.report.palette import shade
from ftlib.report.story import Story

WIDE, NARROW = 860.0, 372.0
"""Pixels of a chart on a desktop and on a phone."""

Section = dict[str, Any]

ONE_ANSWER = "counts as one answer. "
NO_FIGURES = {"support": None, "precision": None, "recall": None, "f1": None}


def leaderboard(story: Story, found: list[Model]) -> Section:
    """Return every model with its figures, and where its dot and whiskers lie."""
    tests = [m.value("test", story.metric) for m in found]
    ends = [end for m in found for end in m.interval or ()]
    scale = comparison.whiskers([v for v in [*tests, *ends] if v is not None])
    best = reference(found)
    line = best.value("test", story.metric) if best and len(found) > 1 else None
    return {
        "ticks": scale.ticks,
        "line": None if line is None else scale.at(line),
        "reference": best.name if best else "",
        "metric": words.metric_name(story.metric),
        "coverage": story.coverage,
        "leader": _passed_over(story, found),
        "higher": story.evaluation.get("higher_is_better", True),
        "gained": any(m.gain is not None for m in found),
        "fused": any(m.kind != "member" for m in found),
        "baseline": next((m.name for m in found if m.kind == "baseline"), ""),
        "tested": any(m.p_member is not None for m in found),
        "tested_greedy": any(m.p_greedy is not None for m in found),
        "costed": any(m.cost is not None for m in found),
        "rows": [_leaderboard_row(m, story, scale) for m in found],
    }


def _passed_over(story: Story, found: list[Model]) -> str:
    """Return who was ahead of the chosen model on validation, by too little to count."""
    sign = 1 if story.evaluation.get("higher_is_better", True) else -1
    values = [(sign * v, m) for m in found if (v := m.value("validation", story.metric)) is not None]
    first = max(values, key=lambda pair: pair[0], default=None)
    own = chosen(found).value("validation", story.metric)
    return first[1].name if first and own is not None and first[0] > sign * own else ""


def _leaderboard_row(model: Model, story: Story, scale: comparison.Whiskers) -> Section:
    test = model.value("test", story.metric)
    return {
        "model": model,
        "validation": model.value("validation", story.metric),
        "test": test,
        "at": None if test is None else scale.at(test),
        "bounds": [scale.at(end) for end in model.interval] if model.interval else None,
    }


def all_metrics(story: Story, found: list[Model]) -> Section | None:
    """Return every metric on test; the best of each column is marked."""
    names = list(dict.fromkeys(name for m in found for name in m.metrics.get("test", {})))
    if len(names) < 2:
        return None
    names.sort(key=lambda n: (n != story.metric, n in words.LOWER_IS_BETTER))
    best = {}
    for name in names:
        values = [v for m in found if (v := m.value("test", name)) is not None]
        best[name] = min(values) if name in words.LOWER_IS_BETTER else max(values)
    rows = [(m, [(m.value("test", n), m.value("test", n) == best[n]) for n in names]) for m in found]
    return {"columns": [(words.metric_name(n), n in words.LOWER_IS_BETTER) for n in names], "rows": rows}


def gain_and_cost(story: Story, found: list[Model]) -> Section | None:
    """Return the scatter of gain against cost, and how fusions weigh the members; only where there are fusions."""
    best = reference(found)
    points = [
        comparison.Point(m.name, m.kind, m.chosen, m.cost, m.gain or 0.0, m.gain_interval)
        for m in found
        if m.cost and (m.reference or m.gain is not None)
    ]
    if best is None or len(points) < 2 or all(m.kind == "member" for m in found):
        return None
    charts = [
        comparison.gain_cost(points, metric=story.metric, reference=best.name, width=width) for width in (WIDE, NARROW)
    ]
    return {"charts": charts, "reference": best.name, "weights": _weights(found)}


def _weights(found: list[Model]) -> Section | None:
    members = [m.name for m in found if m.kind == "member"]
    rows = [
        (m, [(m.weights.get(name), shade(max(m.weights.get(name) or 0.0, 0.0) * 0.75)) for name in members])
        for m in found
        if m.weights
    ]
    return {"members": members, "rows": rows} if rows else None


def learning(story: Story, found: list[Model]) -> Section | None:
    """Return each member's learning curve, and whose training was stopped while it still got better."""
    higher = story.evaluation.get("higher_is_better", True)
    order = [m.name for m in found if m.kind == "member"]
    metric = _followed_metric(story)
    courses = [
        course
        for name in order
        if (course := curves.course(name, story.histories.get(name, ()), metric, higher_is_better=higher))
    ]
    if not courses:
        return None
    bounds = curves.metric_bounds(courses)
    details = {m.name: m.detail for m in found}
    cards = [
        {
            "name": course.name,
            "detail": details[course.name],
            "chart": curves.learning_curve(
                course, [c for c in courses if c is not course], metric=metric, bounds=bounds
            ),
        }
        for course in courses
    ]
    rising = [c.name for c in courses if len(c.metric) > 1 and c.best and c.best[0] == c.metric[-1][0]]
    return {
        "cards": cards,
        "metric": words.metric_name(metric),
        "rising": words.listed(rising, 6),
        "many": len(rising) > 1,
    }


def _followed_metric(story: Story) -> str:
    """Return the metric that the histories hold: the choice's, or else the first that there is."""
    keys = [k for rows in story.histories.values() for row in rows for k in row if k.startswith("validation_")]
    names = [k.removeprefix("validation_") for k in keys]
    return story.metric if story.metric in names or not names else next((n for n in names if n != "loss"), names[0])


# -- where the best model errs ---------------------------------------------------------------------------


def confusion(story: Story, found: list[Model]) -> Section | None:
    """Return what the best model takes for what: a matrix, bars a label, or gold against predicted values."""
    best = chosen(found).name
    if story.target == "value":
        return _values(story.evaluation.get("scatter", {}).get(best), best)
    matrix = story.evaluation.get("confusion", {}).get(best)
    if not matrix:
        return None
    return _label_shares(story, matrix, best) if story.target == "multi_label" else _matrix(story, matrix, best)


def _matrix(story: Story, matrix: Any, best: str) -> Section:
    counts = _plain_matrix(matrix)
    total = sum(map(sum, counts))
    charts = [matrices.confusion(story.labels, counts, name=best, width=width) for width in (WIDE, NARROW)]
    return {
        "kind": "matrix",
        "name": best,
        "charts": charts if len(story.labels) <= 12 else charts[:1],
        "unnamed": len(story.labels) > matrices.MOST_NAMED,
        "mistakes": matrices.frequent_mistakes(
            story.labels, counts, 15 if len(story.labels) > matrices.MOST_NAMED else 8
        ),
        "right": sum(counts[i][i] for i in range(len(counts))),
        "total": total,
        "unit": "words of the test rows" if story.target == "tags" else "test rows",
        "counted": "words" if story.target == "tags" else "rows",
    }


def _plain_matrix(matrix: Any) -> list[list[int]]:
    rows = matrix["matrix"] if isinstance(matrix, Mapping) else matrix
    return [[int(n) for n in row] for row in rows]


def _label_shares(story: Story, tables: Any, best: str) -> Section:
    """Return, for each label, how often it was found, missed, and given where it was not gold."""
    pairs = tables.items() if isinstance(tables, Mapping) else zip(story.labels, tables, strict=False)
    rows = []
    for label, ((_, false_alarm), (missed, found)) in pairs:
        total = max(int(found + missed + false_alarm), 1)
        parts = [(n, round(n / total * 100, 2)) for n in (int(found), int(missed), int(false_alarm))]
        rows.append({"label": str(label), "parts": parts, "total": found + missed})
    rows.sort(key=lambda row: (-row["total"], row["label"]))
    return {"kind": "labels", "name": best, "rows": rows}


def _values(pairs: Sequence[Sequence[float]] | None, best: str) -> Section | None:
    if not pairs:
        return None
    bias = sum(predicted - gold for gold, predicted in pairs) / len(pairs)
    typical = sorted(abs(predicted - gold) for gold, predicted in pairs)[len(pairs) // 2]
    return {
        "kind": "values",
        "name": best,
        "scatter": diagnostics.gold_predicted(pairs, name=best),
        "residuals": diagnostics.residuals(pairs, name=best),
        "bias": bias,
        "typical": typical,
    }


def per_label(story: Story, found: list[Model]) -> Section | None:
    """Return precision, recall and F1 a label; with more than a dozen labels, the weakest first."""
    best, other = chosen(found), reference(found)
    if not best.per_label:
        return None
    compared = other if other is not best else None
    rows = [
        {
            "label": str(label),
            **NO_FIGURES,
            **figures,
            "other": (compared.per_label.get(label) or {}).get("f1") if compared else None,
        }
        for label, figures in best.per_label.items()
    ]
    seen = [r for r in rows if r.get("support")]
    weakest = min(seen or rows, key=_by_f1)
    if len(rows) > 12:
        rows.sort(key=_by_f1)
    spans = story.target == "tags"
    told = {"unit": "span" if spans else "row", "what": "type" if spans else "label"}
    return {"name": best.name, "other": compared.name if compared else "", "rows": rows, "weakest": weakest, **told}


def _by_f1(row: Section) -> tuple[float, str]:
    return row["f1"] or 0.0, row["label"]


def reliability(story: Story, found: list[Model]) -> Section | None:
    """Return the reliability diagrams, the best model's first, and in which direction it misjudges itself."""
    bins = story.evaluation.get("reliability") or {}
    shown = [m for m in found if any(b.get("count") for b in bins.get(m.name) or ())]
    if not shown:
        return None
    cards = [
        {
            "model": m,
            "error": m.value("test", "calibration_error"),
            "chart": diagnostics.reliability(bins[m.name], name=m.name),
        }
        for m in shown
    ]
    return {
        "cards": cards,
        "first": shown[0].name,
        "excess": _excess(bins[shown[0].name]),
        "unit": {"multi_label": f"Each label of a row {ONE_ANSWER}", "tags": f"Each word {ONE_ANSWER}"}.get(
            story.target, ""
        ),
    }


def _excess(bins: Sequence[Mapping[str, float]]) -> float:
    """Return by how much confidence exceeds the share right, on average."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * (b["confidence"] - b["accuracy"]) for b in bins if b["count"]) / total


def disagreement(story: Story) -> Section | None:
    """Return where members decide differently, and how the rows divide by how many of them are right."""
    found = story.evaluation.get("disagreement") or {}
    names = [str(name) for name in found.get("names") or ()]
    if len(names) < 2:
        return None
    matrix = found["matrix"]
    pairs = [(matrix[i][j], names[j], names[i]) for i in range(len(names)) for j in range(i)]
    charts = [matrices.disagreement(names, matrix, width=width) for width in (WIDE * 0.62, NARROW)]
    return {
        "names": names,
        "charts": charts,
        "most": max(pairs),
        "least": min(pairs),
        "pairs": len(pairs),
        "target": story.target,
        "shares": _shares(found),
        **{key: found.get(key) for key in ("all_agree", "all_agree_and_right", "some_right")},
    }


def _shares(found: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Return (class, words, share) of the four ways in which members can be right and agree."""
    agree, right, some = (found.get(key) for key in ("all_agree", "all_agree_and_right", "some_right"))
    if agree is None or right is None or some is None:
        return []
    wrong = max(agree - right, 0.0)
    parts = [
        ("agree-right", "all agree and are right", right),
        ("split-right", "they differ, at least one is right", max(some - right, 0.0)),
        ("split-wrong", "they differ, none is right", max(1 - some - wrong, 0.0)),
        ("agree-wrong", "all agree and are wrong", wrong),
    ]
    return [part for part in parts if part[2] > 0]
