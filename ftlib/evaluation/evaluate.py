"""Evaluation: members and fusions measured alike, the best one chosen on validation, reported on test once.

How the best is chosen is told in `ftlib.evaluation.choosing`. The test split has no say in any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.plugins import Section

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.ensembling import Scores
    from ftlib.evaluation.assessment import Contest
    from ftlib.evaluation.choosing import Choice
    from ftlib.fusion.base import Fusion
    from ftlib.problems.base import Problem
    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

SPLITS = ("validation", "test")


class Evaluation(Section):
    """How results are measured and the best one chosen."""

    metric: str | None = None
    """What the choice goes by, on validation; the problem's own main metric unless given."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the bootstrap intervals."""

    bootstrap_samples: int = Field(1000, ge=100)
    """Resamples of the intervals and paired tests."""

    slices: tuple[str, ...] = ()
    """Columns of the source by which test rows are divided, to see where the best model falls behind; length and
    script are always looked at."""

    explained_errors: int = Field(12, ge=0)
    """Worst errors of which the report shows the words that they rest on; 0 for none, which saves opening models."""


@dataclass(frozen=True)
class Artifacts:
    """What evaluation reads.

    Attributes:
        splits: The split artifact.
        members: Member -> split ("validation", "test") -> its predictions artifact, in the order of fusing.
        checkpoints: Member -> its checkpoint, for what it costs to run.
        fusions: Fusion -> the plugin, and the artifact with its combiner and validation scores.
        together: Fusion -> split -> what the members say as one, of those fusions that have them do so.
        merged: Fusion -> the checkpoint that it has made of its members, which speaks for them in `together`.
    """

    splits: Path
    members: Mapping[str, Mapping[str, Path]]
    checkpoints: Mapping[str, Path]
    fusions: Mapping[str, tuple[Fusion, Path]]
    together: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    merged: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """What evaluation gave.

    Attributes:
        summary: What evaluation.json holds.
        errors: The best model's worst errors on test.
    """

    summary: dict[str, Any]
    errors: pa.Table


@dataclass(frozen=True, eq=False)
class _Model:
    """A member or a fusion with its scores.

    Attributes:
        name: What the leaderboard calls it.
        scores: Split -> scores, shape (num_units, num_outputs).
        cost: Parameters touched per token when it answers.
        facts: What the summary says of it beside its figures.
        own_metrics: Split -> what a member's predictions, or what members say together, say beyond scores: see
            `Problem.own_metrics`.
    """

    name: str
    scores: dict[str, np.ndarray]
    cost: float
    facts: dict[str, Any] = field(default_factory=dict)
    own_metrics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Results:
    """All that the summary is made of; splits are "validation" and "test".

    Attributes:
        rows: Split -> its rows.
        targets: Split -> what is predicted, over the layout of its rows.
        references: Split -> gold answers, one line a unit.
        contests: Split -> all models against each other.
    """

    problem: Problem
    settings: Evaluation
    metric: str
    rows: dict[str, pa.Table]
    targets: dict[str, Target]
    references: dict[str, np.ndarray]
    members: tuple[_Model, ...]
    fusions: tuple[_Model, ...]
    contests: dict[str, Contest]

    @property
    def models(self) -> tuple[_Model, ...]:
        return (*self.members, *self.fusions)

    def model(self, name: str) -> _Model:
        return next(m for m in self.models if m.name == name)


def evaluate(artifacts: Artifacts, *, problem: Problem, settings: Evaluation, seed: int) -> Evaluated:
    """Measure members and fusions on validation and test, and choose the best on validation.

    Args:
        artifacts: Rows, predictions, checkpoints and fitted fusions.
        problem: What is learned, its labels filled in.
        settings: How results are measured.
        seed: For the resamples.

    Raises:
        ArtifactError: If predictions are missing, or not of the split's rows.
        ParamsError: If the problem has no such metric as `settings` names.
    """
    results = _results(artifacts, problem, settings, seed)
    choice = _choice(results.models, results)
    return Evaluated(_summary(results, choice), _errors(results.model(choice.name), results))


def chosen_on_validation(artifacts: Artifacts, *, problem: Problem, settings: Evaluation, seed: int) -> dict[str, Any]:
    """Return the model that `evaluate` would choose and every model's value on validation; nothing of test is read.

    Args:
        artifacts: As for `evaluate`; predictions on validation are enough.
        problem: See `evaluate`.
        settings: See `evaluate`.
        seed: See `evaluate`.
    """
    results = _results(artifacts, problem, settings, seed, splits=("validation",))
    best = results.model(_choice(results.models, results).name)
    values = {name: _finite(value) for name, value in results.contests["validation"].values.items()}
    kind = "member" if best in results.members else "fusion"
    told = {"name": best.name, "kind": kind, "metric": results.metric, "validation": values[best.name]}
    return {**told, "models": values}


# -- reading -------------------------------------------------------------------------------------------


def _results(
    artifacts: Artifacts, problem: Problem, settings: Evaluation, seed: int, splits: Sequence[str] = SPLITS
) -> _Results:
    from ftlib.ensembling import read_rows, read_scores
    from ftlib.evaluation.measures import check_metric
    from ftlib.evaluation.side_by_side import side_by_side

    metric = settings.metric or problem.target.main_metric
    check_metric(metric, problem.target)
    members = artifacts.members
    rows = {split: read_rows(artifacts.splits / f"{split}.parquet") for split in splits}
    scores = {
        split: read_scores([f[split] for f in members.values()], rows[split], problem, where=f"predictions on {split}")
        for split in splits
    }
    together = {
        name: {
            split: read_scores([folders[split]] * (1 if name in artifacts.merged else len(members)), found, problem)
            for split, found in rows.items()
        }
        for name, folders in artifacts.together.items()
    }
    found = tuple(_member(n, i, scores, artifacts.checkpoints[n]) for i, n in enumerate(members))
    fused = tuple(
        _fusion(n, f, folder, together.get(n, scores), found, artifacts.merged.get(n))
        for n, (f, folder) in artifacts.fusions.items()
    )
    layouts: dict[str, Layout | None] = {}
    for split in splits:
        among = {name: one[split] for name, one in together.items()}
        layouts[split], wide = side_by_side(scores[split], among, {m.name: m.scores[split] for m in (*found, *fused)})
        found, fused = (
            tuple(replace(m, scores={**m.scores, split: wide[m.name]}) for m in group) for group in (found, fused)
        )
    targets = {split: problem.target.over(layout) for split, layout in layouts.items()}
    references = {split: problem.references(rows[split], layout) for split, layout in layouts.items()}
    contests = {s: _contest(s, (*found, *fused), references[s], targets[s], metric, settings, seed) for s in splits}
    return _Results(problem, settings, metric, rows, targets, references, found, fused, contests)


def _member(name: str, position: int, read: Mapping[str, Scores], checkpoint: Path) -> _Model:
    from ftlib.evaluation.costs import settings_of

    facts = settings_of(checkpoint)
    cost = float(facts["inference_parameters"])
    scores = {split: found.values[position] for split, found in read.items()}
    own = {split: found.own_metrics[position] for split, found in read.items()}
    return _Model(name, scores, cost, {"num_parameters": int(facts["num_parameters"]), "inference_cost": cost}, own)


def _fusion(
    name: str,
    fusion: Fusion,
    folder: Path,
    read: Mapping[str, Scores],
    members: Sequence[_Model],
    merged: Path | None,
) -> _Model:
    """Fuse the test rows, where they are read; validation rows were fused out of fold, when the combiner was fitted."""
    from ftlib.ensembling import VALIDATION, read_scores_table
    from ftlib.evaluation.costs import use_of, use_of_merged

    combiner = type(fusion).load(folder)
    where = f"fusion {name!r} on validation"
    validation = read_scores_table(folder / VALIDATION, read["validation"], where=where)
    others = {split: combiner(found.values, found.layout) for split, found in read.items() if split != "validation"}
    scores = {"validation": validation, **others}
    costs = {m.name: m.cost for m in members}
    use = use_of_merged(merged, costs) if merged else use_of(combiner, costs)
    facts = {"method": fusion.model_dump(mode="json"), **use.facts()}
    as_one = merged or fusion.joint(len(members))
    said = {split: found.own_metrics[0] for split, found in read.items()} if as_one else {}
    return _Model(name, scores, use.cost, facts, said)


def _contest(
    split: str,
    models: Sequence[_Model],
    references: np.ndarray,
    target: Target,
    metric: str,
    settings: Evaluation,
    seed: int,
) -> Contest:
    from ftlib.evaluation.assessment import Contest

    return Contest(
        {m.name: m.scores[split] for m in models},
        references,
        target,
        metric=metric,
        confidence=settings.confidence,
        num_samples=settings.bootstrap_samples,
        seed=seed,
    )


# -- choosing ------------------------------------------------------------------------------------------


def _choice(models: Sequence[_Model], results: _Results) -> Choice:
    """Return the best of some models by validation."""
    from ftlib.evaluation.choosing import choose

    return choose(results.contests["validation"], {m.name: m.cost for m in models})


def _best_of(models: Sequence[_Model], best: _Model, results: _Results) -> _Model:
    """Return the best of all where it is one of these, else the best of these.

    By themselves they may have another leader, that fewer are shown to be worse than.
    """
    return best if best in models else results.model(_choice(models, results).name)


# -- the summary ---------------------------------------------------------------------------------------


def _summary(results: _Results, choice: Choice) -> dict[str, Any]:
    from ftlib.evaluation.error_analysis import disagreement

    best = results.model(choice.name)
    target, test = results.targets["test"], results.references["test"]
    best_member = _best_of(results.members, best, results)
    return {
        "problem": results.problem.name,
        "target": target.kind,
        "metric": results.metric,
        "higher_is_better": target.higher_is_better(results.metric),
        "labels": list(target.labels),
        "confidence": results.settings.confidence,
        "rows": {split: len(rows) for split, rows in results.rows.items()},
        "members": [_entry(model, results) for model in results.members],
        "fusions": [{**_entry(f, results), **_against(f, best_member, results)} for f in results.fusions],
        "best_member": best_member.name,
        "best_fusion": _best_of(results.fusions, best, results).name if results.fusions else None,
        "best": {**_best(best, results), "leader": choice.leader, "reason": choice.reason},
        **_pictures(results, best),
        "slices": _slices(results, best),
        "disagreement": disagreement({m.name: m.scores["test"] for m in results.members}, test, target),
    }


def _entry(model: _Model, results: _Results) -> dict[str, Any]:
    targets, references, own = results.targets, results.references, model.own_metrics
    return {
        "name": model.name,
        "metrics": {s: {**targets[s].metrics(model.scores[s], references[s]), **own.get(s, {})} for s in SPLITS},
        "interval": results.contests["test"].interval(model.name),
        "per_label": targets["test"].per_label(model.scores["test"], references["test"]),
        **model.facts,
    }


def _against(fusion: _Model, best_member: _Model, results: _Results) -> dict[str, Any]:
    """Return the fusion's gain over the best member, what it costs, and the paired tests."""
    contest = results.contests["test"]
    gain = contest.difference(fusion.name, best_member.name)
    baseline = next((f for f in results.fusions if f.facts["method"]["name"] == "greedy"), None)
    against = contest.difference(fusion.name, baseline.name) if baseline and baseline is not fusion else None
    return {
        "gain": _finite(gain.gain),
        "gain_interval": gain.interval,
        "p_value_against_best_member": gain.p_value,
        "p_value_against_greedy": against.p_value if against else None,
        "paired_test": gain.test,
        "inference_cost_ratio": fusion.cost / best_member.cost if best_member.cost else None,
    }


def _best(best: _Model, results: _Results) -> dict[str, Any]:
    values = {split: _finite(results.contests[split].values[best.name]) for split in SPLITS}
    return {
        "name": best.name,
        "kind": "member" if best in results.members else "fusion",
        "metric": results.metric,
        **values,
        "interval": results.contests["test"].interval(best.name),
    }


def _pictures(results: _Results, best: _Model) -> dict[str, Any]:
    """Return what the report draws of models, by name: how far confidence can be trusted of all, else of some."""
    from ftlib.evaluation.error_analysis import confusion, reliability, scatter

    shown = {m.name: m.scores["test"] for m in results.models}
    references, target = results.references["test"], results.targets["test"]
    if target.kind == "value":
        return {"scatter": {m.name: scatter(m.scores["test"], references) for m in (best, *results.members)}}
    calibration = {name: bins for name, scores in shown.items() if (bins := reliability(scores, references, target))}
    if target.unit_kind not in ("single_label", "multi_label"):
        return {"reliability": calibration} if calibration else {}
    drawn = (best, *results.members)
    return {
        "confusion": {m.name: confusion(m.scores["test"], references, target) for m in drawn},
        "reliability": calibration,
    }


def _slices(results: _Results, best: _Model) -> list[dict[str, Any]]:
    """Return the best model's figures on parts of the test rows."""
    from ftlib.evaluation.slices import divide, measured

    contest = results.contests["test"]
    return measured(
        divide(results.rows["test"], results.problem),
        best.scores["test"],
        contest.references,
        contest.target,
        metric=results.metric,
        confidence=contest.confidence,
        num_samples=contest.num_samples,
        seed=contest.seed,
    )


def _errors(best: _Model, results: _Results) -> pa.Table:
    from ftlib.evaluation.error_analysis import worst_errors

    members = {m.name: m.scores["test"] for m in results.members}
    target = results.targets["test"]
    return worst_errors(
        results.rows["test"], best.scores["test"], members, results.references["test"], results.problem, target
    )


def _finite(value: float) -> float | None:
    from math import isfinite

    return value if isfinite(value) else None
