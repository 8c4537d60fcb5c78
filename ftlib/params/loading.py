"""Load an experiment: a params file, its ``--set`` overrides, and every problem in them told at once."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ftlib.errors import CheckpointError, DataError, FtlibError, ParamsError, unknown
from ftlib.params import teaching
from ftlib.params.documents import Document, Trail, parse_document, read_document
from ftlib.params.experiment import BASE, Experiment
from ftlib.params.explaining import Problem, crossing, explain, told
from ftlib.params.merging import check_mergeable
from ftlib.params.overriding import override
from ftlib.params.searching import space_problems
from ftlib.params.shapes import locate, unwrap
from ftlib.plugins import Plugin
from ftlib.problems.base import MAIN
from ftlib.strategies.base import LANGUAGE_MODEL_HEAD

if TYPE_CHECKING:
    from ftlib.models.sizes import Size
    from ftlib.targets.base import Target

logger = logging.getLogger(__name__)


def load_experiment(source: Path | str | dict[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment that a params file describes.

    Args:
        source: A file's path, YAML text of several lines, or what YAML would give.
        overrides: Changes on top, as ``--set`` takes them: ``stages.0.strategy.r=16``.

    Raises:
        ParamsError: With a line for each problem: where it stands, what is wrong, what to do.
    """
    return validated(read_params(source, overrides))


def read_params(source: Path | str | dict[str, Any], overrides: Sequence[str] = ()) -> Document:
    """Return what a params file says with changes on top; whether it is right, `validated` tells.

    Args:
        source: See `load_experiment`.
        overrides: See `load_experiment`.

    Raises:
        ParamsError: If it is no params file, or a change leads nowhere.
    """
    document = _document(source)
    wrong: list[str] = []
    for change in overrides:
        try:
            override(document, change, Experiment)
        except ParamsError as error:
            wrong += error.problems
    if wrong:
        raise ParamsError(*wrong)
    return document


def check_inputs(experiment: Experiment) -> None:
    """Check what the experiment needs from outside: its files and their columns, and its pretrained models.

    Raises:
        DataError: If a file or a column is not there, a pretrained model cannot be had, or it has no such weights as
            a strategy names.
    """
    problems = list(_missing_inputs(experiment)) or list(_missing_weights(experiment))
    if problems:
        raise DataError("\n".join(problems))


def _missing_weights(experiment: Experiment) -> Iterator[str]:
    """Yield what strategies that name weights do not find in the base models; only these are looked into."""
    for stage in experiment.stages:
        if not stage.strategy.names_weights or stage.start_from != BASE:
            continue
        from ftlib.models.skeletons import skeleton

        problem = experiment.task(stage.task).problem
        model = skeleton(experiment.root_model(stage), problem)
        try:
            if model is not None:
                stage.strategy.adapt(model, problem)
        except FtlibError as error:
            yield f"stage {stage.name!r}: {error}"


def _missing_inputs(experiment: Experiment) -> Iterator[str]:
    from ftlib.data.collect import check_columns
    from ftlib.models.pretrained import fingerprint

    for task in experiment.all_tasks():
        try:
            sources = {str(split): source for split, source in task.data.sources.items()}
            check_columns(sources, experiment.source_columns(task), task.unlabelled_columns())
        except DataError as error:
            yield str(error) if task.name == MAIN else f"task {task.name}: {error}"
    for model in experiment.needed_models():
        try:
            fingerprint(model)
        except CheckpointError as error:
            yield str(error)


def _document(source: Path | str | dict[str, Any]) -> Document:
    if isinstance(source, dict):
        return Document("params", _plain(source))
    if isinstance(source, str) and "\n" in source:
        return parse_document(source, "params")
    return read_document(Path(source))


def _plain(value: Any) -> Any:
    """Return a copy with lists for tuples, that overrides may change."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else copy.copy(value)


def validated(document: Document) -> Experiment:
    """Return the experiment that params describe.

    Raises:
        ParamsError: With a line for each problem.
    """
    try:
        experiment = Experiment.model_validate(document.value)
    except ValidationError as error:
        problems = explain(error, document, Experiment)
        raise ParamsError(*told([*problems, *_further(problems, document)], document)) from None
    problems = list(_unsupported(experiment)) or list(space_problems(experiment, document, load_experiment))
    if problems:
        raise ParamsError(*told(problems, document))
    return experiment


def _further(problems: list[Problem], document: Document) -> list[Problem]:
    """Return the problems between sections that show only once those within sections are out of the way.

    What is wrong is taken out of a copy (a wrong plugin is replaced by any right one) and the rest is
    validated again. What then touches a place that is known to be wrong says nothing new.
    """
    rest = Document(document.label, _plain(document.value))
    for trail, _ in problems:
        _take_out(rest, trail)
    try:
        found = list(_unsupported(Experiment.model_validate(rest.value)))
    except ValidationError as error:
        lines = [d["ctx"]["lines"] for d in error.errors() if d["type"] == "experiment"]
        found = [problem for text in lines for problem in crossing(text)]
    known = [_plugin_trail(document, trail) or trail for trail, _ in problems]
    if ("problem",) in known:  # another one stood in for it: what goes with that one says nothing
        known += [("data", "columns"), ("stages",), ("fusions",), ("evaluation",)]
    return [(trail, message) for trail, message in found if not any(_related(trail, k) for k in known)]


def _take_out(document: Document, trail: Trail) -> None:
    plugin = _plugin_trail(document, trail)
    parent = document.at(plugin[:-1] if plugin else trail[:-1])
    if plugin and isinstance(parent, (dict, list)):
        family = unwrap(locate(Experiment, plugin, document.value).annotation)[0]
        parent[plugin[-1]] = {"name": family.available()[0]}  # type: ignore[index]
    elif isinstance(parent, dict):
        parent.pop(trail[-1], None)


def _plugin_trail(document: Document, trail: Trail) -> Trail | None:
    """Return where the plugin stands that is wrong as a whole: the trail's own end, or what its name chooses."""
    ends = [trail, trail[:-1]] if trail[-1] == "name" else [trail]
    for end in ends:
        wanted = unwrap(locate(Experiment, end, document.value).annotation)[0]
        if end and isinstance(wanted, type) and issubclass(wanted, Plugin):
            return end
    return None


def _related(one: Trail, other: Trail) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _unsupported(experiment: Experiment) -> Iterator[Problem]:
    """Ask the problem for its target, and every strategy, fusion and the metric whether they go with it."""
    sizes, too_small = _sizes(experiment)
    yield from too_small
    for i, stage in enumerate(experiment.stages):
        try:
            stage.strategy.check(experiment.task(stage.task).problem)
        except FtlibError as error:
            yield ("stages", i, "strategy"), str(error)
        try:
            before = "" if stage.start_from == BASE else stage.start_from
            words = {LANGUAGE_MODEL_HEAD} if experiment.starts_with_words(stage) else set()
            stage.strategy.check_start(experiment.left_before(stage) | words, before)
        except FtlibError as error:
            yield ("stages", i, "start_from"), f"stage {stage.name!r}: {error}"
        try:
            others = {name: experiment.task(name).problem for name in experiment.read_by(stage)[1:]}
            stage.strategy.check_others(experiment.task(stage.task).problem, others)
        except FtlibError as error:
            yield ("stages", i, "strategy"), str(error)
    for i, task in enumerate(experiment.tasks):
        try:
            _ = task.problem.target
        except FtlibError as error:
            yield ("tasks", i, "problem"), str(error)
    try:
        target = experiment.problem.target
    except FtlibError as error:
        yield ("problem",), str(error)
        return
    unmergeable = dict(_unmergeable(experiment, sizes))
    yield from _unfit_candidates(experiment, unmergeable)
    for i, stage in enumerate(experiment.stages):
        try:
            stage.strategy.check_settings(stage.training)
            stage.training.regularization.check(experiment.task(stage.task).problem)
        except FtlibError as error:
            yield ("stages", i, "training", "regularization"), f"stage {stage.name!r}: {error}"
    for i, stage in enumerate(experiment.stages):
        try:
            teaching.check_fusions(experiment, stage)
            teaching.check_unlabelled(experiment, stage)
        except FtlibError as error:
            yield ("stages", i, "strategy"), f"stage {stage.name!r}: {error}"
    if not too_small:
        for line in teaching.larger_students(experiment, sizes):
            logger.warning("%s", line)
    for i, fusion in enumerate(experiment.fusions):
        try:
            fusion.method.check(target)
            fusion.method.joint(len(experiment.members()))
        except FtlibError as error:
            yield ("fusions", i, "method"), str(error)
            unmergeable.pop(("fusions", i, "method"), None)
    yield from unmergeable.items()
    metric = experiment.evaluation.metric
    if metric is not None and metric not in _metrics(target):
        yield ("evaluation", "metric"), unknown("metric", metric, _metrics(target))


def _unmergeable(experiment: Experiment, sizes: Mapping[str, Size]) -> Iterator[Problem]:
    """Ask of every fusion whether it would merge what is built otherwise."""
    for i, fusion in enumerate(experiment.fusions):
        try:
            check_mergeable(experiment, fusion.method, sizes)
        except FtlibError as error:
            yield ("fusions", i, "method"), str(error)


def _unfit_candidates(experiment: Experiment, known: Container[Trail]) -> Iterator[Problem]:
    """Ask a choice among base models for what is wrong, and every candidate at hand for room and likeness.

    Args:
        experiment: Any.
        known: Where something is wrong with any of them, which is told once.
    """
    choice = experiment.choice
    if choice is None:
        return
    for trail, message in choice.problems(experiment.problem):
        yield ("base_model", *trail), message
    left_out = choice.left_out(experiment.problem)
    if len(left_out) == len(choice.candidates):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        yield ("base_model", "candidates"), f"none of them can do the problem: {reasons}. Name others."
    for candidate in choice.candidates:
        if candidate not in left_out:
            tried = experiment.model_copy(update={"base_model": candidate})
            sizes, too_small = _sizes(tried)
            found = [*too_small, *_unmergeable(tried, sizes)]
            yield from ((trail, f"{message} (candidate {candidate})") for trail, message in found if trail not in known)


def _sizes(experiment: Experiment) -> tuple[dict[str, Size], list[Problem]]:
    """Ask the problem and every strategy whether the base models are large enough, where their configs are at hand.

    Returns:
        Stage -> what it leaves of its base model's size, where that is known, and what is too small.
    """
    from ftlib.models.sizes import size_of

    problems: list[Problem] = []
    sizes = {model: size for model in experiment.base_models() if (size := size_of(model))}
    for i, task in enumerate(experiment.all_tasks()):
        trail: Trail = ("tasks", i - 1, "problem", "max_length") if i else ("problem", "max_length")
        for model in experiment.base_models_of(task.name):
            try:
                if model in sizes:
                    sizes[model].check_length(task.problem.most_tokens())
            except FtlibError as error:
                problems.append((trail, f"{error} (base_model {model})"))
    left: dict[str, Size] = {}
    for stage in experiment.ordered_stages():
        start = sizes.get(experiment.root_model(stage)) if stage.start_from == BASE else left.get(stage.start_from)
        if start is None:
            continue
        problem = experiment.task(stage.task).problem
        try:
            size = stage.strategy.check_size(start, problem)
            left[stage.name] = dataclasses.replace(size, predicts_words=True) if problem.predicts_words else size
        except FtlibError as error:
            problems.append((("stages", experiment.stages.index(stage), "strategy"), str(error)))
    return left, problems


def _metrics(target: Target) -> tuple[str, ...]:
    """Return a target's metrics; while its labels are not known, those of two labels too."""
    if target.labels or target.kind != "single_label":
        return target.metric_names
    return dataclasses.replace(target, labels=("0", "1")).metric_names
