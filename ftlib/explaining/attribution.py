"""Attributions: how much each token of a text, or each patch of an image, adds to the score of an answer.

Integrated gradients go from an empty input to the given one in even steps and add up what each token's word embedding
contributes on the way: Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks",
https://arxiv.org/abs/1703.01365. They are complete: the attributions add up to the score less that of the empty input.
The empty input has the padding token (else the end of text) in the place of each token, and an image of one mean
colour; what a problem puts around a row's texts, special and virtual tokens, and an answer whose likelihood is
explained, stay as they are.
Input times gradient (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713) needs one pass instead of many, and
adds up to nothing in particular. Both are captum's, https://captum.ai.

What they don't say: what would happen if words were exchanged for others, or whether the model is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.entrances import Entry
    from ftlib.problems._questions import Posed
    from ftlib.problems.base import Problem

Method = Literal["integrated_gradients", "input_x_gradient"]
METHODS: tuple[Method, ...] = ("integrated_gradients", "input_x_gradient")

STEPS = 32
"""Points on the way from the empty input, placed as Gauss and Legendre have them."""

MOST_STEPS = 512
TOLERANCE = 0.01
"""Where attributions miss their sum by more, or by more than this share of it, they are integrated again with four
times the points, as long as these are not too many."""

POSITIONS = re.compile(r"position_embed|embed_positions|\bwpe\b")
"""What models call the vectors of positions that they add to those of words."""

PASSES_AT_ONCE = 128
PLACES_AT_ONCE = 8192
LOGITS_AT_ONCE = 1 << 24
"""How many steps go through the model together: as many as keep within all three."""


@dataclass(frozen=True, eq=False)
class Attributed:
    """A score, and what each token adds to it.

    Attributes:
        values: Attributions of the line's input_ids, then of its image's patches, row by row, shape (num_places,);
            0 for tokens that the empty input has too.
        added: The sum of attributions of these: special and virtual tokens. Integrated gradients give them none.
        score: The score that is explained.
        baseline: The same score of the empty input.
    """

    values: np.ndarray
    added: float
    score: float
    baseline: float

    @property
    def misses(self) -> bool:
        """Whether attributions are further from adding up than integrated gradients should be."""
        whole = self.score - self.baseline
        return abs(self.values.sum() + self.added - whole) > TOLERANCE * max(1.0, abs(whole))


def attribute(
    checkpoint: Checkpoint,
    posed: Posed,
    problem: Problem,
    *,
    method: Method = "integrated_gradients",
    steps: int = STEPS,
) -> Attributed:
    """Return what the tokens of a line add to the score that is asked for.

    Args:
        checkpoint: Its model is left in evaluation mode.
        posed: What it reads, and which score.
        problem: What it learned.
        method: integrated_gradients or input_x_gradient.
        steps: Points of the integration to begin with.
    """
    explained = _Explained.of(checkpoint, posed, problem)
    found = explained.attributed(method, steps)
    while method == "integrated_gradients" and found.misses and steps * 4 <= MOST_STEPS:
        steps *= 4
        found = explained.attributed(method, steps)
    return found


@dataclass(frozen=True, eq=False)
class _Explained:
    """A line whose score is explained.

    Attributes:
        model: In evaluation mode.
        layers: Its entrances.
        problem: What it learned.
        posed: What is asked.
        batch: The line, as the model reads it.
        is_blanked: Which of its tokens an empty input lacks, shape (num_tokens,).
        entries: The entrances' calls with this line and with an empty one, by their number, where the two differ.
        num_logits: What one pass gives.
        score: Of this line.
    """

    model: Any
    layers: list[nn.Module]
    problem: Problem
    posed: Posed
    batch: dict[str, Tensor]
    is_blanked: np.ndarray
    entries: dict[int, tuple[Entry, Entry]]
    num_logits: int
    score: float

    @classmethod
    def of(cls, checkpoint: Checkpoint, posed: Posed, problem: Problem) -> _Explained:
        import torch

        from ftlib.models.entrances import entrances, watched
        from ftlib.training.batches import Rows

        model = checkpoint.model.eval()
        device = next(model.parameters()).device
        line = Rows.from_table(posed.line, checkpoint.tokenizer, problem)
        batch = {name: values.to(device) for name, values in line.batch(_first()).items()}
        empty, is_blanked = _empty(batch, posed, checkpoint)
        layers = entrances(model)
        with torch.no_grad():
            with watched(layers) as given:
                logits = problem.forward(model, batch).float()
            with watched(layers) as blank:
                problem.forward(model, empty)
        pairs = enumerate(zip(given, blank, strict=False))  # prompts that are remembered are read once, and come last
        entries = {n: (one, other) for n, (one, other) in pairs if not torch.equal(one.values, other.values)}
        score = float(posed.score(logits)[0])
        return cls(model, layers, problem, posed, batch, is_blanked, entries, logits.numel(), score)

    def attributed(self, method: Method, steps: int) -> Attributed:
        """Return the line, explained."""
        import torch

        ends = tuple(entry.values[None] for entry, _ in self.entries.values())
        if not ends:
            return Attributed(self._values([]), 0.0, self.score, self.score)
        starts = tuple(entry.values[None] for _, entry in self.entries.values())
        with torch.no_grad():
            baseline = float(self._scores(*starts)[0])
        found = self._integrated(ends, starts, steps) if method == "integrated_gradients" else self._products(ends)
        parts = [values[0].detach().double() for values in found]
        values = self._values(parts)
        return Attributed(values, float(sum(part.sum() for part in parts)) - values.sum(), self.score, baseline)

    def _integrated(self, ends: tuple[Tensor, ...], starts: tuple[Tensor, ...], steps: int) -> tuple[Tensor, ...]:
        from captum.attr import IntegratedGradients

        places = sum(values[0].numel() // values.shape[2 if values.ndim == 5 else -1] for values in ends)
        passes = min(PASSES_AT_ONCE, PLACES_AT_ONCE // places, LOGITS_AT_ONCE // self.num_logits)
        return IntegratedGradients(self._scores).attribute(  # type: ignore[return-value]
            ends, baselines=starts, n_steps=steps, method="gausslegendre", internal_batch_size=max(1, passes)
        )

    def _products(self, ends: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        from captum.attr import InputXGradient

        given = tuple(values.clone().requires_grad_() for values in ends)
        return InputXGradient(self._scores).attribute(given)  # type: ignore[return-value]

    def _scores(self, *values: Tensor) -> Tensor:
        """Return the scores of lines that enter the model so, shape (num_copies,).

        Args:
            values: Of each entry, shape (num_copies, ...): what the entrance gives of each copy of the line.
        """
        from ftlib.models.entrances import replaced

        copies = len(values[0])
        batch = {name: v.repeat(copies, *[1] * (v.ndim - 1)) for name, v in self.batch.items()}
        given = {n: v.flatten(0, 1) for n, v in zip(self.entries, values, strict=True)}
        with replaced(self.layers, given):
            return self.posed.score(self.problem.forward(self.model, batch).float())

    def _values(self, parts: Sequence[Tensor]) -> np.ndarray:
        """Return what each token and each patch adds.

        A model may cut a line into several texts, put tokens between its own, or read it twice; it keeps their order.
        """
        import numpy as np

        tokens, patches = np.zeros(len(self.is_blanked)), np.zeros(0)
        blanked = np.flatnonzero(self.is_blanked)
        for (entry, blank), part in zip(self.entries.values(), parts, strict=bool(parts)):
            if part.ndim == 4:
                patches = part.sum(1).flatten().cpu().numpy()
                continue
            own = part.sum(-1)[entry.given != blank.given].cpu().numpy()
            tokens[blanked[: len(own)]] += own
        return np.concatenate([tokens, patches])


def _first() -> np.ndarray:
    import numpy as np

    return np.zeros(1, dtype=np.int64)


def _empty(batch: Mapping[str, Tensor], posed: Posed, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], np.ndarray]:
    """Return an input that says nothing, and which tokens of the line it lacks."""
    import numpy as np
    import torch

    empty = {**batch, **{name: values.to(batch[name]) for name, values in posed.blank.items()}}
    if "input_ids" not in batch:
        return empty, np.zeros(0, bool)
    ids, special = batch["input_ids"], checkpoint.tokenizer.all_special_ids
    kept = [place is None or token in special for place, token in _tokens(posed, ids)]
    stays = torch.tensor([kept], device=ids.device)
    empty["input_ids"] = torch.where(stays, ids, torch.full_like(ids, _nothing(checkpoint)))
    return empty, (empty["input_ids"] != ids)[0].cpu().numpy()


def _nothing(checkpoint: Checkpoint) -> int:
    """Return the token that stands for no word: padding; where a model would read a vector of zeros, the end of text.

    Padding often is one. Added to a position's vector it does no harm; where none is added (Llama, T5), the layer that
    divides by the vector's length jumps there, and no sum of steps follows a jump.
    """
    table: Any = checkpoint.model.get_input_embeddings().weight
    tokenizer = checkpoint.tokenizer
    known = [i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) if i is not None]
    if not known or any(POSITIONS.search(name) for name, _ in checkpoint.model.named_parameters()):
        return known[0] if known else 0
    return next((i for i in known if bool(table[i].any())), known[0])


def _tokens(posed: Posed, ids: Tensor) -> Iterator[tuple[Any, int]]:
    return zip(posed.reading.places, ids[0].tolist(), strict=False)  # patches of an image follow the tokens
