"""The space of `tuning`, held against the experiment: every path leads somewhere, every value in it is a right one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.errors import ParamsError
from ftlib.params.documents import Document, Trail
from ftlib.params.experiment import Experiment
from ftlib.params.explaining import Problem
from ftlib.params.overriding import override
from ftlib.params.shapes import expected, locate, unwrap
from ftlib.params.tuning import Range
from ftlib.plugins import Section

Load = Callable[[dict[str, Any], Sequence[str]], Experiment]
"""What gives an experiment of plain params and changes on top: `ftlib.params.loading.load_experiment`."""

FIXED = {
    "name": "is what the search is known by",
    "seed": "is luck, which the next rows do not share",
    "evaluation": "is what trials are judged by",
    "registration": "shapes no result",
    "tracking": "shapes no result",
    "tuning": "is the search itself",
}
"""Parts of an experiment that are not searched, and why."""


@dataclass(frozen=True)
class Dimension:
    """One parameter of a search.

    Attributes:
        path: Where it stands, as --set takes it.
        trail: The same place, by keys and positions.
        range: The values that it may take.
        is_whole: Whether it is an integer.
    """

    path: str
    trail: Trail
    range: Range
    is_whole: bool

    def listed(self) -> tuple[Any, ...] | None:
        """Return every value, for a grid; None where low and high leave too many."""
        low, high, step = self.range.low, self.range.high, self.range.step
        if self.range.choices is not None or low is None or high is None:
            return self.range.choices
        if self.range.log or (step is None and not self.is_whole):
            return None
        step = step or 1
        return tuple(_tidy(low + i * step) for i in range(int((high - low) / step + 1e-9) + 1))

    def holds(self, value: Any) -> bool:
        """Return whether a number lies within low and high, on a step where there are steps."""
        low, high, step = self.range.low, self.range.high, self.range.step
        if value is None or low is None or high is None or not low <= value <= high:
            return False
        return step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9


def change(path: str, value: Any) -> str:
    """Return a value at a path as --set takes it."""
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def dimensions(experiment: Experiment, document: Document) -> tuple[Dimension, ...]:
    """Return the parameters that are searched.

    Args:
        experiment: What the document says.
        document: The params, changes on top included.
    """
    space = experiment.tuning.space if experiment.tuning else {}
    return tuple(_dimension(path, found, document) for path, found in space.items())


def variants(document: Document, space: Sequence[Dimension], load: Load) -> dict[str, list[tuple[Any, Experiment]]]:
    """Return, for each parameter's path, its ends or choices, and what the experiment is with each.

    Args:
        document: The params, changes on top included.
        space: The parameters that are searched.
        load: Gives the experiment of other values.
    """
    plain = _without_tuning(document)
    return {d.path: [(value, load(plain, [change(d.path, value)])) for _, value in _ends(d.range)] for d in space}


def own_values(
    experiment: Experiment, space: Sequence[Dimension], found: Mapping[str, list[tuple[Any, Experiment]]]
) -> dict[str, Any] | None:
    """Return the values that the experiment has itself, where all of them lie in the space.

    Args:
        experiment: Without a change.
        space: The parameters that are searched.
        found: Their `variants`.
    """
    own: dict[str, Any] = {}
    for dimension in space:
        value = _at(experiment, dimension.trail)
        if dimension.range.choices is None:
            own |= {dimension.path: value} if dimension.holds(value) else {}
            continue
        alike = [choice for choice, other in found[dimension.path] if _at(other, dimension.trail) == value]
        own |= {dimension.path: alike[0]} if alike else {}
    return own if len(own) == len(space) else None


def space_problems(experiment: Experiment, document: Document, load: Load) -> Iterator[Problem]:
    """Yield what is wrong with the space: paths that lead nowhere or meet, values that the experiment refuses.

    Args:
        experiment: What the document says.
        document: The params, changes on top included.
        load: Gives the experiment of other values.
    """
    if experiment.tuning is None:
        return
    plain = _without_tuning(document)
    known: dict[Trail, str] = {}
    for path, found in experiment.tuning.space.items():
        try:
            dimension = _dimension(path, found, document)
            _check_apart(dimension, known)
            if experiment.tuning.sampler == "grid" and dimension.listed() is None:
                raise ParamsError("has no end of values for a grid; give a step, or choices.")
            _check_values(dimension, plain, load)
            known[dimension.trail] = path
        except ParamsError as error:
            yield ("tuning", "space", path), error.problems[0]


def _dimension(path: str, found: Range, document: Document) -> Dimension:
    """Return the parameter at a path."""
    first = path.partition(".")[0]
    if first in FIXED:
        raise ParamsError(f"{first} {FIXED[first]}; it is not searched. Leave it out.")
    tried = copy.deepcopy(document)
    asked = change(path, _ends(found)[0][1])
    try:
        trail = override(tried, asked, Experiment)
    except ParamsError as error:
        raise ParamsError(error.problems[0].removeprefix(f"--set {asked}: ")) from None
    annotation = locate(Experiment, trail, tried.value).annotation
    bare = unwrap(annotation)[0]
    if found.choices is None and bare not in (int, float):
        raise ParamsError(f"has low and high, but takes {expected(annotation)}. Give choices.")
    return Dimension(path, trail, found, bare is int)


def _check_apart(dimension: Dimension, known: dict[Trail, str]) -> None:
    trail = dimension.trail
    for other, called in known.items():
        shared = min(len(other), len(trail))
        if other[:shared] == trail[:shared]:
            what = "is the same place as" if len(other) == len(trail) else "overlaps with"
            raise ParamsError(f"{what} {called!r}; search one of the two, such as by choices of whole mappings.")


def _check_values(dimension: Dimension, plain: dict[str, Any], load: Load) -> None:
    made = []
    for name, value in _ends(dimension.range):
        asked = change(dimension.path, value)
        try:
            made.append(load(plain, [asked]))
        except ParamsError as error:
            line = error.problems[0].removeprefix("params: ").removeprefix(f"--set {asked}: ")
            raise ParamsError(f"{name}: {line.removeprefix(f'{_dotted(dimension.trail)}: ')}") from None
    shown = [experiment.model_dump(exclude={"training"}) for experiment in made]
    if len(shown) > 1 and all(one == shown[0] for one in shown):
        raise ParamsError("changes nothing: what reads it has a value of its own. Search that one.")


def _without_tuning(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document.value.items() if key != "tuning"}


def _at(experiment: Experiment, trail: Trail) -> Any:
    """Return what stands at a trail; None where the experiment goes without what would hold it."""
    value: Any = experiment
    try:
        for key in trail:
            value = getattr(value, str(key)) if isinstance(value, Section) else value[key]
    except (AttributeError, LookupError, TypeError):
        return None
    return value


def _ends(found: Range) -> list[tuple[str, Any]]:
    if found.choices is not None:
        return [(f"choice {json.dumps(choice, ensure_ascii=False)}", choice) for choice in found.choices]
    return [("low", found.low), ("high", found.high)]


def _dotted(trail: Trail) -> str:
    return ".".join(map(str, trail))


def _tidy(value: float) -> float:
    """Return a sum of steps without the dust of floating point."""
    return value if isinstance(value, int) else round(value, 12)
