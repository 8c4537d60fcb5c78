"""Text pair classification: how two texts relate, as one of the labels or any number of them.

Paraphrase (MRPC, QQP), entailment (MNLI, RTE), whether a passage answers a question (QNLI). The model reads both
texts together; the longer one is cut first where the pair is too long.

Row: ``{"text": "He said the food was great.", "text_pair": "The food, he said, was great.", "label": 1}``

Loss: cross-entropy; with multi_label, binary cross-entropy per label. Usual metric: accuracy, and F1 of the second
label for paraphrases (metric "f1" where there are two labels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from ftlib.problems._labels import Labels, Threshold, bound, check_enough, target
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    from ftlib.targets.base import Target


class TextPairClassification(Problem):
    """Two texts get one of the labels, or any number of them."""

    text_columns: ClassVar[tuple[str, ...]] = ("text", "text_pair")

    labels: Labels = ()
    """Label names in the order of their ids; learned from the training rows, sorted, unless given."""

    multi_label: bool = False
    """Whether a row may have any number of labels, each decided on its own."""

    threshold: Threshold = 0.5
    """With multi_label: the probability from which a label is given."""

    @model_validator(mode="after")
    def _check_enough(self) -> Self:
        check_enough(self.labels, self.multi_label)
        return self

    @property
    def target(self) -> Target:
        """One label, or a set of labels."""
        return target(self.labels, self.multi_label, self.threshold)

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its label names filled in; names from the params keep their order."""
        return self.model_copy(update={"labels": bound(self.labels, labels)})

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight pairs, paraphrases or not."""
        return [
            {"text": "He said the food was great.", "text_pair": "The food, he said, was great.", "label": "same"},
            {"text": "Shares fell by ten per cent.", "text_pair": "The stock lost a tenth.", "label": "same"},
            {"text": "The storm closed the airport.", "text_pair": "The airport shut in the storm.", "label": "same"},
            {"text": "She won the race on Sunday.", "text_pair": "Sunday's race was hers.", "label": "same"},
            {"text": "He said the food was great.", "text_pair": "He complained of the service.", "label": "different"},
            {"text": "Shares fell by ten per cent.", "text_pair": "The firm hired a director.", "label": "different"},
            {"text": "The storm closed the airport.", "text_pair": "The airport has one runway.", "label": "different"},
            {"text": "She won the race on Sunday.", "text_pair": "She was born on a Sunday.", "label": "different"},
        ]
