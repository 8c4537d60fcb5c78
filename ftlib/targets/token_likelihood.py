"""Tokens of a text, each from a whole vocabulary: how likely the model finds what stands there.

A vocabulary is too large to keep every token's probability at every place, so a place has two kinds of units. One is
the gold token's own probability: its mean over members is exactly the mixture's, so the perplexity of a fused model is
that of the mixture, not an estimate. The others are candidates: the tokens that a member finds most probable there,
with no gold token added, so that a guess is never helped by the answer. A candidate counts nothing with a member
that has it not among its own.

Since most of the vocabulary is absent, only linear pools of the members mean anything here (`unit_kind` likelihood).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.targets.base import Target
from ftlib.targets.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.base import Column

SMALLEST = 1e-30
"""Probabilities below it count as it where a logarithm is taken."""

PLACE, TOKEN, TEXT = "place", "token", "text"
"""Columns of a layout's units: the place's number among all, the candidate (-1: the gold one's unit), its text."""

QUALITY, IS_GOLD, IS_PLACE = range(3)
"""Columns of references: whether the candidate is the gold token; whether it is the gold one's unit; whether it is
the first unit of a place whose gold token is known."""


@dataclass(frozen=True)
class TokenLikelihood(Target):
    """The tokens at some places of a text."""

    kind: ClassVar[str] = "likelihood"
    main_metric: ClassVar[str] = "perplexity"
    counts_right_rows: ClassVar[frozenset[str]] = frozenset()
    has_labels: ClassVar[bool] = False
    contradicts: ClassVar[bool] = False

    @property
    def num_outputs(self) -> int:
        """One: a probability."""
        return 1

    # -- gold --------------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Take every text: it is its own answer."""
        import pyarrow as pa

        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return array, pa.nulls(len(array), pa.string())

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return (): a vocabulary comes with the model."""
        return ()

    def encode(self, column: Column) -> np.ndarray:
        """Return what metrics are made of, one line a unit; all of it is in the layout."""
        return self.laid_out.units["reference"].combine_chunks().flatten().to_numpy().reshape(-1, 3)  # type: ignore

    def _unit(self, column: str) -> np.ndarray:
        return self.laid_out.units[column].combine_chunks().to_numpy(zero_copy_only=False)  # type: ignore[index]

    # -- scores and answers ------------------------------------------------------------------------

    def best(self, scores: np.ndarray) -> np.ndarray:
        """Return the unit of each place's most probable candidate, in the order of places."""
        import numpy as np

        candidates = np.flatnonzero(self._unit(TOKEN) >= 0)
        rows, places = self.laid_out.row_of[candidates], self._unit(PLACE)[candidates]
        order = np.lexsort((-candidates, scores[candidates, 0], places, rows))  # of equals the first, so the last here
        is_last = np.diff(places[order], append=-1) | np.diff(rows[order], append=-1)  # a row may be there twice
        return candidates[order[np.flatnonzero(is_last)]]

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the most probable token of each place."""
        return self._unit(TOKEN)[self.best(scores)]

    def decode(self, scores: np.ndarray) -> list[str]:
        """Return each row's most probable tokens, one a place; where units have no texts, how likely the row is."""
        layout = self.laid_out
        if layout.units is not None and TEXT in layout.units.column_names:
            found: list[list[str]] = [[] for _ in range(layout.num_rows)]
            best = self.best(scores)
            texts = self._unit(TEXT)[best]
            for row, text in zip(layout.row_of[best].tolist(), texts.tolist(), strict=True):
                found[row].append(text)
            return [", ".join(row) for row in found]
        return [f"perplexity {value:.2f}" for value in self.row_perplexities(scores).tolist()]

    def ranked(self, scores: np.ndarray, limit: int) -> list[list[list[dict[str, Any]]]]:
        """Return, for each place of each row, its most probable candidates: token and score."""
        layout, places, tokens, texts = self.laid_out, self._unit(PLACE), self._unit(TOKEN), self._unit(TEXT)
        found: list[dict[int, list[dict[str, Any]]]] = [{} for _ in range(layout.num_rows)]
        row_of = layout.row_of
        for unit in (-scores[:, 0]).argsort(kind="stable").tolist():
            if tokens[unit] >= 0:
                place = found[row_of[unit]].setdefault(int(places[unit]), [])
                place.append({"token": texts[unit], "score": float(scores[unit, 0])})
        return [[row[place][:limit] for place in sorted(row)] for row in found]

    def row_sums(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's negative log-likelihood and number of tokens, over places whose token is known."""
        import numpy as np

        references = self.encode(None)  # type: ignore[arg-type]
        is_gold = references[:, IS_GOLD] > 0
        losses = np.where(is_gold, -np.log(np.maximum(scores[:, 0], SMALLEST)), 0.0)
        return self.laid_out.sums(losses), self.laid_out.sums(is_gold.astype(np.float64))

    def row_perplexities(self, scores: np.ndarray) -> np.ndarray:
        """Return each row's perplexity, NaN where no place's token is known."""
        import numpy as np

        losses, tokens = self.row_sums(scores)
        return np.where(tokens > 0, np.exp(losses / np.maximum(tokens, 1)), np.nan)

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return each row's mean negative log-likelihood a token."""
        import numpy as np

        losses, tokens = self.row_sums(scores)
        return losses / np.maximum(tokens, 1)

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return in which rows the most probable token is the gold one at every place."""
        hits, tokens = self._row_hits(scores, references)
        return hits == tokens

    def _row_hits(self, scores: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        hit = np.zeros(len(scores))
        best = self.best(scores)
        hit[best] = references[best, QUALITY]
        return self.laid_out.sums(hit), self.laid_out.sums(references[:, IS_PLACE])

    def same(self, scores: np.ndarray, other_scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return on which rows two models find the same tokens most probable, at every place."""
        import numpy as np

        one, other = self.best(scores), self.best(other_scores)
        differs = np.zeros(len(scores))
        differs[one[one != other]] = 1
        return self.laid_out.sums(differs) == 0

    def gold(self, column: Column) -> Column:
        """Return the texts."""
        return column

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return one stratum: folds are drawn blindly."""
        import numpy as np

        return np.zeros(self.num_rows(references), dtype=np.int64)

    def strata_column(self, column: Column) -> Column | None:
        """Return None: splits are drawn blindly."""
        return None

    # -- measures ----------------------------------------------------------------------------------

    def measure(self, metric: str, scores: np.ndarray, references: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return a metric as a function of row counts: a quotient of sums over tokens."""
        import numpy as np

        accuracy = metric == "accuracy"
        above, below = self._row_hits(scores, references) if accuracy else self.row_sums(scores)

        def measured(counts: np.ndarray) -> np.ndarray:
            tokens = counts @ below
            mean = np.divide(counts @ above, tokens, out=np.full(len(counts), np.nan), where=tokens > 0)
            return np.exp(mean) if metric == "perplexity" else mean

        return measured

    def _metrics(self) -> dict[str, Metric]:
        return {name: self._of_all_rows(name) for name in ("perplexity", "log_loss", "accuracy")}

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a larger value of a metric is a better one."""
        return self._known(metric) == "accuracy"

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return {}: tokens are not listed as labels."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return {}: the pretrained head stays as it is."""
        return {}
