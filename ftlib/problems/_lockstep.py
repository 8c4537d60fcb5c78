"""Several models that write one text together: ensemble decoding.

The first model generates as it does alone, but for its logits: at every step they become the mean of what all models
say of the next token (`Ensemble.mixed`). So searching, drawing and penalties are those of one model, applied to the
mean. The others follow: each generates in a thread of its own, so that it keeps its encoder's output, its cache and
whatever its kind needs in its own way, and is given the scores that the first one decides by, so that it
chooses the same tokens, and carries its cache along the same beams. One thread runs at a time.

Sutskever et al. (2014), "Sequence to Sequence Learning with Neural Networks", https://arxiv.org/abs/1409.3215,
section 3; Luong & Manning (2016), https://aclanthology.org/P16-1100.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import LogitsProcessor

    from ftlib.models.ensembles import Ensemble


class Write(Protocol):
    """Lets one model of an ensemble generate."""

    def __call__(self, number: int, *, last: LogitsProcessor | None = None, follows: bool = False) -> Any:
        """Return what model `number` generates; `last` and `follows` as `_generation.generate` takes them."""


def written(ensemble: Ensemble, write: Write) -> Any:
    """Return what the models write together: what `write` gives of the first one.

    Args:
        ensemble: The models.
        write: Lets one of them generate.
    """
    from ftlib.models.checkpoints import quiet
    from ftlib.models.layers import unwrapped

    if len(ensemble.checkpoints) == 1:
        return write(0)
    others = range(1, len(ensemble.checkpoints))
    followers = [_Follower(unwrapped(ensemble.checkpoints[i].model), _bound(write, i)) for i in others]
    decided: list[Tensor | None] = [None]

    def mix(module: Module, arguments: Any, output: Any) -> Any:
        said = [output.logits[:, -1], *(follower.next(decided[0]) for follower in followers)]
        output.logits = ensemble.mixed(said)[:, None]
        return output

    def publish(scores: Tensor) -> Tensor:
        decided[0] = scores
        return scores

    hook = unwrapped(ensemble.first.model).register_forward_hook(mix)
    try:
        with quiet():  # around those that every thread opens and closes, in any order
            return write(0, last=_processor(publish))
    finally:
        hook.remove()
        for follower in followers:
            follower.stop()


def _bound(write: Write, number: int) -> Callable[[LogitsProcessor], Any]:
    return lambda last: write(number, last=last, follows=True)


def _processor(change: Callable[[Tensor], Tensor]) -> LogitsProcessor:
    from transformers import LogitsProcessor

    class Changed(LogitsProcessor):
        """What is done to the scores of the next tokens."""

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            """Return other scores."""
            return change(scores)

    return Changed()


class _OverError(Exception):
    """The first model has ended: there is nothing more to follow."""


class _Follower:
    """A model that generates as another one decides, one step at a time.

    Args:
        model: A transformers model, without a wrapper around it.
        write: Lets it generate; takes what is done with its scores.
    """

    def __init__(self, model: Module, write: Callable[[LogitsProcessor], Any]) -> None:
        self._model, self._write = model, write
        self._logits: Tensor | None = None
        self._said: SimpleQueue[Tensor | BaseException] = SimpleQueue()
        self._told: SimpleQueue[Tensor | None] = SimpleQueue()
        self._thread = Thread(target=self._run, daemon=True)

    def next(self, decided: Tensor | None) -> Tensor:
        """Return its next logits, shape (rows, vocabulary_size).

        Args:
            decided: The scores by which the token before them is chosen; None at the first step.
        """
        if decided is None:
            self._thread.start()
        else:
            self._told.put(decided)
        said = self._said.get()
        if isinstance(said, BaseException):
            raise said
        return said

    def stop(self) -> None:
        """Let it end, wherever it is."""
        self._told.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        hook = self._model.register_forward_hook(self._keep)
        try:
            self._write(_processor(self._follow))
            self._said.put(RuntimeError("a model that follows another one has ended before it"))
        except _OverError:
            pass
        except BaseException as error:  # told to the thread that waits for it
            self._said.put(error)
        finally:
            hook.remove()

    def _keep(self, module: Module, arguments: Any, output: Any) -> None:
        self._logits = output.logits[:, -1]

    def _follow(self, scores: Tensor) -> Tensor:
        if self._logits is None:
            raise RuntimeError("a model gave no logits")
        self._said.put(self._logits)
        decided = self._told.get()
        if decided is None:
            raise _OverError
        return decided
