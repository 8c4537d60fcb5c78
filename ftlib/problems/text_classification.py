"""Text classification: a text gets one of the labels, or, with multi_label, any number of them.

Sentiment, topic, intent, spam; with several labels a row: emotions, tags. Labels are names or ids.

Row: ``{"text": "I was charged twice in May.", "label": "billing"}``; with multi_label
``{"text": "Charged twice, and rudely answered!", "label": ["billing", "complaint"]}`` (or ``"billing, complaint"``).

Loss: cross-entropy; with multi_label, binary cross-entropy per label. Usual metric: accuracy where the labels are
balanced, macro F1 or MCC where they are not; micro and macro F1 with multi_label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from ftlib.problems._labels import Labels, Threshold, bound, check_enough, target
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    from ftlib.targets.base import Target


class TextClassification(Problem):
    """A text gets one of the labels, or any number of them."""

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
        """Return ten support requests of three labels."""
        return [
            {"text": "I was charged twice in May.", "label": "billing"},
            {"text": "Please refund the second invoice.", "label": "billing"},
            {"text": "Why did the price of my plan go up?", "label": "billing"},
            {"text": "The app crashes when I open a photo.", "label": "bug"},
            {"text": "Search finds nothing since the update.", "label": "bug"},
            {"text": "Error 500 on every page I save.", "label": "bug"},
            {"text": "I forgot my password.", "label": "account"},
            {"text": "How do I change the email address of my login?", "label": "account"},
            {"text": "Delete my profile and all of its data.", "label": "account"},
            {"text": "My card was declined but the money is gone.", "label": "billing"},
        ]
