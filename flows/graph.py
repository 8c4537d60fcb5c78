"""The order of the pipeline: which steps an experiment is made of, and what each one receives.

The Prefect flow walks this graph and runs it, `ftlib plan` walks it and only looks. There is no other place
where order is written down.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftlib.fusion.base import Fusion, Merging
from ftlib.params.experiment import BASE, Experiment, Stage
from ftlib.steps import Step
from tasks.data import Clean, Collect, Encode, Split
from tasks.evaluation import Evaluate, Explain, FusionCard, MemberCard, Report
from tasks.fusion import Fuse, Merge
from tasks.prediction import Compare, Predict, PredictJointly
from tasks.registry import Register
from tasks.training import Fetch, Train

GREEDY = "greedy"
"""The fusion that every other is compared with; always there."""


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
    yield Collect(
        step_name="collect",
        sources={str(split): source for split, source in e.data.sources.items()},
        columns=e.source_columns(),
        files=e.problem.file_columns,
        folder=e.data.folder,
    )
    yield Clean(step_name="clean", inputs={"rows": "collect"}, problem=e.problem, cleaning=e.cleaning)
    yield Split(
        step_name="split", inputs={"rows": "clean"}, problem=e.problem, splitting=e.splitting, seed=e.seed_of("split")
    )
    for model in e.base_models():
        yield Fetch(step_name=_suffixed("fetch", model, e), base_model=model)
        yield Encode(
            step_name=_suffixed("encode", model, e),
            inputs={"splits": "split", "checkpoint": _suffixed("fetch", model, e)},
            problem=e.problem,
        )


def _stages(e: Experiment) -> Iterator[Step]:
    predicted: set[str] = set()
    for stage in e.ordered_stages():
        for teacher in stage.strategy.teachers:
            if f"predict-{teacher}-train" not in predicted:
                predicted.add(f"predict-{teacher}-train")
                yield _predict(e, e.stage(teacher), "train", precision="auto")
        yield Train(
            step_name=f"train-{stage.name}",
            inputs={
                "start": _start(e, stage),
                "encoded": _encoded(e, stage),
                **{f"teacher_{i}": f"predict-{t}-train" for i, t in enumerate(stage.strategy.teachers)},
            },
            problem=e.problem,
            strategy=stage.strategy,
            training=stage.training,
            seed=e.seed_of(stage.name),
        )
        if stage.member:
            for split in dict.fromkeys((_fitting_split(e), "validation", "test")):
                yield _predict(e, stage, split)


def _agreements(e: Experiment) -> Iterator[Step]:
    """Yield what makes sure, before training, that members which are to answer together can."""
    members = e.members()
    if len({e.root_model(m) for m in members}) == 1:
        return
    for name, fusion in _joint(e).items():
        yield Compare(
            step_name=f"compare-{name}",
            inputs={f"checkpoint_{i}": _suffixed("fetch", e.root_model(m), e) for i, m in enumerate(members)},
            problem=e.problem,
            fusion=fusion,
            members=tuple(m.name for m in members),
        )


def _together(e: Experiment) -> Iterator[Step]:
    members = e.members()
    inputs = {
        **{f"checkpoint_{i}": f"train-{m.name}" for i, m in enumerate(members)},
        **{f"encoded_{i}": _encoded(e, m) for i, m in enumerate(members)},
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
    scored = _fitting_split(e)
    for name, merging in _merging(e).items():
        stages = [e.stage(member) for member in merging.members]
        inputs = {"encoded": _encoded(e, stages[0])}
        for i, stage in enumerate(stages):
            inputs[f"checkpoint_{i}"] = f"train-{stage.name}"
            if merging.scored:
                inputs[f"predictions_{i}"] = f"predict-{stage.name}-{scored}"
        if merging.needs_start:
            inputs["start"] = _checkpoint(e, e.common_start(merging.members), stages[0])
        yield Merge(
            step_name=f"merge-{name}",
            inputs=inputs,
            problem=e.problem,
            fusion=fusions(e)[name],
            members=merging.members,
            scored_split=scored,
        )
        for split in ("validation", "test"):
            yield _predict(e, stages[0], split, checkpoint=f"merge-{name}")


def _fusions(e: Experiment) -> Iterator[Step]:
    for name, fusion in fusions(e).items():
        inputs = {"splits": "split"}
        merged = name in _merging(e)
        as_one = merged or name in _joint(e)
        fitting = "validation" if as_one else _fitting_split(e)  # what members say as one is not fitted
        names = (name,) if merged else tuple(stage.name for stage in e.members())
        for i, member in enumerate(names):
            says = name if as_one else member
            inputs[f"fitting_{i}"] = f"predict-{says}-{fitting}"
            if fitting != "validation":
                inputs[f"validation_{i}"] = f"predict-{says}-validation"
        yield Fuse(
            step_name=f"fuse-{name}",
            inputs=inputs,
            problem=e.problem,
            fusion=fusion,
            members=names,
            fitting_split=fitting,
            seed=e.seed_of(name),
        )


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
    data = {"collected": "collect", "cleaned": "clean", "splits": "split", "encoded": _encoded(e, members[0])}
    yield Report(
        step_name="report",
        inputs={**data, "evaluation": "evaluate", "explained": "explain", **checkpoints},
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


def _card(stage: Stage) -> MemberCard:
    told = {"learning_rate", "num_train_epochs", "batch_size"}
    return MemberCard(
        name=stage.name,
        strategy=stage.strategy.model_dump(mode="json"),
        start_from=stage.start_from,
        training=stage.training.model_dump(mode="json", include=told),
    )


def fusions(e: Experiment) -> dict[str, Fusion]:
    """Return the experiment's fusions by name, greedy ensemble selection among them."""
    chosen = {f.name: f.method for f in e.fusions}
    return {**chosen, **({} if GREEDY in chosen else {GREEDY: Fusion.named(GREEDY)()})}


def _joint(e: Experiment) -> dict[str, Fusion]:
    """Return those fusions whose members answer together."""
    return {name: f for name, f in fusions(e).items() if f.joint(len(e.members())) is not None}


def _merging(e: Experiment) -> dict[str, Merging]:
    """Return what those fusions merge that make one model of members."""
    names = [m.name for m in e.members()]
    return {name: found for name, f in fusions(e).items() if (found := f.merging(names)) is not None}


def _predict(
    e: Experiment, stage: Stage, split: str, precision: str = "float32", checkpoint: str | None = None
) -> Predict:
    """Return the step for a stage, or for another step's checkpoint that reads the same encoding."""
    checkpoint = checkpoint or f"train-{stage.name}"
    return Predict(
        step_name=f"predict-{checkpoint.partition('-')[2]}-{split}",
        inputs={"checkpoint": checkpoint, "encoded": _encoded(e, stage)},
        problem=e.problem,
        split=split,
        precision=precision,  # type: ignore[arg-type]
    )


def _fitting_split(e: Experiment) -> str:
    return "fusion" if e.splitting.fusion_ratio > 0 or "fusion" in e.data.sources else "validation"


def _start(e: Experiment, stage: Stage) -> str:
    return _checkpoint(e, stage.start_from, stage)


def _checkpoint(e: Experiment, origin: str, stage: Stage) -> str:
    """Return the step that gives a checkpoint which a stage descends from: a stage's, or the base model."""
    return _suffixed("fetch", e.root_model(stage), e) if origin == BASE else f"train-{origin}"


def _encoded(e: Experiment, stage: Stage) -> str:
    return _suffixed("encode", e.root_model(stage), e)


def _suffixed(step: str, model: str, e: Experiment) -> str:
    """Return "encode" for the experiment's own base model, "encode-2"... for the other ones."""
    number = e.base_models().index(model)
    return step if number == 0 else f"{step}-{number + 1}"
