"""Zero-shot: the base model answers as it is, by what the labels say; nothing is trained.

What the base model knows already is the yardstick for every stage that trains, and a member that has seen no training
row may help a fusion. It takes no time and no rows. Where the labels' words say little, or the base model is untrained,
it guesses.

Texts, with labels of their own: each label is described in words (`descriptions`, or its name in the `template`), and a
text has the label whose description its vector is nearest to. That wants a base model whose text vectors mean
something, a sentence encoder such as all-MiniLM; plain masked language models answer by strategy `cloze` instead.
Images with labels by prompts (CLIP) are answered by the model itself. Other problems are refused: their models begin
with a head drawn at random.

Radford et al. (2021), "Learning Transferable Visual Models From Natural Language Supervision",
https://arxiv.org/abs/2103.00020, section 3.1; texts: Chang et al. (2008), "Importance of Semantic Representation:
Dataless Classification", AAAI, with vectors as in Reimers & Gurevych (2019), https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from ftlib.errors import UnsupportedError, unknown
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.stage import Job
    from ftlib.training.trainer import Fitted

Words = Annotated[str, StringConstraints(min_length=1)]


class ZeroShot(Strategy):
    """The checkpoint as it is; nothing is trained, and settings of training have no effect."""

    descriptions: dict[str, Words | Annotated[tuple[Words, ...], Field(min_length=1)]] = {}
    """Label -> what it means, in words; of several texts the mean. A label that is left out has its name."""

    template: Annotated[str, StringConstraints(pattern=r"\{label\}")] = "{label}"
    """A label's name in words, where it has no description; underscores are read as spaces."""

    scale: float = Field(20.0, gt=0)
    """What cosine similarities are multiplied by to be logits: more is surer."""

    @property
    def trains(self) -> bool:
        """No."""
        return False

    @property
    def refuses(self) -> Mapping[str, str]:
        """A template with its words: it answers already; and a prefix, which belongs to the blocks that are there."""
        return {"cloze template": "choose cloze", "prefix": "start from base, or from a stage without one"}

    def check(self, problem: Problem) -> None:
        """Refuse a problem whose model begins with a head drawn at random and whose labels are not those of one text.

        Raises:
            UnsupportedError: If the base model cannot answer it, or a described label is none.
        """
        from ftlib.models.mean_pooling import labels_whole_texts

        super().check(problem)
        if problem.answers_untrained:
            return
        if not labels_whole_texts(problem) or len(problem.text_columns) > 1:
            raise UnsupportedError(
                f"zero_shot cannot answer {problem.name}: what it asks for is no label of one text that words could "
                "describe, and its model begins with a head drawn at random; choose full or lora."
            )
        labels = problem.target.labels
        for label in self.descriptions if labels else ():
            if label not in labels:
                raise UnsupportedError(f"zero_shot: {unknown('label', label, labels)}")

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Count the block that takes the mean."""
        return size if problem.answers_untrained else size.with_block_on_top()

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Freeze every weight, and of a text's model give what its head reads: the mean of its tokens.

        Raises:
            UnsupportedError: If the checkpoint has a prefix, no linear head, or is none that can pool the mean.
        """
        from ftlib.models.mean_pooling import without_head
        from ftlib.models.peft_models import has_beyond_plain

        if problem.answers_untrained:
            return model.requires_grad_(False)
        self.check(problem)
        self.check_start(has_beyond_plain(model))
        return without_head(model, problem.target.num_outputs).requires_grad_(False)

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Make the head of the labels' descriptions, and measure the model."""
        from ftlib.models.linear_heads import put_back
        from ftlib.training.trainer import measured_as_it_is

        if not job.problem.answers_untrained:
            put_back(checkpoint.model, *self._head(checkpoint, job.problem))
        return measured_as_it_is(checkpoint, validation, job)

    def _head(self, checkpoint: Checkpoint, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias: of one label, similarity; of a set, whether it is above that between two labels."""
        import numpy as np

        from ftlib.models.forward import text_vectors

        texts = [self._words(label) for label in problem.target.labels]
        vectors = text_vectors(checkpoint, [text for label in texts for text in label], problem)
        ends = np.cumsum([len(label) for label in texts])[:-1]
        directions = np.stack([part.mean(0) / np.linalg.norm(part.mean(0)) for part in np.split(vectors, ends)])
        bias = np.zeros(len(directions))
        if problem.target.kind == "multi_label" and len(directions) > 1:
            between = (directions @ directions.T)[~np.eye(len(directions), dtype=bool)]
            bias -= self.scale * between.mean()
        return self.scale * directions, bias

    def _words(self, label: str) -> tuple[str, ...]:
        """Return what describes a label."""
        given = self.descriptions.get(label, self.template.replace("{label}", label.replace("_", " ")))
        return (given,) if isinstance(given, str) else given
