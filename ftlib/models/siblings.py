"""Models of several tasks that share embeddings and blocks, module by module, and have heads of their own.

A sibling is a whole transformers model of another problem, so that its forward pass is transformers' own; only what
lies in its head is its own. What it shares are the very modules of the first model: they are trained, frozen, put in
and out of training mode there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.errors import UnsupportedError
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.heads import own_parameters, put, untrained
from ftlib.models.layers import backbone, block_lists
from ftlib.models.virtual_tokens import attach as attach_virtual
from ftlib.models.virtual_tokens import attached as virtual_of

if TYPE_CHECKING:
    from ftlib.problems.base import Problem

NAME = "other_heads"
"""What the first model calls the heads of its siblings while they are trained."""


def sibling(checkpoint: Checkpoint, problem: Problem, task: str) -> Checkpoint:
    """Return a model of another task around the embeddings and blocks of a checkpoint's.

    Args:
        checkpoint: A plain model; where it keeps a head for the task, that is taken, else one drawn at random.
        problem: What the other task is, its labels filled in.
        task: What it is called.

    Raises:
        UnsupportedError: If the two models have other parts.
    """
    model: Any = checkpoint.model
    other: Any = untrained(model, problem)
    head = checkpoint.heads.get(task)
    if head is not None:
        put(other, head, task)
    own = {id(p) for p in own_parameters(other).values()}
    _share(backbone(other), backbone(model), own)
    problem.prepare(other, checkpoint.tokenizer)
    follow(other, model)
    other.tie_weights()
    shared = {id(p) for p in model.parameters()}
    if any(id(p) not in own | shared for p in other.parameters()):
        raise UnsupportedError(f"{type(other).__name__} cannot share the blocks of {type(model).__name__}.")
    other.token_layout = getattr(model, "token_layout", None)
    virtual = virtual_of(model)
    if virtual:
        attach_virtual(other, virtual)
    tuned = head.tuned if head is not None else {}
    return Checkpoint(other.eval(), checkpoint.tokenizer, {"tuned": tuned} if tuned else {})


def _share(part: nn.Module, source: nn.Module, own: set[int]) -> None:
    """Put the source's modules and weights in the place of those of the same name that hold nothing of `own`."""
    for name, parameter in list(part.named_parameters(recurse=False)):
        if id(parameter) not in own and name in dict(source.named_parameters(recurse=False)):
            setattr(part, name, source.get_parameter(name))
    twins = dict(source.named_children())
    for name, child in list(part.named_children()):
        if type(twins.get(name)) is not type(child):
            continue
        if any(id(p) in own for p in child.parameters()):
            _share(child, twins[name], own)
        else:
            setattr(part, name, twins[name])


def follow(other: Any, model: Any) -> None:
    """Give a sibling what has changed outside the modules it shares: the word embeddings, and the mode."""
    table = model.get_input_embeddings()
    if other.get_input_embeddings() is not table:
        other.set_input_embeddings(table)
    if other.training != model.training:
        other.train(model.training)


def attach(model: nn.Module, others: Mapping[str, nn.Module], *further: nn.Module) -> None:
    """Make the heads of siblings part of a model, so that what is done to its modules and weights is done to them.

    Args:
        model: The first one.
        others: Its siblings by task.
        further: Modules that learn beside them.
    """
    shared = {id(part) for part in (*model.modules(), *model.parameters())}
    heads = {task: nn.ModuleList(_own_modules(other, shared)) for task, other in others.items()}
    model.add_module(NAME, nn.ModuleList([nn.ModuleDict(heads), *further]))


def _own_modules(model: nn.Module, shared: Collection[int]) -> Iterator[nn.Module]:
    """Yield the modules without parts, or with weights of their own, that are none of the shared ones."""
    for module in model.modules():
        has_own = any(id(p) not in shared for p in module.parameters(recurse=False))
        if id(module) not in shared and (has_own or not any(True for _ in module.children())):
            yield module


def attached_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that `attach` has made part of a model; [] of one without siblings."""
    return list(getattr(model, NAME).parameters()) if hasattr(model, NAME) else []


def detach(model: nn.Module) -> None:
    """Take the siblings' heads off again."""
    delattr(model, NAME)


class Memory:
    """What a model's blocks gave of a batch, so that a sibling's head reads the same batch without running them again.

    Args:
        model: With one stack of blocks.
    """

    def __init__(self, model: nn.Module) -> None:
        self.blocks = list(block_lists(model)[0])
        self.output: Any = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what the last block gives while the context is open."""
        self.output = None
        handle = self.blocks[-1].register_forward_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def recalled(self) -> Iterator[None]:
        """Let the blocks hand on what was noted instead of computing while the context is open."""
        for block in self.blocks:
            block.forward = self._recall  # type: ignore[method-assign]
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def fits(self, shape: torch.Size) -> bool:
        """Return whether what was noted has a line for each row of this shape, (batch_size, length)."""
        states = self.output[0] if isinstance(self.output, tuple) else self.output
        return states is not None and states.shape[:2] == shape

    def _note(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.output = output

    def _recall(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        return self.output
