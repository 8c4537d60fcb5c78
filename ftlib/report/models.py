"""The models of a story, members and fusions alike, in the order of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlib.report import words
from ftlib.report.story import Story

Entry = Mapping[str, Any]
"""What evaluation.json says of a member or a fusion, or a member's card."""

KINDS = ("learner", "voting", "weights_from", "kind")
"""Parameters of a fusion's method that say which kind of it is meant."""


@dataclass(frozen=True)
class Model:
    """A member or a fusion as the report shows it.

    Attributes:
        name: Its name.
        kind: "member", "fusion", or "baseline" for greedy ensemble selection.
        chosen: Whether validation chose it.
        reference: Whether it is the best single member, by validation.
        detail: Its strategy, or its method and members, in a few words; and what was not as hoped for.
        metrics: Split -> metric -> value.
        interval: The main metric's on test.
        gain: How much better than the best single member on test; above 0 is better, whatever the metric.
        gain_interval: The same way up.
        p_member: p-value of the paired test against the best single member.
        p_greedy: The same against the baseline.
        cost: Inference cost as a multiple of the best single member's.
        per_label: Label -> precision, recall, f1, support, on test.
        weights: Member -> weight, where the fusion has such.
        parameters: Number of parameters.
    """

    name: str
    kind: str
    chosen: bool
    reference: bool
    detail: str
    metrics: Mapping[str, Mapping[str, float]]
    interval: tuple[float, float] | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    p_member: float | None
    p_greedy: float | None
    cost: float | None
    per_label: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float] | None
    parameters: int | None

    def value(self, split: str, metric: str) -> float | None:
        """Return a metric on a split, where it is defined."""
        return self.metrics.get(split, {}).get(metric)


def models(story: Story) -> list[Model]:
    """Return members and fusions: the chosen one first, then by validation, best first, and by cost."""
    e = story.evaluation
    reference = next((m for m in e["members"] if m["name"] == e.get("best_member")), None)
    cards = {card["name"]: card for card in story.members}
    found = [_member(m, story, reference, cards.get(m["name"], {})) for m in e["members"]]
    found += [_fusion(f, story, reference) for f in e.get("fusions") or ()]
    sign = 1 if e.get("higher_is_better", True) else -1

    def rank(model: Model) -> tuple[bool, bool, float, float, str]:
        value = model.value("validation", story.metric)
        return (not model.chosen, value is None, -sign * (value or 0.0), model.cost or 0.0, model.name)

    return sorted(found, key=rank)


def chosen(found: list[Model]) -> Model:
    """Return the model that validation chose."""
    return next((m for m in found if m.chosen), found[0])


def reference(found: list[Model]) -> Model | None:
    """Return the best single member."""
    return next((m for m in found if m.reference), None)


def parameters(values: Mapping[str, Any], *, leave_out: tuple[str, ...] = ("name",)) -> list[tuple[str, str]]:
    """Return parameters as (name, value) in words; nested ones by their path, those that are None left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if key in leave_out or value is None or value in ((), [], {}):
            continue
        if isinstance(value, Mapping):
            head = [(key, str(value["name"]))] if "name" in value else []
            prefix = "" if key == "training" else f"{key}."
            pairs += head + [(f"{prefix}{k}", v) for k, v in parameters(value)]
        else:
            pairs.append((key, plain(value)))
    return pairs


def plain(value: Any) -> str:
    """Return a parameter's value as text: 5e-05, on, a, b."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _member(entry: Entry, story: Story, reference: Entry | None, card: Entry) -> Model:
    is_reference = reference is not None and entry["name"] == reference["name"]
    return Model(
        name=str(entry["name"]),
        kind="member",
        chosen=entry["name"] == story.evaluation["best"]["name"],
        reference=is_reference,
        detail=_strategy(card),
        metrics=entry["metrics"],
        interval=_pair(entry.get("interval")),
        gain=None if is_reference else _gain(entry, reference, story),
        gain_interval=None,
        p_member=None,
        p_greedy=None,
        cost=_ratio(entry.get("inference_cost"), reference),
        per_label=entry.get("per_label") or {},
        weights=None,
        parameters=entry.get("num_parameters"),
    )


def _fusion(entry: Entry, story: Story, reference: Entry | None) -> Model:
    method = entry.get("method") or {}
    used = [str(name) for name in entry.get("members_used") or ()]
    baseline = "greedy" in (entry["name"], method.get("name"))
    return Model(
        name=str(entry["name"]),
        kind="baseline" if baseline else "fusion",
        chosen=entry["name"] == story.evaluation["best"]["name"],
        reference=False,
        detail=" · ".join(filter(None, (_method(entry, method), _members(used), entry.get("note")))),
        metrics=entry["metrics"],
        interval=_pair(entry.get("interval")),
        gain=_gain(entry, reference, story),
        gain_interval=_gain_interval(entry, reference, story),
        p_member=entry.get("p_value_against_best_member"),
        p_greedy=None if baseline else entry.get("p_value_against_greedy"),
        cost=entry.get("inference_cost_ratio"),
        per_label=entry.get("per_label") or {},
        weights=entry.get("weights"),
        parameters=None,
    )


def _members(used: list[str]) -> str:
    return words.counted(len(used), "member") if used else ""


def _strategy(card: Entry) -> str:
    """Return the strategy, unless the member bears its name, and where it started."""
    strategy = card.get("strategy", "")
    name = str(strategy.get("name", "")) if isinstance(strategy, Mapping) else str(strategy)
    start = card.get("start_from", "base")
    parts = [name.replace("_", " ") if name != card.get("name") else "", f"from {start}" if start != "base" else ""]
    return ", ".join(filter(None, parts))


def _method(entry: Entry, method: Entry) -> str:
    """Return the method's name; where the fusion bears it already, which kind of it."""
    name = str(method.get("name", ""))
    if name == "greedy":
        return "ensemble selection"
    kind = next((method[k] for k in KINDS if isinstance(method.get(k), str)), "")
    return (kind if name in ("", entry["name"]) else name).replace("_", " ")


def _raw_gain(entry: Entry, reference: Entry | None, metric: str) -> float | None:
    if reference is None:
        return None
    own, other = (m["metrics"].get("test", {}).get(metric) for m in (entry, reference))
    return None if own is None or other is None else own - other


def _gain(entry: Entry, reference: Entry | None, story: Story) -> float | None:
    raw = _raw_gain(entry, reference, story.metric)
    return raw if raw is None or story.evaluation.get("higher_is_better", True) else -raw


def _gain_interval(entry: Entry, reference: Entry | None, story: Story) -> tuple[float, float] | None:
    """Return the gain's interval, turned over where it is that of a plain difference and lower is better."""
    bounds = _pair(entry.get("gain_interval"))
    raw, given = _raw_gain(entry, reference, story.metric), entry.get("gain")
    if bounds is None or raw is None or given is None or story.evaluation.get("higher_is_better", True):
        return bounds
    is_difference = abs(given - raw) <= abs(given + raw)
    return (-bounds[1], -bounds[0]) if is_difference else bounds


def _ratio(cost: float | None, reference: Entry | None) -> float | None:
    base = reference and reference.get("inference_cost")
    return cost / base if cost and base else None


def _pair(bounds: Any) -> tuple[float, float] | None:
    return (float(bounds[0]), float(bounds[1])) if bounds else None
