"""How steps are called and wired together, and those that are made in several places of the graph."""

from __future__ import annotations

from ftlib.params.experiment import BASE, Experiment, Stage
from ftlib.params.teaching import fusions
from ftlib.problems.base import MAIN
from tasks.fusion import Fuse
from tasks.prediction import Predict


def predict(
    e: Experiment,
    stage: Stage,
    split: str,
    precision: str = "float32",
    checkpoint: str | None = None,
    task: str | None = None,
) -> Predict:
    """Return the step for a stage, or for another step's checkpoint that reads the same encoding; for its own task."""
    checkpoint, task = checkpoint or f"train-{stage.name}", task or stage.task
    return Predict(
        step_name=predicted(checkpoint.partition("-")[2], split, task),
        inputs={"checkpoint": checkpoint, "encoded": encoded(e, stage, task)},
        problem=e.task(task).problem,
        task=task,
        split=split,
        precision=precision,  # type: ignore[arg-type]
    )


def predicted(name: str, split: str, task: str) -> str:
    """Return the step that holds what a stage or fusion says of a split of a task."""
    return f"predict-{of(name, task)}-{split}"


def of(name: str, task: str) -> str:
    """Return a step's name for one task: no name of an experiment has a dot, so that none can be meant twice."""
    return name if task == MAIN else f"{name}.{task}"


def fitting_split(e: Experiment) -> str:
    """Return the split that fusions are fitted on."""
    return "fusion" if e.task().has_fusion_split() else "validation"


def start(e: Experiment, stage: Stage) -> str:
    """Return the step that gives the checkpoint which a stage starts from."""
    return checkpoint(e, stage.start_from, stage)


def checkpoint(e: Experiment, origin: str, stage: Stage) -> str:
    """Return the step that gives a checkpoint which a stage descends from: a stage's, or the base model."""
    return suffixed("fetch", e.root_model(stage), e) if origin == BASE else f"train-{origin}"


def encoded(e: Experiment, stage: Stage, task: str | None = None) -> str:
    """Return the step that encodes a task's rows, a stage's own unless given, as the stage reads them."""
    return suffixed(of("encode", task or stage.task), e.root_model(stage), e)


def suffixed(step: str, model: str, e: Experiment) -> str:
    """Return "encode" for the experiment's own base model, "encode-2"... for the other ones."""
    number = e.base_models().index(model)
    return step if number == 0 else f"{step}-{number + 1}"


def fuse(
    e: Experiment, step_name: str, name: str, members: tuple[str, ...], fitting: str, says: tuple[str, ...]
) -> Fuse:
    """Return the step that fits a fusion of members, each with whose predictions stand for its own."""
    inputs = {"splits": "split"}
    for i, source in enumerate(says):
        inputs[f"fitting_{i}"] = f"predict-{source}-{fitting}"
        if fitting != "validation":
            inputs[f"validation_{i}"] = f"predict-{source}-validation"
    return Fuse(
        step_name=step_name,
        inputs=inputs,
        problem=e.problem,
        fusion=fusions(e)[name],
        members=members,
        fitting_split=fitting,
        seed=e.seed_of(name),
    )
