"""Heads of other tasks that a checkpoint keeps, beside the plain one of its own.

Tasks that are learned one after the other, or together, share the embeddings and blocks of one model. What follows
the blocks reads them for one task alone: pooler, last normalisation, classifier. A checkpoint folder is a plain model
with the head of its own task; in ``heads/<task>.safetensors`` it keeps the others, with heads.json beside them, so that
it can be opened for each of its tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError
from ftlib.files import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem

FOLDER, INDEX = "heads", "heads.json"


@dataclass(frozen=True)
class Head:
    """What a task has for itself.

    Attributes:
        problem: The dump of the problem that it answers, its labels filled in.
        weights: All that it does not share, under the names of the model that the problem asks for.
        tuned: What was decided for it on validation, such as a threshold.
    """

    problem: dict[str, Any]
    weights: dict[str, Tensor]
    tuned: dict[str, Any] = field(default_factory=dict)


def own_parameters(model: nn.Module) -> dict[str, Parameter]:
    """Return what a plain model has for its task alone, by name: all that follows the blocks."""
    from ftlib.models.layers import layers

    parts = layers(model)
    own = {id(p) for p in (*parts.pooler, *parts.head)}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def taken(model: PreTrainedModel, settings: Mapping[str, Any]) -> Head:
    """Return a copy of a plain model's head.

    Args:
        model: The model.
        settings: What is known of its checkpoint: "problem", perhaps "tuned".
    """
    weights = {name: p.detach().clone() for name, p in own_parameters(model).items()}
    return Head(settings["problem"], weights, settings.get("tuned", {}))


def put(model: PreTrainedModel, head: Head, task: str) -> None:
    """Copy a kept head into a plain model of its problem.

    Raises:
        CheckpointError: If it is not the head of such a model.
    """
    import torch

    own = own_parameters(model)
    if {n: p.shape for n, p in own.items()} != {n: value.shape for n, value in head.weights.items()}:
        raise CheckpointError(f"the kept head of task {task!r} does not fit {type(model).__name__}; train it again.")
    with torch.no_grad():
        for name, value in head.weights.items():
            own[name].copy_(value)


def renew(model: PreTrainedModel, problem: Problem) -> None:
    """Draw a model's head at random, as transformers does; a language model keeps its own, which is pretrained."""
    import torch

    from ftlib.models.layers import head_names

    names = [f"{head}.{name}" for head in head_names(model) for name, _ in model.get_submodule(head).named_parameters()]
    if not names:
        return
    drawn, own = dict(untrained(model, problem).named_parameters()), dict(model.named_parameters())
    with torch.no_grad():
        for name in names:
            own[name].copy_(drawn[name])


def untrained(model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
    """Return a model of another problem, shaped like this one, all its weights drawn at random."""
    import torch
    import transformers

    config = copy.deepcopy(model.config)
    for name, value in problem.model_settings().items():
        setattr(config, name, value)
    return getattr(transformers, problem.auto_class).from_config(config, dtype=torch.float32)


# -- files ---------------------------------------------------------------------------------------------


def write(heads: Mapping[str, Head], folder: Path) -> None:
    """Write the heads that a checkpoint keeps beside its model; nothing where there are none."""
    from safetensors.torch import save_file

    if not heads:
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for task, head in sorted(heads.items()):
        save_file({name: value.contiguous() for name, value in head.weights.items()}, _file(folder, task))
    write_json(folder / INDEX, {task: {"problem": h.problem, "tuned": h.tuned} for task, h in heads.items()})


def read(folder: Path) -> dict[str, Head]:
    """Return the heads that a checkpoint keeps, by task; {} where it keeps none."""
    from safetensors.torch import load_file

    if not (folder / INDEX).exists():
        return {}
    index = read_json(folder / INDEX)
    return {task: Head(weights=load_file(_file(folder, task)), **known) for task, known in index.items()}


def _file(folder: Path, task: str) -> Path:
    return folder / FOLDER / f"{task}.safetensors"
