"""Continued pretraining: the base model reads the user's raw texts, by masked or causal language modelling, first.

Helps where texts are unlike what the base model was pretrained on (trades, products, dialects, a language it has seen
little of) and there are many more of them than labelled rows: some ten thousand texts for a task of some thousand
rows. Texts of the task itself are worth most. It does little where the domain is known to the model or labelled rows
are plenty, and a sentence encoder such as all-MiniLM loses by it what it was made for: compare with a stage that
starts from base. The next stage takes the encoder over and draws its own head, or, being `cloze`, asks this one's.

A stage of a task whose problem is masked_language_modeling or causal_language_modeling:

    tasks:  [{name: corpus, problem: masked_language_modeling, data: {sources: {all: texts.jsonl}}}]
    stages: [{name: adapted, task: corpus, strategy: continued_pretraining},
             {name: full, start_from: adapted, strategy: full}]

Gururangan et al. (2020), "Don't Stop Pretraining: Adapt Language Models to Domains and Tasks",
https://arxiv.org/abs/2004.10964; rates of 5e-5 to 5e-4, warmed up, as many passes as the texts are few (100 for a few
thousand). A head that is new is best trained alone first (`head_ratio`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.errors import UnsupportedError
from ftlib.strategies._tasks import PLAIN_START
from ftlib.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from ftlib.problems.base import Problem
    from ftlib.training.course import Course
    from ftlib.training.stage import Training


class ContinuedPretraining(Strategy):
    """Every weight learns to predict the words of raw texts."""

    keep_head: bool = True
    """Whether later stages keep the head that predicts words, so that they can be asked how well they still read."""

    head_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the head learns alone: 0.1 or so for base models that were published without their
    language model's head, such as sentence encoders."""

    learn_embeddings: bool = True
    """Whether word embeddings learn, too: new words need it. Without, a step is a little cheaper."""

    @property
    def keeps_head(self) -> bool:
        """Whether stages of other tasks keep its head."""
        return self.keep_head

    @property
    def refuses(self) -> Mapping[str, str]:
        """What is no plain model."""
        return PLAIN_START

    def check(self, problem: Problem) -> None:
        """Refuse a problem that is not to predict the words of a raw text.

        Raises:
            UnsupportedError: With what to do.
        """
        from ftlib.problems._token_learning import TokenLearning

        super().check(problem)
        if not isinstance(problem.learning, TokenLearning):
            raise UnsupportedError(
                f"continued_pretraining cannot train {problem.name}: it reads raw texts before labels are learned; "
                "give the stage a task whose problem is masked_language_modeling or causal_language_modeling, or "
                "choose full."
            )

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Open every weight, or all but the word embeddings.

        Raises:
            UnsupportedError: If the checkpoint has more than a plain one.
        """
        from ftlib.models.peft_models import has_beyond_plain

        self.check_start(has_beyond_plain(model))
        opened = super().adapt(model, problem)
        if not self.learn_embeddings:
            opened.get_input_embeddings().requires_grad_(False)
        return opened

    def course(self, model: PreTrainedModel, settings: Training, max_steps: int, steps_per_epoch: int) -> Course:
        """Return the course: the head alone for `head_ratio` of the steps, then all."""
        from ftlib.training.course import head_first

        return head_first(model, self.head_ratio, settings, max_steps)
