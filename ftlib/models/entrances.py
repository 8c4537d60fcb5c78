"""Entrances: the layers through which a model takes in words and images, watched and written over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True, eq=False)
class Entry:
    """One call of an entrance.

    Attributes:
        given: What it was given: token ids, shape (num_rows, length); or pixels.
        values: What it made of them: embeddings, shape (num_rows, length, size); or (num_rows, size, height, width).
    """

    given: Tensor
    values: Tensor


def entrances(model: Any) -> list[nn.Module]:
    """Return the layers in which token ids become embeddings (the same ones in both halves of an encoder-decoder),
    and the one in which an image becomes patches."""
    from torch import nn

    from ftlib.models.layers import unwrapped

    embeddings = model.get_input_embeddings()
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is embeddings.weight]
    vision: Any = getattr(unwrapped(model), "vision_model", None)
    patches = [m for m in vision.modules() if isinstance(m, nn.Conv2d)][:1] if vision is not None else []
    return [*(tables or [embeddings]), *patches]


@contextmanager
def watched(layers: Sequence[nn.Module]) -> Iterator[list[Entry]]:
    """Collect the calls of layers while the context is open, in their order."""
    seen: list[Entry] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        seen.append(Entry(given[0] if given else next(iter(named.values())), output))

    with _hooked([layer.register_forward_hook(note, with_kwargs=True) for layer in layers]):
        yield seen


@contextmanager
def replaced(layers: Sequence[nn.Module], values: Mapping[int, Tensor]) -> Iterator[None]:
    """Put values in the place of what layers give, while the context is open.

    Args:
        layers: As `watched` took them.
        values: The number of a call, among all of theirs -> what it gives.
    """
    calls = 0

    def give(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return values.get(calls - 1, output)

    with _hooked([layer.register_forward_hook(give) for layer in layers]):
        yield


@contextmanager
def _hooked(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        yield
