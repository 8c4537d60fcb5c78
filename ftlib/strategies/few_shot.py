"""Few-shot (SetFit): pairs of rows pull texts of one label together, then a logistic regression is the head.

For eight to a few dozen rows a label: pairs make many examples of few rows, and the head is fitted, not trained, so
that there is no rate to get wrong. It stands on a base model whose text vectors mean something already, a sentence
encoder such as all-MiniLM; of a plain masked language model it makes less. From some hundred rows a label full
fine-tuning is as good or better, and pairs become too many. It wants a rate of 2e-5 to 1e-4, batches of 16 pairs, and
one epoch of them, or three where rows are fewest. Probabilities of the head are cautious: it is fitted with a penalty.

Sentence encoders are trained for the mean of a text's tokens, and on eight rows a label a first token that no one has
trained for this does not become as good. So a block that takes the mean is put on top of the model
(`ftlib.models.mean_pooling`), within what plain transformers opens; it costs a forward pass a block more.

Tunstall et al. (2022), "Efficient Few-Shot Learning Without Prompts", https://arxiv.org/abs/2209.11055, section 3;
pairs as its package, setfit, draws them ("oversampling"). Texts that have any label in common are alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.strategies.base import Strategy
from ftlib.targets.losses import PLAIN, LossShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.batches import Rows
    from ftlib.training.stage import Job, Training
    from ftlib.training.trainer import Fitted


class FewShot(Strategy):
    """Contrastive training of the encoder, then a logistic regression as the head."""

    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    pooling: Literal["mean", "head"] = "mean"
    """What stands for a text: the mean of its tokens, or what the model's own head reads (first or last token)."""

    max_pairs: int = Field(20_000, ge=2)
    """The most pairs of an epoch; of eight rows a label and two labels there are 144."""

    c: float = Field(1.0, gt=0)
    """Inverse strength of the penalty on the head's weights: more fits the rows closer."""

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix: it belongs to the blocks that are there; and a template: its head is a language model's."""
        return dict.fromkeys(("prefix", "cloze template"), "start from base, or from a stage without one")

    def check(self, problem: Problem) -> None:
        """Refuse a problem whose rows have no labels of their own.

        Raises:
            UnsupportedError: With the reason.
        """
        from ftlib.models.mean_pooling import labels_whole_texts

        super().check(problem)
        if not labels_whole_texts(problem):
            raise UnsupportedError(
                f"few_shot cannot train {problem.name}: pairs of texts are alike or not by the label of the whole "
                "text, and a linear head is fitted to these labels; choose full or lora."
            )

    def check_settings(self, settings: Training) -> None:
        """Refuse what shapes a loss on labels, which there is none of."""
        names = ("label_smoothing", "focal_gamma", "class_weights", "r_drop")
        wrong = [name for name in names if getattr(settings.regularization, name)]
        if wrong:
            raise UnsupportedError(
                f"few_shot cannot use regularization.{', '.join(wrong)}: its loss is of pairs of texts, and its head "
                "is fitted, so no loss on labels is trained; leave it out."
            )

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Count the block that takes the mean."""
        return size.with_block_on_top() if self.pooling == "mean" else size

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Take the head's last layer off, put mean pooling in front of it, and open all weights beneath.

        Raises:
            UnsupportedError: If the checkpoint has a prefix, no linear head, or is none that can pool the mean.
        """
        from ftlib.models.mean_pooling import without_head
        from ftlib.models.peft_models import has_beyond_plain

        self.check_start(has_beyond_plain(model))
        return without_head(model, problem.target.num_outputs, pooling=self.pooling)

    def loss(self, logits: Tensor, batch: Mapping[str, Tensor], problem: Problem, shape: LossShape = PLAIN) -> Tensor:
        """Return the mean squared difference between pairs' cosine similarity and 1 (alike) or 0.

        Args:
            logits: Vectors of the texts, the two of each pair side by side, shape (2 * num_pairs, size).
            batch: Their labels.
            problem: What is learned.
            shape: Without effect: `check_settings` refuses all but the plain one.
        """
        from torch.nn.functional import cosine_similarity, mse_loss

        from ftlib.training.pairs import alike

        labels = batch["labels"]
        same = alike(labels[::2], labels[1::2])
        return mse_loss(cosine_similarity(logits[::2], logits[1::2]), same.to(logits.dtype))

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Train on pairs, fit the head to the vectors of all rows, and measure it once."""
        import numpy as np

        from ftlib.training.batches import Rows
        from ftlib.training.pairs import Pairs, distinct, draw
        from ftlib.training.trainer import fit, measured_as_it_is

        given = Rows.from_table(rows, checkpoint.tokenizer, job.problem)
        places = distinct(given)
        pairs = draw(given.fixed["labels"][places], self.max_pairs, np.random.default_rng([job.seed, len(places)]))
        fitted = fit(checkpoint, Pairs.of(given, places[pairs]), validation.slice(0, 0), self, job)
        self._fit_head(checkpoint.model, given, job.problem)
        return _joined(fitted, measured_as_it_is(checkpoint, validation, job))

    def _fit_head(self, model: Any, rows: Rows, problem: Problem) -> None:
        from ftlib.models.forward import row_vectors
        from ftlib.models.linear_heads import put_back
        from ftlib.training.logistic import sigmoid_head, softmax_head

        features, labels = row_vectors(model, rows, problem), rows.fixed["labels"]
        if labels.ndim == 1:
            put_back(model, *softmax_head(features, labels, problem.target.num_outputs, self.c))
        else:
            put_back(model, *sigmoid_head(features, labels, self.c))


def _joined(fitted: Fitted, measured: Fitted) -> Fitted:
    """Return what training gave, with the validation of the finished model as its last pass."""
    steps, epochs = fitted.figures["steps"], fitted.figures["epochs"]
    history = [*fitted.history, *({**row, "step": int(steps), "epoch": epochs} for row in measured.history)]
    best = {name: value for name, value in measured.figures.items() if name.startswith("best_")}
    return replace(fitted, history=history, figures={**fitted.figures, **best, "best_step": steps})
