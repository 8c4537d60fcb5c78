"""Penalties on weights and perturbed word vectors, as `ftlib.training.regularization` describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.models.layers import head_parameters
from ftlib.models.siblings import attached_parameters
from ftlib.training.embeddings import before_rows

if TYPE_CHECKING:
    from ftlib.training.regularization import Regularization

SMALLEST = 1e-12
"""Norms of gradients below it count as it."""


@dataclass(frozen=True)
class Pull:
    """Holds a parameter to where it was, each weight as strongly as is said: the sum of strength / 2 x distance^2.

    Attributes:
        start: Where it was.
        strength: Of the same shape; not negative.
    """

    start: Tensor
    strength: Tensor


class Penalties:
    """Adds the gradients of penalties to those of the loss.

    Word vectors of tokens that no training row holds take no part: they have no gradient at all.

    Args:
        model: Its weights as they are now are the start that l2_sp holds to.
        settings: The section.
        learning: The parameters that ever learn.
        pulls: By the names that parameters had before the training changed the model.
    """

    def __init__(
        self,
        model: Any,
        settings: Regularization,
        learning: list[nn.Parameter],
        pulls: Mapping[str, Pull] | None = None,
    ) -> None:
        self.settings, self.learning = settings, learning
        self.pulls = dict(_placed(model, pulls or {}))
        head = {id(p) for p in head_parameters(model)} - {id(p) for p in attached_parameters(model)}
        self.starts = {
            id(p): None if id(p) in head else p.detach().clone() for p in (learning if settings.l2_sp else [])
        }

    @torch.no_grad()
    def add(self) -> None:
        """Add to the gradients that there are."""
        if not (self.settings.has_penalties or self.pulls):
            return
        l1, l2, l2_sp = self.settings.l1, self.settings.l2, self.settings.l2_sp
        for parameter in self.learning:
            if parameter.grad is None:
                continue
            if l1 and parameter.ndim > 1:
                parameter.grad.add_(parameter.sign(), alpha=l1)
            if l2 and parameter.ndim > 1:
                parameter.grad.add_(parameter, alpha=l2)
            if l2_sp:
                start = self.starts[id(parameter)]
                parameter.grad.add_(parameter if start is None else parameter - start, alpha=l2_sp)
            pull = self.pulls.get(id(parameter))
            if pull is not None:
                parameter.grad.addcmul_(parameter - pull.start, pull.strength)


def _placed(model: nn.Module, pulls: Mapping[str, Pull]) -> Iterator[tuple[int, Pull]]:
    """Yield each parameter's pull by its id; of word embeddings of which only some rows learn, that of those rows."""
    for name, parameter in model.named_parameters() if pulls else ():
        before, rows = before_rows(model, name)
        pull = pulls.get(before)
        if pull is not None:
            yield id(parameter), pull if rows is None else Pull(pull.start[rows], pull.strength[rows])


class Perturbation:
    """Moves each row's word vectors by `size` in the direction that raises its loss most (the fast gradient method).

    Args:
        model: Whose input embeddings are perturbed.
        size: Euclidean length of a row's perturbation.
    """

    def __init__(self, model: Any, size: float) -> None:
        self.table, self.size = model.get_input_embeddings(), size
        self.vectors: Tensor | None = None
        self.moved: Tensor | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the gradient of the word vectors that pass while the context is open."""
        with self._hooked(self._note):
            yield

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Move the word vectors by what the watched pass has found."""
        assert self.vectors is not None
        gradient = self.vectors.grad
        if gradient is None:
            raise RuntimeError("no gradient reaches the word vectors")
        norm = gradient.flatten(1).norm(dim=1).clamp_min(SMALLEST)
        self.moved = self.size * gradient / norm.view(-1, *[1] * (gradient.ndim - 1))
        self.vectors = None
        with self._hooked(self._move):
            yield
        self.moved = None

    @contextmanager
    def _hooked(self, hook: Callable[..., Tensor]) -> Iterator[None]:
        handle = self.table.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, table: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self.vectors = output if output.requires_grad else output.requires_grad_()
        self.vectors.retain_grad()
        return self.vectors

    def _move(self, table: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert self.moved is not None
        return output + self.moved


@contextmanager
def dropout_of(model: nn.Module, ratio: float | None) -> Iterator[None]:
    """Set all dropout of a model while the context is open; None leaves it as it is.

    That is every nn.Dropout, and what attention layers keep as a number of their own.
    """
    if ratio is None:
        yield
        return
    kept: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else NUMBERS
        kept += [(module, name, value) for name in names if isinstance(value := getattr(module, name, None), float)]
    for module, name, _ in kept:
        setattr(module, name, ratio)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


NUMBERS = ("dropout", "attention_dropout", "activation_dropout", "dropout_prob", "attn_dropout_p")
"""What transformers' layers call a dropout that is a number rather than a module."""
