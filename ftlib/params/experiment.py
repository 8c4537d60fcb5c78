"""Experiment and its sections: the typed shape of params/*.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from ftlib.data.clean import Cleaning
from ftlib.data.sources.base import Source
from ftlib.data.split import Splitting
from ftlib.errors import unknown
from ftlib.evaluation.evaluate import Evaluation
from ftlib.evaluation.slices import COLUMN
from ftlib.fusion.base import Fusion
from ftlib.plugins import Section
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training.stage import Training

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Split = Literal["train", "validation", "fusion", "test", "all"]
BASE = "base"
"""What `start_from` says for the pretrained model itself."""


class Data(Section):
    """Where the rows come from."""

    sources: dict[Split, Source]
    """A source for each split that is given, or one under "all", to be split."""

    columns: dict[str, str | int | Annotated[list[str | int], Field(min_length=1)]] = {}
    """The problem's column -> the source's column, by name, or by position (from 0) in files without header; a list
    of them where several columns make one of lists, as choices are."""

    folder: str | None = None
    """Where paths to files in the rows (images) start; each source's own folder unless given."""


class Stage(Section):
    """One strategy applied to one checkpoint."""

    name: Name
    """What the stage and its member are called everywhere."""

    strategy: Strategy
    """How the checkpoint is fine-tuned."""

    start_from: Name = BASE
    """The stage whose checkpoint this one starts from; "base" is the pretrained model."""

    base_model: str | None = None
    """Another pretrained model for this stage alone; only together with start_from: base."""

    member: bool = True
    """Whether its predictions take part in fusion."""

    training: Training = Training()
    """What this stage trains with: the experiment's training section, with these keys on top."""


class FusionMethod(Section):
    """One way of fusing the members, under a name of its own."""

    name: Name
    """What the leaderboard calls it."""

    method: Fusion
    """How the members' predictions are combined."""


class Registration(Section):
    """Where the best model goes."""

    model_name: str | None = None
    """The registered model's name; the experiment's name unless given."""

    alias: Name = "champion"
    """The alias that the new version gets."""


class Tracking(Section):
    """What MLflow is told. Shapes no result."""

    experiment: str | None = None
    """MLflow's experiment; the experiment's name unless given."""

    energy: bool = True
    """Estimate energy and carbon (codecarbon, offline)."""

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USA"
    """Whose electricity is assumed for carbon: ISO 3166 alpha-3."""


class Experiment(Section):
    """One experiment: all that the pipeline needs to know."""

    name: Name
    """What the experiment, its runs and its model are called."""

    seed: int = Field(42, ge=0, lt=2**31)
    """Every random choice derives from it."""

    base_model: Annotated[str, Field(min_length=1)]
    """The pretrained model: a hub id, a folder, package:NAME for one that a Python package carries, or random:FAMILY
    for a small untrained one."""

    problem: Problem
    """What is learned."""

    data: Data
    """Where the rows come from."""

    cleaning: Cleaning = Cleaning()
    """What is repaired and rejected."""

    splitting: Splitting = Splitting()
    """How rows are divided."""

    training: Training = Training()
    """What every stage trains with, unless it says otherwise."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    """What is trained, as a graph by start_from and by a strategy's teachers."""

    fusions: tuple[FusionMethod, ...] = ()
    """How members are fused. Greedy ensemble selection is always run beside them, as the baseline."""

    evaluation: Evaluation = Evaluation()
    """How results are measured."""

    registration: Registration = Registration()
    """Where the best model goes."""

    tracking: Tracking = Tracking()
    """What MLflow is told."""

    @model_validator(mode="before")
    @classmethod
    def _spread_training(cls, value: Any) -> Any:
        """Lay each stage's own training keys over the experiment's; take a fusion's bare name."""
        if not isinstance(value, dict):
            return value
        shared = value.get("training", {})
        spread = dict(value)
        if isinstance(value.get("stages"), (list, tuple)) and isinstance(shared, dict):
            spread["stages"] = [_with_training(stage, shared) for stage in value["stages"]]
        if isinstance(value.get("fusions"), (list, tuple)):
            spread["fusions"] = [{"name": f, "method": f} if isinstance(f, str) else f for f in value["fusions"]]
        return spread

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Check what no single section can: names that must exist, cycles, columns, splits."""
        problems = list(self._name_problems())
        if problems:
            raise PydanticCustomError("experiment", "{lines}", {"lines": "\n".join(f"{p}: {m}" for p, m in problems)})
        return self

    def _name_problems(self) -> Iterator[tuple[str, str]]:
        yield from self._taken_names()
        if len({stage.name for stage in self.stages}) == len(self.stages):  # else nobody knows which one is meant
            yield from self._stage_problems()
            yield from self._cycles()
        if not self.members():
            yield "stages", "no stage is a member; set member: true on at least one."
        yield from self._data_problems()

    def _taken_names(self) -> Iterator[tuple[str, str]]:
        names = [stage.name for stage in self.stages]
        fusions = [fusion.name for fusion in self.fusions]
        for group, given in (("stages", names), ("fusions", fusions)):
            for i, name in enumerate(given):
                if name in given[:i]:
                    yield f"{group}.{i}.name", f"{name!r} is taken already; names are unique."
        for i, name in enumerate(fusions):
            if name in names:
                yield f"fusions.{i}.name", f"{name!r} is a stage's name already; names are unique."

    def _stage_problems(self) -> Iterator[tuple[str, str]]:
        names = [stage.name for stage in self.stages]
        for i, stage in enumerate(self.stages):
            at = f"stages.{i}"
            others = [n for n in names if n != stage.name]  # one that needs itself is a cycle, told as such
            if stage.name == BASE:
                yield f"{at}.name", f"{BASE!r} stands for the pretrained model; choose another name."
            if stage.start_from not in {BASE, *names}:
                yield f"{at}.start_from", unknown("stage", stage.start_from, [BASE, *others])
            elif stage.base_model and stage.start_from != BASE:
                line = f"goes with start_from: base only; this stage starts from {stage.start_from!r}."
                yield f"{at}.base_model", line
            for teacher in stage.strategy.teachers:
                if teacher not in names:
                    yield f"{at}.strategy.teacher", unknown("stage", teacher, others)

    def _data_problems(self) -> Iterator[tuple[str, str]]:
        given = set(self.data.sources)
        if "all" in given and len(given) > 1:
            yield "data.sources", "'all' is one source to be split; give it alone, or one source a split."
        if not given & {"all", "train"}:
            yield "data.sources", "needs 'train' (validation and test are taken from it where missing), or 'all'."
        for split, source in self.data.sources.items():
            if source.example_path and not source.path:
                written = f"{{name: {source.name}, path: {source.example_path}}}"
                yield f"data.sources.{split}", f"{source.name} needs a path; write {written}."
        yield from self._label_among_texts()
        yield from self._too_large_shares(given)
        known = list(dict.fromkeys((*self.problem.input_columns, self.problem.label_column)))
        for column in self.data.columns:
            if column not in known:
                remedy = f"{self.problem.name} reads {', '.join(known)}."
                yield f"data.columns.{column}", unknown("column", column, known, remedy=remedy)

    def _too_large_shares(self, given: set[Split]) -> Iterator[tuple[str, str]]:
        ratios = self.splitting.ratios()
        shares = {name: ratio for name, ratio in ratios.items() if name not in given}
        if sum(shares.values()) >= 1:
            listed = ", ".join(f"{name}_ratio {ratio:g}" for name, ratio in shares.items() if ratio)
            yield "splitting", f"{listed} leave nothing to train on; their sum must be below 1."

    def _label_among_texts(self) -> Iterator[tuple[str, str]]:
        label = self.data.columns.get(self.problem.label_column, self.problem.label_column)
        for name in self.problem.text_columns:
            if name != self.problem.label_column and self.data.columns.get(name, name) == label:
                line = f"{label!r} is read as the {name} too; the answer would stand in the input. Name another column."
                yield f"data.columns.{self.problem.label_column}", line

    def _cycles(self) -> Iterator[tuple[str, str]]:
        by_name = {stage.name: stage for stage in self.stages}
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
            if name in path:
                cycle = " -> ".join((*path[path.index(name) :], name))
                yield "stages", f"{cycle} is a cycle; a stage cannot wait for itself."
            elif name in by_name and name not in done:
                for needed in _needs(by_name[name]):
                    yield from visit(needed, (*path, name))
                done.add(name)

        for name in by_name:
            yield from visit(name, ())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that a fusion's bare name is enough, as `_spread_training` takes it."""
        described = handler.resolve_ref_schema(handler(schema))
        fusions = described["properties"]["fusions"]
        fusions["items"] = {"anyOf": [{"type": "string", "enum": list(Fusion.available())}, fusions["items"]]}
        return described

    # -- what the flow asks ------------------------------------------------------------------------

    def stage(self, name: str) -> Stage:
        """Return the stage with this name."""
        return next(s for s in self.stages if s.name == name)

    def members(self) -> tuple[Stage, ...]:
        """Return the stages that take part in fusion."""
        return tuple(s for s in self.stages if s.member)

    def ordered_stages(self) -> tuple[Stage, ...]:
        """Return the stages, each after those it needs; the file's order where that leaves a choice."""
        ordered: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            for needed in _needs(stage):
                if needed not in ordered:
                    visit(self.stage(needed))
            ordered[stage.name] = stage

        for stage in self.stages:
            if stage.name not in ordered:
                visit(stage)
        return tuple(ordered.values())

    def root_model(self, stage: Stage) -> str:
        """Return the pretrained model that a stage descends from."""
        if stage.start_from == BASE:
            return stage.base_model or self.base_model
        return self.root_model(self.stage(stage.start_from))

    def left_before(self, stage: Stage) -> frozenset[str]:
        """Return what the checkpoint that a stage starts from has beyond a plain one: `Strategy.leaves` of its line."""
        if stage.start_from == BASE:
            return frozenset()
        before = self.stage(stage.start_from)
        return before.strategy.leaves | self.left_before(before)

    def common_start(self, names: Sequence[str]) -> str:
        """Return the nearest stage that all these stages descend from; "base" where there is none."""
        lines = [self._before(self.stage(name)) for name in names]
        return next(start for start in lines[0] if all(start in line for line in lines))

    def _before(self, stage: Stage) -> tuple[str, ...]:
        """Return what a stage descends from, the nearest first, "base" last."""
        if stage.start_from == BASE:
            return (BASE,)
        return (stage.start_from, *self._before(self.stage(stage.start_from)))

    def base_models(self) -> tuple[str, ...]:
        """Return every pretrained model that is used, the experiment's own first."""
        return tuple(dict.fromkeys((self.base_model, *(s.base_model for s in self.stages if s.base_model))))

    def source_columns(self) -> dict[str, str | tuple[str, ...]]:
        """Return the column to read for each of the problem's columns, for slices, and for the group."""
        names = [*self.problem.input_columns, self.problem.label_column]
        given = {name: self.data.columns.get(name, name) for name in names}
        columns = {n: tuple(map(str, c)) if isinstance(c, (list, tuple)) else str(c) for n, c in given.items()}
        columns |= {f"{COLUMN}{name}": name for name in self.evaluation.slices}
        group = self.splitting.group_column
        return {**columns, "group": group} if group else columns

    def seed_of(self, name: str) -> int:
        """Return the seed of one step: derived from the experiment's, different for each name."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:4], "big") % 2**31


def _needs(stage: Stage) -> tuple[str, ...]:
    return tuple(n for n in (stage.start_from, *stage.strategy.teachers) if n != BASE)


def _with_training(stage: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(stage, dict) or not isinstance(stage.get("training", {}), dict):
        return stage
    return {**stage, "training": {**shared, **stage.get("training", {})}}
