"""Who teaches whom: the stages and fusions that a stage learns from, and what stands against it before any work.

A fusion that teaches is fitted anew on those members that learn from no fusion, directly or through a stage that they
need: so no two stages can wait for each other, and a student may be a member of the fusion that taught it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError, unknown
from ftlib.problems._answering import Answering
from ftlib.problems.base import MAIN, Problem

if TYPE_CHECKING:
    from ftlib.fusion.base import Fusion
    from ftlib.models.sizes import Size
    from ftlib.params.experiment import Experiment, Stage

GREEDY = "greedy"
"""The fusion that every other is compared with; always there."""


def fusions(experiment: Experiment) -> dict[str, Fusion]:
    """Return the experiment's fusions by name, greedy ensemble selection among them."""
    from ftlib.fusion.base import Fusion

    chosen = {f.name: f.method for f in experiment.fusions}
    return {**chosen, **({} if GREEDY in chosen else {GREEDY: Fusion.named(GREEDY)()})}


def fusion_teachers(experiment: Experiment, stage: Stage) -> tuple[str, ...]:
    """Return the fusions that a stage learns from."""
    stages = {s.name for s in experiment.stages}
    known = {GREEDY, *(fusion.name for fusion in experiment.fusions)} - stages
    return tuple(name for name in stage.strategy.teachers if name in known)


def stage_teachers(experiment: Experiment, stage: Stage) -> tuple[str, ...]:
    """Return the stages whose own scores a stage learns from."""
    others = fusion_teachers(experiment, stage)
    return tuple(name for name in stage.strategy.teachers if name not in others)


def waits_for(experiment: Experiment, stage: Stage) -> tuple[str, ...]:
    """Return the stages that must be done before a stage can learn from them; of fusions, their members."""
    lesson = stage.strategy.lesson
    members = teaching_members(experiment) if fusion_teachers(experiment, stage) else ()
    names = (*stage_teachers(experiment, stage), *([lesson.teacher] if lesson else []), *(m.name for m in members))
    return tuple(dict.fromkeys(names))


def teaching_members(experiment: Experiment) -> tuple[Stage, ...]:
    """Return the members of fusions that teach: those that learn from no fusion."""
    return tuple(m for m in experiment.members() if not _learns_from_fusion(experiment, m))


def _learns_from_fusion(experiment: Experiment, stage: Stage) -> bool:
    by_name = {s.name: s for s in experiment.stages}
    waiting, seen = [stage.name], set()
    while waiting:
        found = by_name.get(waiting.pop())
        if found is None or found.name in seen:
            continue
        seen.add(found.name)
        if fusion_teachers(experiment, found):
            return True
        lesson = found.strategy.lesson
        waiting += [found.start_from, *found.strategy.teachers, *([lesson.teacher] if lesson else [])]
    return False


def splits_read(experiment: Experiment, stage: Stage) -> tuple[str, ...]:
    """Return the splits whose rows a stage trains on."""
    has_unlabelled = "unlabelled" in experiment.task(stage.task).data.sources
    return ("train", "unlabelled") if has_unlabelled and stage.strategy.reads_unlabelled else ("train",)


# -- before any work -------------------------------------------------------------------------------------


def name_problems(experiment: Experiment, stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the names of a stage's teachers: the field of its strategy, and what to do."""
    others = [s.name for s in experiment.stages if s.name != stage.name]
    fused = fusion_teachers(experiment, stage)
    for teacher in stage.strategy.teachers:
        if teacher not in (*others, stage.name, *fused):
            yield "teacher", unknown("stage", teacher, others)
    lesson = stage.strategy.lesson
    if lesson and lesson.teacher in fused:
        line = f"the fusion {lesson.teacher!r} has no layers to be imitated; name a stage, one of: {', '.join(others)}."
        yield "layer_teacher", line
    elif lesson and lesson.teacher not in (*others, stage.name, *stage.strategy.teachers):
        yield "layer_teacher", unknown("stage", lesson.teacher, others)
    if fused and stage.task != MAIN:
        yield "teacher", f"the fusion {fused[0]!r} has learned {MAIN}, not {stage.task}; name a stage that has."
    elif fused and not teaching_members(experiment):
        yield "teacher", f"the fusion {fused[0]!r} has no member that learns from no fusion; add a stage that is one."


def unread_problems(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield tasks whose rows without labels no stage reads: where, and what to do."""
    for i, task in enumerate(experiment.all_tasks()):
        readers = [s for s in experiment.stages if s.task == task.name and "unlabelled" in splits_read(experiment, s)]
        if "unlabelled" in task.data.sources and not readers:
            at = f"tasks.{i - 1}." if i else ""
            line = "no stage learns from rows without labels; add one of strategy distillation, or leave them out."
            yield f"{at}data.sources.unlabelled", line


def check_fusions(experiment: Experiment, stage: Stage) -> None:
    """Refuse a fusion that cannot teach a stage (UnsupportedError)."""
    members = [m.name for m in teaching_members(experiment)]
    for name in fusion_teachers(experiment, stage):
        remedy = f"name its members as teachers: teacher: [{', '.join(members)}]."
        fusion, problem = fusions(experiment)[name], experiment.problem
        if fusion.joint(len(members)) is not None or fusion.merging(members) is not None:
            raise UnsupportedError(f"{name} ({fusion.name}) cannot teach: its members make one model, which answers in "
                                   f"their place; {remedy}")  # fmt: skip
        if type(problem).align is not Problem.align or type(problem.answering).align is not Answering.align:
            raise UnsupportedError(f"{name} cannot teach {problem.name}: a fusion teaches where each row has one "
                                   f"answer, and its rows have more; {remedy}")  # fmt: skip


def check_unlabelled(experiment: Experiment, stage: Stage) -> None:
    """Refuse rows without labels where the loss on gold labels cannot leave rows out (UnsupportedError)."""
    target = experiment.task(stage.task).problem.target
    if "unlabelled" in splits_read(experiment, stage) and target.no_label is None:
        raise UnsupportedError(
            f"{stage.strategy.name} cannot learn {experiment.task(stage.task).problem.name} from rows without labels: "
            "that is for problems with one label, several or a number a row; leave data.sources.unlabelled out, or "
            "set unlabelled: false."
        )


def larger_students(experiment: Experiment, sizes: Mapping[str, Size]) -> Iterator[str]:
    """Yield a warning for each student that is larger than all its teachers, where sizes are known."""
    for stage in experiment.stages:
        mine = sizes[stage.name].weights if stage.name in sizes else None
        theirs = [sizes[name].weights if name in sizes else None for name in stage_teachers(experiment, stage)]
        known = [weights for weights in theirs if weights]
        if mine and known and len(known) == len(stage.strategy.teachers) and mine > max(known):
            yield (
                f"stage {stage.name!r}: the student's blocks have {mine:,} weights, more than its teacher's "
                f"{max(known):,}; it costs more than what it learns from."
            )
