"""Text pair regression: two texts get a number.

Semantic similarity (STS-B: 0 unrelated to 5 equivalent), relevance of a passage to a query. The model reads both
texts together, which is more exact, and slower at search time, than comparing two embeddings.

Row: ``{"text": "A plane is taking off.", "text_pair": "An air plane is taking off.", "label": 5.0}``

Loss: mean squared error. Usual metrics: Pearson and Spearman correlation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.problems.base import Problem
from ftlib.targets.value import Value

if TYPE_CHECKING:
    from ftlib.targets.base import Target


class TextPairRegression(Problem):
    """Two texts get a number."""

    text_columns: ClassVar[tuple[str, ...]] = ("text", "text_pair")

    @property
    def target(self) -> Target:
        """A number."""
        return Value()

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight pairs with their similarity, 0 to 5."""
        return [
            {"text": "A plane is taking off.", "text_pair": "An air plane is taking off.", "label": 5.0},
            {"text": "A man is playing a large flute.", "text_pair": "A man is playing a flute.", "label": 3.8},
            {"text": "A dog runs on the beach.", "text_pair": "A dog is running along the shore.", "label": 4.6},
            {"text": "Three men play chess.", "text_pair": "Two men are playing chess.", "label": 2.6},
            {"text": "A woman is cutting onions.", "text_pair": "A woman is peeling a potato.", "label": 2.0},
            {"text": "A man is smoking.", "text_pair": "A man is skating.", "label": 0.5},
            {"text": "The cat sleeps on the sofa.", "text_pair": "Parliament passed the budget.", "label": 0.0},
            {"text": "A child rides a horse.", "text_pair": "A young child is riding a horse.", "label": 4.75},
        ]
