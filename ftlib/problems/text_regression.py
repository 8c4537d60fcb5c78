"""Text regression: a text gets a number.

Ratings, grades, readability, intensity; for ordered classes too ("one to five stars"), where being off by one is
better than being off by four. The range is not bounded; labels far from zero (prices) learn better rescaled.

Row: ``{"text": "A quiet room and a friendly host.", "label": 4.5}``

Loss: mean squared error. Usual metrics: Spearman and Pearson correlation, RMSE, MAE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftlib.problems.base import Problem
from ftlib.targets.value import Value

if TYPE_CHECKING:
    from ftlib.targets.base import Target


class TextRegression(Problem):
    """A text gets a number."""

    @property
    def target(self) -> Target:
        """A number."""
        return Value()

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight reviews with their stars."""
        return [
            {"text": "A quiet room and a friendly host.", "label": 4.5},
            {"text": "Spotless, central, and a superb breakfast.", "label": 5.0},
            {"text": "Dirty sheets and no hot water.", "label": 1.0},
            {"text": "We left after one night.", "label": 1.5},
            {"text": "Nothing special, but it was cheap.", "label": 3.0},
            {"text": "Good bed, bad walls: we heard everything.", "label": 2.5},
            {"text": "Would come again, if the lift worked.", "label": 3.5},
            {"text": "The view alone is worth the price.", "label": 4.0},
        ]
