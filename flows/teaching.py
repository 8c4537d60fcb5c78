"""The steps by which stages learn from others: what stages and fusions say of training rows, and their layers."""

from __future__ import annotations

from collections.abc import Iterator

from flows import wiring
from ftlib.params.experiment import Experiment, Stage
from ftlib.params.teaching import fusion_teachers, fusions, splits_read, stage_teachers, teaching_members
from ftlib.problems.base import MAIN
from ftlib.steps import Step
from tasks.prediction import Describe, PredictFused, SameTokens


def lessons(e: Experiment, stage: Stage) -> Iterator[Step]:
    """Yield what teaches a stage: its teachers' scores of the rows that it reads, and what layers make of them."""
    lesson = stage.strategy.lesson
    if lesson:
        yield Describe(
            step_name=f"describe-{stage.name}",
            inputs={
                "checkpoint": f"train-{lesson.teacher}",
                "encoded": wiring.encoded(e, e.stage(lesson.teacher), stage.task),
            },
            problem=e.task(stage.task).problem,
            task=stage.task,
            splits=splits_read(e, stage),
            num_blocks=lesson.num_blocks,
            hidden=lesson.hidden,
            attention=lesson.attention,
        )
    fused = fusion_teachers(e, stage)
    scoring = (*stage_teachers(e, stage), *((m.name for m in teaching_members(e)) if fused else ()))
    for split in splits_read(e, stage):
        for teacher in scoring:
            if fused or not lesson or teacher != lesson.teacher:
                yield wiring.predict(e, e.stage(teacher), split, precision="auto", task=stage.task)
        for name in fused:
            yield from _teaching(e, name, split)


def _teaching(e: Experiment, name: str, split: str) -> Iterator[Step]:
    """Yield a fusion that teaches, fitted on those members that learn from none, and what it says of rows."""
    members = tuple(m.name for m in teaching_members(e))
    yield wiring.fuse(e, f"teach-{name}", name, members, wiring.fitting_split(e), members)
    yield PredictFused(
        step_name=wiring.predicted(name, split, MAIN),
        inputs={
            "splits": "split",
            "combiner": f"teach-{name}",
            **{f"predictions_{i}": wiring.predicted(m, split, MAIN) for i, m in enumerate(members)},
        },
        fusion=fusions(e)[name],
        split=split,
    )


def taught(e: Experiment, stage: Stage) -> dict[str, str]:
    """Return what a stage's training receives of its teachers."""
    lesson, inputs = stage.strategy.lesson, {}
    for i, teacher in enumerate(stage.strategy.teachers):
        for split, argument in zip(splits_read(e, stage), ("teacher", "unlabelled"), strict=False):
            described = lesson is not None and teacher == lesson.teacher
            says = f"describe-{stage.name}" if described else wiring.predicted(teacher, split, stage.task)
            inputs[f"{argument}_{i}"] = says
    return {**inputs, **({"layers": f"describe-{stage.name}"} if lesson else {})}


def same_tokens(e: Experiment, stage: Stage) -> Iterator[Step]:
    """Yield what makes sure, before training, that a student reads its teachers' tokens where it learns of each one."""
    lesson, token_by_token = stage.strategy.lesson, e.task(stage.task).problem.learning.learns_tokens
    wanted = dict.fromkeys(
        (*(stage_teachers(e, stage) if token_by_token else ()), *([lesson.teacher] if lesson else []))
    )
    for teacher in wanted:
        mine, theirs = wiring.encoded(e, stage), wiring.encoded(e, e.stage(teacher), stage.task)
        if mine != theirs:
            yield SameTokens(
                step_name=f"compare-{teacher}.{stage.name}",
                inputs={"teacher_encoded": theirs, "student_encoded": mine},
                teacher=teacher,
                student=stage.name,
            )
