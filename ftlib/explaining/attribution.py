"""Attributions: how much each token of a text adds to the score of an answer.

Integrated gradients go from an empty text to the given one in even steps and add up what each token's word embedding
contributes on the way: Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks",
https://arxiv.org/abs/1703.01365. They are complete: the attributions add up to the score less that of the empty text.
The empty text has the padding token in the place of each token; special and virtual tokens stay as they are.
Input times gradient (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713) needs one pass instead of many, and
adds up to nothing in particular. Both are captum's, https://captum.ai.

What they don't say: what would happen if words were exchanged for others, or whether the model is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem

Method = Literal["integrated_gradients", "input_x_gradient"]
METHODS: tuple[Method, ...] = ("integrated_gradients", "input_x_gradient")

STEPS = 32
"""Points on the way from the empty text, placed as Gauss and Legendre have them."""

MOST_STEPS = 512
TOLERANCE = 0.01
"""Rows whose attributions miss their sum by more, or by more than this share of it, are integrated again with four
times the points, as long as these are not too many."""

ROWS_AT_ONCE = 16
PASSES_AT_ONCE = 128
"""Rows times steps that go through the model together."""

ROW_KINDS = ("single_label", "multi_label", "value")
"""Targets that give a row scores of its own."""


@dataclass(frozen=True, eq=False)
class Attributed:
    """One score of one row, and what each of its tokens adds to it.

    Attributes:
        tokens: Attributions of the row's input_ids, shape (num_tokens,).
        added: The sum of attributions of tokens that only the model knows: virtual ones.
        score: The score that is explained.
        baseline: The same score of the empty text.
    """

    tokens: np.ndarray
    added: float
    score: float
    baseline: float

    @property
    def misses(self) -> bool:
        """Whether attributions are further from adding up than integrated gradients should be."""
        whole = self.score - self.baseline
        return abs(self.tokens.sum() + self.added - whole) > TOLERANCE * max(1.0, abs(whole))


def check(problem: Problem) -> None:
    """Refuse a problem whose answers cannot be explained by the words of its input.

    Raises:
        UnsupportedError: With the reason.
    """
    kind = problem.target.kind
    if kind not in ROW_KINDS:
        raise UnsupportedError(
            f"{problem.name} cannot be explained: its answers ({kind}) are made of many scores a row, and attributions "
            "explain one. Problems that give a row a label, labels or a number can be."
        )
    if not problem.text_columns:
        raise UnsupportedError(
            f"{problem.name} cannot be explained: its rows have no text that is always read, and attributions are "
            "given to words."
        )


def attribute(
    checkpoint: Checkpoint,
    rows: pa.Table,
    outputs: np.ndarray,
    problem: Problem,
    *,
    method: Method = "integrated_gradients",
    steps: int = STEPS,
) -> list[Attributed]:
    """Return what the tokens of each row add to one of its scores.

    Args:
        checkpoint: Its model is left in evaluation mode.
        rows: Encoded rows.
        outputs: Which score of each row is explained, shape (num_rows,).
        problem: What the model learned.
        method: integrated_gradients or input_x_gradient.
        steps: Points of the integration to begin with.

    Raises:
        UnsupportedError: If the problem, or the model, cannot be explained.
    """
    import numpy as np

    from ftlib.training.batches import Rows

    check(problem)
    given = Rows.from_table(rows, checkpoint.tokenizer, problem)
    found: dict[int, Attributed] = {}
    waiting = np.arange(len(rows))
    while len(waiting):
        for start in range(0, len(waiting), ROWS_AT_ONCE):
            indices = waiting[start : start + ROWS_AT_ONCE]
            explained = _Explained.of(checkpoint, given.batch(indices), outputs[indices], problem)
            found |= zip(indices.tolist(), explained.attributed(method, steps), strict=True)
        steps *= 4
        again = method == "integrated_gradients" and steps <= MOST_STEPS
        waiting = np.array([i for i in waiting.tolist() if again and found[i].misses], dtype=np.int64)
    return [found[i] for i in range(len(rows))]


@dataclass(frozen=True, eq=False)
class _Explained:
    """A batch whose scores are explained."""

    model: Any
    words: nn.Module
    problem: Problem
    batch: dict[str, Tensor]
    empty: Tensor
    outputs: Tensor

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, batch: Mapping[str, Tensor], outputs: np.ndarray, problem: Problem
    ) -> _Explained:
        import torch

        model = checkpoint.model.eval()
        if getattr(model.config, "is_encoder_decoder", False):
            raise UnsupportedError(
                f"a model of the kind {model.config.model_type} cannot be explained: it reads the text twice, in its "
                "encoder and in its decoder, and there is no one place where words enter. Explain an encoder."
            )
        device = next(model.parameters()).device
        inputs = {k: v.to(device) for k, v in batch.items() if k not in problem.model_targets}
        tokenizer = checkpoint.tokenizer
        special = torch.tensor(sorted(tokenizer.all_special_ids), device=device)
        ids = inputs["input_ids"]
        empty = torch.where(torch.isin(ids, special), ids, torch.full_like(ids, tokenizer.pad_token_id or 0))
        return cls(model, model.get_input_embeddings(), problem, inputs, empty, torch.tensor(outputs, device=device))

    def attributed(self, method: Method, steps: int) -> list[Attributed]:
        """Return the batch's rows, explained."""
        import torch

        with torch.no_grad():
            scores = self._chosen(self._scores(*self.batch.values()))
            with _words_of(self.words, self._embedded(self.empty)):
                baselines = self._chosen(self._scores(*self.batch.values()))
        values = self._integrated(steps) if method == "integrated_gradients" else self._input_x_gradient()
        by_token = values.detach().double().sum(-1)
        return [
            self._row(by_token[i].cpu().numpy(), i, float(scores[i]), float(baselines[i])) for i in range(len(scores))
        ]

    def _integrated(self, steps: int) -> Tensor:
        from captum.attr import LayerIntegratedGradients

        rest = tuple(v for k, v in self.batch.items() if k != "input_ids")
        explainer = LayerIntegratedGradients(self._from_ids, self.words)
        return explainer.attribute(  # type: ignore[return-value]
            self.batch["input_ids"],
            baselines=self.empty,
            target=self.outputs,
            additional_forward_args=rest,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(PASSES_AT_ONCE, len(self.outputs)),
        )

    def _input_x_gradient(self) -> Tensor:
        from captum.attr import LayerGradientXActivation

        rest = tuple(v for k, v in self.batch.items() if k != "input_ids")
        explainer = LayerGradientXActivation(self._from_ids, self.words)
        return explainer.attribute(self.batch["input_ids"], target=self.outputs, additional_forward_args=rest)  # type: ignore[return-value]

    def _from_ids(self, input_ids: Tensor, *rest: Tensor) -> Tensor:
        names = [k for k in self.batch if k != "input_ids"]
        given = {"input_ids": input_ids, **dict(zip(names, rest, strict=True))}
        return self._scores(*(given[k] for k in self.batch))

    def _scores(self, *inputs: Tensor) -> Tensor:
        """Return probabilities (or the numbers themselves) with their gradients, shape (batch_size, num_outputs)."""
        logits = self.problem.forward(self.model, dict(zip(self.batch, inputs, strict=True))).float()
        kind = self.problem.target.kind
        if kind == "single_label":
            return logits.softmax(-1)
        return logits.sigmoid() if kind == "multi_label" else logits.reshape(len(logits), -1)

    def _chosen(self, scores: Tensor) -> Tensor:
        return scores.gather(1, self.outputs[:, None])[:, 0]

    def _embedded(self, input_ids: Tensor) -> Tensor:
        """Return the word embeddings of a batch as the model looks them up, with those of virtual tokens."""
        seen: list[Tensor] = []
        hook = self.words.register_forward_hook(lambda module, given, output: seen.append(output))
        try:
            self._from_ids(input_ids, *(v for k, v in self.batch.items() if k != "input_ids"))
        finally:
            hook.remove()
        return seen[0]

    def _row(self, values: np.ndarray, row: int, score: float, baseline: float) -> Attributed:
        """Return one row's attributions, without those of padding and of virtual tokens, which are added up."""
        import numpy as np

        from ftlib.models.virtual_tokens import attached

        virtual = attached(self.model)
        added = 0.0
        if virtual and len(values) > self.empty.shape[1]:
            inside = slice(virtual.position, virtual.position + len(virtual.ids))
            added = float(values[inside].sum())
            values = np.delete(values, inside)
        real = self.batch["attention_mask"][row].cpu().numpy() > 0
        return Attributed(values[real], added, score, baseline)


@contextmanager
def _words_of(words: nn.Module, values: Tensor) -> Iterator[None]:
    """Give the model these word embeddings, whatever tokens it reads."""
    hook = words.register_forward_hook(lambda module, given, output: values)
    try:
        yield
    finally:
        hook.remove()
