"""The order of the pipeline: which steps an experiment is made of, and what each one receives.

The Prefect flow walks this graph and runs it, `ftlib plan` walks it and only looks. There is no other place
where order is written down.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows import choosing, teaching, wiring
from ftlib.fusion.base import Fusion, Merging
from ftlib.params.experiment import Experiment, Stage
from ftlib.params.teaching import fusions, splits_read
from ftlib.problems.base import MAIN
from ftlib.steps import Step
from tasks.data import Clean, Collect, Encode, Split
from tasks.evaluation import Evaluate, Explain, FusionCard, MemberCard, Report, Transfer
from tasks.fusion import Merge
from tasks.prediction import Compare, PredictJointly
from tasks.registry import Register
from tasks.training import Fetch, Train


def steps(experiment: Experiment) -> tuple[Step, ...]:
    """Return the experiment's steps, each after those whose artifacts it receives."""
    return (
        *_data(experiment),
        *_agreements(experiment),
        *_stages(experiment),
        *_together(experiment),
        *_merged(experiment),
        *_fusions(experiment),
        *_results(experiment),
    )


def _data(e: Experiment) -> Iterator[Step]:
    for task in e.all_tasks():
        name = task.name
        yield Collect(
            step_name=wiring.of("collect", name),
            sources={str(split): source for split, source in task.data.sources.items()},
            columns=e.source_columns(task),
            files=task.problem.file_columns,
            folder=task.data.folder,
            unlabelled=task.unlabelled_columns(),
        )
        rows = {"rows": wiring.of("collect", name)}
        yield Clean(step_name=wiring.of("clean", name), inputs=rows, problem=task.problem, cleaning=task.cleaning)
        yield Split(
            step_name=wiring.of("split", name),
            inputs={"rows": wiring.of("clean", name)},
            problem=task.problem,
            splitting=task.splitting,
            seed=e.seed_of(wiring.of("split", name)),
        )
        for model in e.base_models_of(name):
            fetched = wiring.suffixed("fetch", model, e)
            if name == MAIN:
                yield from _fetched(e, model, fetched)
            yield Encode(
                step_name=wiring.suffixed(wiring.of("encode", name), model, e),
                inputs={"splits": wiring.of("split", name), "checkpoint": fetched},
                problem=task.problem,
            )


def _fetched(e: Experiment, model: str, fetched: str) -> Iterator[Step]:
    """Yield the step that brings a base model; for one that is to be chosen, those that choose it, too."""
    if e.choice and model == e.own_model:
        yield from choosing.steps(e, e.choice, splits="split", fetched=fetched)
    else:
        yield Fetch(step_name=fetched, base_model=model)


def _stages(e: Experiment) -> Iterator[Step]:
    done: set[str] = set()
    for stage in e.ordered_stages():
        for step in teaching.lessons(e, stage):
            if step.step_name not in done:
                done.add(step.step_name)
                yield step
        others = e.read_by(stage)[1:]
        yield Train(
            step_name=f"train-{stage.name}",
            inputs={
                "start": wiring.start(e, stage),
                "encoded": wiring.encoded(e, stage),
                **teaching.taught(e, stage),
                **{f"task_{i}": wiring.encoded(e, stage, task) for i, task in enumerate(others)},
            },
            problem=e.task(stage.task).problem,
            task=stage.task,
            others=others,
            splits=splits_read(e, stage),
            strategy=stage.strategy,
            training=stage.training,
            seed=e.seed_of(stage.name),
        )
        if stage in e.members():
            for split in dict.fromkeys((wiring.fitting_split(e), "validation", "test")):
                yield wiring.predict(e, stage, split)
        for task in e.answered_by(stage) if e.tasks else ():
            if task != MAIN or stage not in e.members():
                yield wiring.predict(e, stage, "test", task=task)


def _agreements(e: Experiment) -> Iterator[Step]:
    """Yield what makes sure, before training, that members which are to answer together can."""
    for stage in e.stages:
        yield from teaching.same_tokens(e, stage)
    members = e.members()
    if len({e.root_model(m) for m in members}) == 1:
        return
    for name, fusion in _joint(e).items():
        yield Compare(
            step_name=f"compare-{name}",
            inputs={f"checkpoint_{i}": wiring.suffixed("fetch", e.root_model(m), e) for i, m in enumerate(members)},
            problem=e.problem,
            fusion=fusion,
            members=tuple(m.name for m in members),
        )


def _together(e: Experiment) -> Iterator[Step]:
    members = e.members()
    inputs = {
        **{f"checkpoint_{i}": f"train-{m.name}" for i, m in enumerate(members)},
        **{f"encoded_{i}": wiring.encoded(e, m) for i, m in enumerate(members)},
    }
    for name, fusion in _joint(e).items():
        for split in ("validation", "test"):
            yield PredictJointly(
                step_name=f"predict-{name}-{split}",
                inputs=inputs,
                problem=e.problem,
                fusion=fusion,
                members=tuple(m.name for m in members),
                split=split,
            )


def _merged(e: Experiment) -> Iterator[Step]:
    scored = wiring.fitting_split(e)
    for name, merging in _merging(e).items():
        stages = [e.stage(member) for member in merging.members]
        inputs = {"encoded": wiring.encoded(e, stages[0])}
        for i, stage in enumerate(stages):
            inputs[f"checkpoint_{i}"] = f"train-{stage.name}"
            if merging.scored:
                inputs[f"predictions_{i}"] = f"predict-{stage.name}-{scored}"
        if merging.needs_start:
            inputs["start"] = wiring.checkpoint(e, e.common_start(merging.members), stages[0])
        yield Merge(
            step_name=f"merge-{name}",
            inputs=inputs,
            problem=e.problem,
            fusion=fusions(e)[name],
            members=merging.members,
            scored_split=scored,
        )
        for split in ("validation", "test"):
            yield wiring.predict(e, stages[0], split, checkpoint=f"merge-{name}")


def _fusions(e: Experiment) -> Iterator[Step]:
    for name in fusions(e):
        merged = name in _merging(e)
        as_one = merged or name in _joint(e)
        fitting = "validation" if as_one else wiring.fitting_split(e)  # what members say as one is not fitted
        names = (name,) if merged else tuple(stage.name for stage in e.members())
        yield wiring.fuse(e, f"fuse-{name}", name, names, fitting, (name,) * len(names) if as_one else names)


def _results(e: Experiment) -> Iterator[Step]:
    members = e.members()
    checkpoints = {f"checkpoint_{i}": f"train-{m.name}" for i, m in enumerate(members)}
    fused = {f"fusion_{j}": f"fuse-{name}" for j, name in enumerate(fusions(e))}
    predictions = {
        f"{split}_{i}": f"predict-{m.name}-{split}" for i, m in enumerate(members) for split in ("validation", "test")
    }
    together = {
        f"{split}_fusion_{j}": f"predict-{name}-{split}"
        for j, name in enumerate(fusions(e))
        for split in ("validation", "test")
        if name in {**_joint(e), **_merging(e)}
    }
    merged = {f"merged_{j}": f"merge-{name}" for j, name in enumerate(fusions(e)) if name in _merging(e)}
    names = tuple(m.name for m in members)
    cards = tuple(FusionCard(name=name, method=fusion) for name, fusion in fusions(e).items())
    yield Evaluate(
        step_name="evaluate",
        inputs={"splits": "split", **checkpoints, **predictions, **together, **fused, **merged},
        problem=e.problem,
        evaluation=e.evaluation,
        members=names,
        fusions=cards,
        seed=e.seed_of("evaluate"),
    )
    yield Explain(
        step_name="explain",
        inputs={"splits": "split", "evaluation": "evaluate", **checkpoints, **fused, **merged},
        problem=e.problem,
        members=names,
        fusions=cards,
        number=e.evaluation.explained_errors,
    )
    yield from _transfer(e)
    data = {"collected": "collect", "cleaned": "clean", "splits": "split", "encoded": wiring.encoded(e, members[0])}
    transfer = {"transfer": "transfer"} if e.tasks else {}
    choice = {"choice": "choose"} if e.choice else {}
    yield Report(
        step_name="report",
        inputs={**data, **transfer, **choice, "evaluation": "evaluate", "explained": "explain", **checkpoints},
        experiment=e.name,
        members=tuple(_card(m) for m in members),
        seed=e.seed_of("evaluate"),
    )
    yield Register(
        step_name="register",
        inputs={"splits": "split", "evaluation": "evaluate", **checkpoints, **fused, **merged},
        problem=e.problem,
        cleaning=e.cleaning,
        members=names,
        fusions=fusions(e),
    )


def _transfer(e: Experiment) -> Iterator[Step]:
    """Yield what compares stages task by task, where there are several tasks."""
    if not e.tasks:
        return
    answers = [(stage, task) for stage in e.ordered_stages() for task in e.answered_by(stage)]
    yield Transfer(
        step_name="transfer",
        inputs={
            **{f"splits_{i}": wiring.of("split", task.name) for i, task in enumerate(e.all_tasks())},
            **{f"test_{i}": wiring.predicted(stage.name, "test", task) for i, (stage, task) in enumerate(answers)},
        },
        tasks=tuple(task.name for task in e.all_tasks()),
        answers=tuple((stage.name, task) for stage, task in answers),
        lines={stage.name: e.line(stage) for stage in e.ordered_stages()},
        learns={stage.name: stage.task for stage in e.stages},
        evaluation=e.evaluation,
        seed=e.seed_of("transfer"),
    )


def _card(stage: Stage) -> MemberCard:
    told = {"learning_rate", "num_train_epochs", "batch_size"}
    return MemberCard(
        name=stage.name,
        strategy=stage.strategy.model_dump(mode="json"),
        start_from=stage.start_from,
        training=stage.training.model_dump(mode="json", include=told),
    )


def _joint(e: Experiment) -> dict[str, Fusion]:
    """Return those fusions whose members answer together."""
    return {name: f for name, f in fusions(e).items() if f.joint(len(e.members())) is not None}


def _merging(e: Experiment) -> dict[str, Merging]:
    """Return what those fusions merge that make one model of members."""
    names = [m.name for m in e.members()]
    return {name: found for name, f in fusions(e).items() if (found := f.merging(names)) is not None}
