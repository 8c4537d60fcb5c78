"""How a causal model learns to go on with a prompt: see `Learning`. What it reads and writes with is in `_causal`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.errors import CheckpointError
from ftlib.problems import _causal, _causal_writing
from ftlib.problems._generation import Generation
from ftlib.problems._learning import Learning
from ftlib.problems._places import mean_loss
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, two_way_divergence

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.targets.text_metrics import Quality
    from ftlib.training.precision import Precision


@dataclass(frozen=True)
class CausalLearning(Learning):
    """The answer's tokens are learned, those of the prompt are read, and answers are written token by token.

    Attributes:
        generation: How answers are written.
        max_length: Most tokens of prompt and answer together.
        max_answer_tokens: Most tokens of an answer.
        packing: Whether short rows share a line in training.
        utility: What says how alike two texts are, of several teachers.
        ends: From a tokenizer to the tokens that end an answer; what is learned ends with the last of them.
    """

    writes: ClassVar[bool] = True
    validation_metric: ClassVar[str | None] = "loss"  # answers are not written while training, which would be slow

    generation: Generation
    max_length: int
    max_answer_tokens: int
    packing: bool
    utility: Quality
    ends: Callable[[PreTrainedTokenizerBase], Sequence[int]]

    def check_tokenizer(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer without an end of text: no answer would end (CheckpointError)."""
        if tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"{problem.name} needs a tokenizer with an end of text (eos_token), and the base model's has none: no "
                "answer would end. Choose another base model."
            )

    # -- rows --------------------------------------------------------------------------------------

    def rooms(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
        """Return how many tokens a prompt and an answer may have: together no more than the model reads."""
        limit = min(self.max_length, tokenizer.model_max_length)
        answer = min(self.max_answer_tokens, limit // 2)
        return limit - answer, answer

    def teach(
        self, problem: Problem, rows: pa.Table, teachers: Sequence[pa.Table], tokenizer: PreTrainedTokenizerBase | None
    ) -> pa.Table:
        """Return encoded rows with the teachers' answers."""
        end, room = (self.ends(tokenizer)[-1], self.rooms(tokenizer)[1]) if tokenizer else (0, 0)
        return _causal.teach(rows, teachers, tokenizer, utility=self.utility, end=end, room=room)

    # -- the model ---------------------------------------------------------------------------------

    def forward(self, problem: Problem, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the answers' tokens, shape (num_tokens, vocabulary_size)."""
        return _causal.forward(model, batch, self.max_length if self.packing else None)

    def loss(self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], shape: LossShape = PLAIN) -> Tensor:
        """Return the mean cross-entropy of the gold answers' tokens."""
        return mean_loss(_gold_part(logits, batch), batch["labels"], shape)

    def consistency(self, problem: Problem, one: Tensor, other: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both divergences between two passes, mean over the gold answers' tokens."""
        return two_way_divergence(_gold_part(one, batch), _gold_part(other, batch))

    def distillation_loss(
        self, problem: Problem, logits: Tensor, batch: Mapping[str, Tensor], temperature: float
    ) -> Tensor:
        """Return the mean cross-entropy of the teachers' answers; a text has no softness, so no temperature."""
        return mean_loss(logits[_num_gold(batch) :], batch["teacher_labels"])

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self, problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision, watch: Watch | None
    ) -> pa.Table:
        """Return the candidates that models write together, and how likely their mean finds the gold answers."""
        room, ends = self.rooms(ensemble.first.tokenizer)[1], self.ends(ensemble.first.tokenizer)
        return _causal_writing.predict(
            problem, ensemble, rows, self.generation, room=room, ends=ends, precision=precision, watch=watch
        )

    def measure(
        self, problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision
    ) -> dict[str, float]:
        """Return the loss a token of the gold answers, and the perplexity; texts are not written."""
        from ftlib.models.ensembles import Ensemble

        losses, counts = _causal.answer_losses(problem, Ensemble.alone(checkpoint), [rows], precision)
        return _per_token(losses.sum(), counts.sum())

    def own_metrics(self, problem: Problem, predictions: pa.Table) -> dict[str, float]:
        """Return the perplexity of the gold answers; {} where nobody knows them."""
        import pyarrow.compute as pc

        total, count = (pc.sum(predictions[name]).as_py() for name in (_causal.LOSS, _causal.NUM_TOKENS))
        return {"perplexity": _per_token(total, count)["perplexity"]} if count else {}


def _gold_part(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    return logits[: _num_gold(batch)]


def _num_gold(batch: Mapping[str, Tensor]) -> int:
    return int((batch["labels"] != IGNORED).sum())


def _per_token(total: float, count: float) -> dict[str, float]:
    mean = float(total) / max(1.0, float(count))
    return {"loss": mean, "perplexity": exp(min(mean, 700.0))}
