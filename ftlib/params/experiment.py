"""Experiment and its sections: the typed shape of params/*.yaml."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from ftlib.data.clean import Cleaning
from ftlib.data.split import Splitting
from ftlib.errors import unknown
from ftlib.evaluation.evaluate import Evaluation
from ftlib.fusion.base import Fusion
from ftlib.params import teaching
from ftlib.params.candidates import CHOSEN, BaseChoice, BaseModel
from ftlib.params.tasks import Data, Name, Task
from ftlib.params.tuning import Tuning
from ftlib.plugins import Section
from ftlib.problems.base import MAIN, Problem
from ftlib.strategies.base import Strategy
from ftlib.training.stage import Training

BASE = "base"
"""What `start_from` says for the pretrained model itself."""


class Stage(Section):
    """One strategy applied to one checkpoint."""

    name: Name
    """What the stage and its member are called everywhere."""

    strategy: Strategy
    """How the checkpoint is fine-tuned."""

    start_from: Name = BASE
    """The stage whose checkpoint this one starts from; "base" is the pretrained model."""

    task: Name = MAIN
    """What it learns: one of `tasks`; "main" is the experiment's own problem and data."""

    base_model: str | None = None
    """Another pretrained model for this stage alone; only together with start_from: base."""

    member: bool = True
    """Whether its predictions take part in fusion; those of a stage of another task never do."""

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

    base_model: BaseModel
    """The pretrained model: a hub id, a folder, package:NAME for one that a Python package carries, or random:FAMILY
    for a small untrained one; or candidates, a list of these, from which it is chosen on the data."""

    problem: Problem
    """What is learned."""

    data: Data
    """Where the rows come from."""

    cleaning: Cleaning = Cleaning()
    """What is repaired and rejected."""

    splitting: Splitting = Splitting()
    """How rows are divided."""

    tasks: tuple[Task, ...] = ()
    """What else is learned with the same encoder: raw text before the first stage, problems learned together, problems
    learned one after the other."""

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

    tuning: Tuning | None = None
    """What `ftlib tune` searches; a run does not read it."""

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
        problems = list(self._name_problems()) or list(self._unused_tasks())
        if problems:
            raise PydanticCustomError("experiment", "{lines}", {"lines": "\n".join(f"{p}: {m}" for p, m in problems)})
        return self

    def _name_problems(self) -> Iterator[tuple[str, str]]:
        yield from self._taken_names()
        if len({stage.name for stage in self.stages}) == len(self.stages):  # else nobody knows which one is meant
            yield from self._stage_problems()
            yield from self._cycles()
        if not self.members():
            yield "stages", "no stage is a member; set member: true on at least one that learns the main task."
        for i, task in enumerate(self.all_tasks()):
            at = f"tasks.{i - 1}." if i else ""
            yield from ((f"{at}{place}", message) for place, message in task.problems())

    def _taken_names(self) -> Iterator[tuple[str, str]]:
        names = [stage.name for stage in self.stages]
        fusions = [fusion.name for fusion in self.fusions]
        tasks = [task.name for task in self.tasks]
        if MAIN in tasks:
            line = f"{MAIN!r} stands for the experiment's own problem; choose another name."
            yield f"tasks.{tasks.index(MAIN)}.name", line
        for group, given in (("stages", names), ("fusions", fusions), ("tasks", tasks)):
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
            yield from ((f"{at}.strategy.{field}", line) for field, line in teaching.name_problems(self, stage))
            yield from self._task_names_of(stage, at)

    def _task_names_of(self, stage: Stage, at: str) -> Iterator[tuple[str, str]]:
        known = [task.name for task in self.all_tasks()]
        if stage.task not in known:
            yield f"{at}.task", unknown("task", stage.task, known)
        for name in stage.strategy.tasks:
            if name not in known:
                yield f"{at}.strategy", unknown("task", name, [n for n in known if n != stage.task])
            elif name == stage.task:
                yield f"{at}.strategy", f"{name!r} is what the stage learns anyway; name the others."

    def _unused_tasks(self) -> Iterator[tuple[str, str]]:
        for i, task in enumerate(self.tasks):
            if not any(task.name in self.read_by(stage) for stage in self.stages):
                yield f"tasks.{i}.name", f"no stage learns {task.name!r}; name it in a stage's task, or leave it out."
        yield from teaching.unread_problems(self)
        for i, stage in enumerate(self.stages):
            if stage.strategy.reads_earlier_tasks and not self.earlier_tasks(stage):
                line = f"{stage.strategy.name} keeps what was learned before, and nothing was: start it from a stage of"
                yield f"stages.{i}.strategy", f"{line} another task, or choose full."
            before = self.left_before(stage)
            if before and self.stage(stage.start_from).task != stage.task:
                line = f"the {', '.join(sorted(before))} of {stage.start_from!r} belongs to the task that it learned"
                yield f"stages.{i}.start_from", f"{line}; start from base, or from a stage without one."
            for teacher in teaching.waits_for(self, stage):
                learned = self.answered_by(self.stage(teacher))
                if stage.task not in learned:
                    line = f"{teacher!r} has learned {', '.join(learned)}, not {stage.task}; name a stage that has."
                    yield f"stages.{i}.strategy.teacher", line

    def _cycles(self) -> Iterator[tuple[str, str]]:
        by_name = {stage.name: stage for stage in self.stages}
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
            if name in path:
                cycle = " -> ".join((*path[path.index(name) :], name))
                yield "stages", f"{cycle} is a cycle; a stage cannot wait for itself."
            elif name in by_name and name not in done:
                for needed in self._needs(by_name[name]):
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

    def task(self, name: str = MAIN) -> Task:
        """Return what is learned under this name: one of `tasks`, or the experiment's own."""
        if name != MAIN:
            return next(task for task in self.tasks if task.name == name)
        own = {part: getattr(self, part) for part in ("problem", "data", "cleaning", "splitting")}
        return Task.model_construct(name=MAIN, **own)

    def all_tasks(self) -> tuple[Task, ...]:
        """Return the experiment's own task and the others."""
        return (self.task(), *self.tasks)

    def earlier_tasks(self, stage: Stage) -> tuple[str, ...]:
        """Return other tasks that the checkpoint which a stage starts from can answer: their heads are kept in it."""
        return tuple(name for name in self._kept_at_start(stage) if name != stage.task)

    def read_by(self, stage: Stage) -> tuple[str, ...]:
        """Return the tasks whose rows a stage trains on, its own first."""
        earlier = self.earlier_tasks(stage) if stage.strategy.reads_earlier_tasks else ()
        return tuple(dict.fromkeys((stage.task, *stage.strategy.tasks, *earlier)))

    def answered_by(self, stage: Stage) -> tuple[str, ...]:
        """Return the tasks that a stage's checkpoint can answer, its own first."""
        if stage.strategy.leaves or self.left_before(stage):
            return (stage.task,)
        return tuple(dict.fromkeys((stage.task, *stage.strategy.tasks, *self._kept_at_start(stage))))

    def _kept_at_start(self, stage: Stage) -> tuple[str, ...]:
        if stage.start_from == BASE:
            return ()
        before = self.stage(stage.start_from)
        return tuple(n for n in self.answered_by(before) if n != before.task or before.strategy.keeps_head)

    def stage(self, name: str) -> Stage:
        """Return the stage with this name."""
        return next(s for s in self.stages if s.name == name)

    def members(self) -> tuple[Stage, ...]:
        """Return the stages that take part in fusion."""
        return tuple(s for s in self.stages if s.member and s.task == MAIN)

    def ordered_stages(self) -> tuple[Stage, ...]:
        """Return the stages, each after those it needs; the file's order where that leaves a choice."""
        ordered: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            for needed in self._needs(stage):
                if needed not in ordered:
                    visit(self.stage(needed))
            ordered[stage.name] = stage

        for stage in self.stages:
            if stage.name not in ordered:
                visit(stage)
        return tuple(ordered.values())

    def _needs(self, stage: Stage) -> tuple[str, ...]:
        return tuple(n for n in (stage.start_from, *teaching.waits_for(self, stage)) if n != BASE)

    def root_model(self, stage: Stage) -> str:
        """Return the pretrained model that a stage descends from."""
        if stage.start_from == BASE:
            return stage.base_model or self.own_model
        return self.root_model(self.stage(stage.start_from))

    def left_before(self, stage: Stage) -> frozenset[str]:
        """Return what the checkpoint that a stage starts from has beyond a plain one: `Strategy.leaves` of its line."""
        if stage.start_from == BASE:
            return frozenset()
        before = self.stage(stage.start_from)
        return before.strategy.leaves | self.left_before(before)

    def starts_with_words(self, stage: Stage) -> bool:
        """Return whether the stage that a stage starts from leaves a language model's head."""
        return stage.start_from != BASE and self.task(self.stage(stage.start_from).task).problem.predicts_words

    def common_start(self, names: Sequence[str]) -> str:
        """Return the nearest stage that all these stages descend from; "base" where there is none."""
        lines = [self._before(self.stage(name)) for name in names]
        return next(start for start in lines[0] if all(start in line for line in lines))

    def line(self, stage: Stage) -> tuple[str, ...]:
        """Return the stages that a stage descends from, the first first, and itself."""
        return (*reversed(self._before(stage)[:-1]), stage.name)

    def _before(self, stage: Stage) -> tuple[str, ...]:
        """Return what a stage descends from, the nearest first, "base" last."""
        if stage.start_from == BASE:
            return (BASE,)
        return (stage.start_from, *self._before(self.stage(stage.start_from)))

    @property
    def choice(self) -> BaseChoice | None:
        """The choice among base models, where there is one."""
        return self.base_model if isinstance(self.base_model, BaseChoice) else None

    @property
    def own_model(self) -> str:
        """The experiment's own base model; a name that stands for the chosen one, where it is to be chosen."""
        return CHOSEN if isinstance(self.base_model, BaseChoice) else self.base_model

    def needed_models(self) -> tuple[str, ...]:
        """Return every pretrained model that has to be had: `base_models`, with the candidates for a chosen one."""
        own = self.choice.candidates if self.choice else (self.own_model,)
        return tuple(dict.fromkeys((*own, *self.base_models()[1:])))

    def base_models(self) -> tuple[str, ...]:
        """Return every pretrained model that is used, the experiment's own first."""
        return tuple(dict.fromkeys((self.own_model, *(s.base_model for s in self.stages if s.base_model))))

    def base_models_of(self, task: str) -> tuple[str, ...]:
        """Return the pretrained models that read a task's rows; for the experiment's own all that are used."""
        if task == MAIN:
            return self.base_models()
        used = {self.root_model(s) for s in self.stages if task in (*self.read_by(s), *self.answered_by(s))}
        return tuple(model for model in self.base_models() if model in used)

    def source_columns(self, task: Task | None = None) -> dict[str, str | tuple[str, ...]]:
        """Return the column to read for each of a task's columns, the group, and, of the main task, for slices."""
        is_main = task is None or task.name == MAIN
        return (task or self.task()).source_columns(self.evaluation.slices if is_main else ())

    def seed_of(self, name: str) -> int:
        """Return the seed of one step: derived from the experiment's, different for each name."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:4], "big") % 2**31


def _with_training(stage: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(stage, dict) or not isinstance(stage.get("training", {}), dict):
        return stage
    return {**stage, "training": {**shared, **stage.get("training", {})}}
