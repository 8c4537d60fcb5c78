"""A generated text: each row's candidates are what the members generated for it.

A unit is a candidate, a distinct text; its score by a member is the share that the member gives it among its own
candidates, 0 where the member did not generate it. So a member alone answers with its own best text, the mean of
several is the mixture of their distributions, and a fusion that compares the texts themselves
(`minimum_bayes_risk`) finds them in the layout's units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.errors import ParamsError
from ftlib.targets import reading as read
from ftlib.targets import text_metrics as of
from ftlib.targets.base import Target
from ftlib.targets.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.base import Column
    from ftlib.targets.layout import Layout

TEXT = "text"
"""The column of a layout's units that holds the candidate."""

NEGLIGIBLE = 1e-6
"""Support up to it is none."""

CORPUS = ("bleu", "chrf")
LOWER = frozenset({"risk"})


@dataclass(frozen=True)
class Texts(Target):
    """A text, chosen among candidates."""

    kind: ClassVar[str] = "texts"
    proper_loss: ClassVar[str] = "risk"
    counts_right_rows: ClassVar[frozenset[str]] = frozenset({"exact_match"})
    has_labels: ClassVar[bool] = False
    contradicts: ClassVar[bool] = False

    main_metric: str = "chrf"  # type: ignore[misc]  # a problem says what its texts are judged by
    measuring: of.Measuring = field(default_factory=of.Measuring)

    @property
    def num_outputs(self) -> int:
        """One: the candidate's share."""
        return 1

    @property
    def unit_kind(self) -> str:
        """Candidates, compared within their row."""
        return "candidate"

    @property
    def candidate_features(self) -> tuple[str, ...]:
        """How like the others a text is, by what texts are judged by; who proposes it; its length."""
        return ("mixture", "rank", "proposals", "votes", "length", f"likeness:{self.measuring.quality}")

    # -- gold texts --------------------------------------------------------------------------------

    def parse(self, column: Column) -> tuple[pa.Array, pa.Array]:
        """Read one text a row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        array = read.flat(column)
        if pa.types.is_nested(array.type):
            nested = read.IS_A_LIST if read.is_list(array) else read.IS_NESTED
            none = pa.nulls(len(array), pa.string())
            return none, read.reason(pc.is_valid(array), nested, read.reason(pc.is_null(array), read.MISSING))
        texts = pc.utf8_trim_whitespace(pc.cast(array, pa.string()))
        usable = pc.fill_null(pc.greater(pc.utf8_length(texts), 0), False)
        texts = pc.if_else(usable, texts, pa.scalar(None, pa.string()))
        return texts, read.reason(pc.invert(usable), read.MISSING)

    def learn(self, column: Column) -> tuple[str, ...]:
        """Return (): texts have no labels."""
        return ()

    def encode(self, column: Column) -> np.ndarray:
        """Return what metrics are made of, one line a candidate: see `ftlib.targets.text_metrics.statistics`."""
        array = read.flat(column)
        read.check_complete(array)
        layout = self.laid_out
        gold = array.to_pylist()
        return of.statistics(self._texts(), [gold[row] for row in layout.row_of.tolist()], self.measuring)

    def _texts(self) -> list[str]:
        layout = self.laid_out
        return [] if layout.units is None else layout.units[TEXT].to_pylist()

    # -- scores and answers ------------------------------------------------------------------------

    def support(self, scores: np.ndarray) -> np.ndarray:
        """Return each candidate's support, shape (num_units,)."""
        return scores.prod(-1)

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return the position of each row's best candidate, shape (num_rows,)."""
        return self.laid_out.best(self.support(scores))

    def decode(self, scores: np.ndarray) -> list[str]:
        """Return each row's best candidate."""
        texts = self._texts()
        return [texts[i] if i >= 0 else "" for i in self.predicted(scores).tolist()]

    def ranked(self, scores: np.ndarray, limit: int) -> list[list[tuple[str, float]]]:
        """Return each row's best candidates with their support, best first; those without any only where all are.

        A member that is not used has candidates too, which are there or not by whether it was run.
        """
        layout, texts, support = self.laid_out, self._texts(), self.support(scores)
        ends = zip(layout.splits[:-1].tolist(), layout.splits[1:].tolist(), strict=True)
        ordered = (sorted(range(start, end), key=lambda i: (-support[i], i))[:limit] for start, end in ends)
        told = ([i for n, i in enumerate(row) if n == 0 or support[i] > NEGLIGIBLE] for row in ordered)
        return [[(texts[i], float(support[i])) for i in row] for row in told]

    def row_right(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return which texts are the gold ones to the letter."""
        return self._chosen(scores, references)[:, of.EXACT] > 0

    def row_losses(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return how far each text is from perfect quality."""
        return 1 - self._chosen(scores, references)[:, of.QUALITY]

    def _chosen(self, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Return the statistics of each row's best candidate; of a row that has none, zeros."""
        import numpy as np

        best = self.predicted(scores)
        if not len(references):
            return np.zeros((len(best), of.NUM_STATISTICS))
        return np.where((best >= 0)[:, None], references[best], 0.0)

    def strata(self, references: np.ndarray, num_folds: int) -> np.ndarray:
        """Return one stratum: folds are drawn blindly."""
        import numpy as np

        return np.zeros(self.num_rows(references), dtype=np.int64)

    def strata_column(self, column: Column) -> Column | None:
        """Return None: splits are drawn blindly."""
        return None

    # -- measures ----------------------------------------------------------------------------------

    def measure(self, metric: str, scores: np.ndarray, references: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return a metric as a function of row counts: sums of statistics, then the metric of the sums."""
        if metric in CORPUS:
            return self._of_sums(metric, self._chosen(scores, references))
        if metric == "meteor" and not of.has_wordnet():
            raise ParamsError(
                "metric meteor: nltk has no WordNet on this machine; run `python -m nltk.downloader wordnet`, "
                "or use meteor_exact_stem, which needs none."
            )
        values = self._row_values(metric, scores, references)
        return lambda counts: counts @ values / counts.sum(1)

    def _of_sums(self, metric: str, chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        import numpy as np

        columns, value = (of.BLEU, of.corpus_bleu) if metric == "bleu" else (of.CHRF, of.corpus_chrf)
        counted = chosen[:, columns]
        return lambda counts: np.array([value(sums, self.measuring) for sums in counts @ counted])

    def _row_values(self, metric: str, scores: np.ndarray, references: np.ndarray) -> np.ndarray:
        chosen = self._chosen(scores, references)
        if metric == "risk":
            return 1 - chosen[:, of.QUALITY]
        if metric == "exact_match":
            return chosen[:, of.EXACT]
        return chosen[:, of.MEANS[metric]]

    def _metrics(self) -> dict[str, Metric]:
        names = (*CORPUS, *of.MEANS, "exact_match", "risk")
        return {name: self._of_all_rows(name) for name in names} | {"meteor": self._meteor}

    def _meteor(self, scores: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> float | None:
        return self._of_all_rows("meteor")(scores, predicted, references) if of.has_wordnet() else None

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a larger value of a metric is a better one."""
        return self._known(metric) not in LOWER

    def per_label(self, scores: np.ndarray, references: np.ndarray) -> dict[str, dict[str, float]]:
        """Return {}: texts have no labels."""
        return {}

    def config(self) -> dict[str, Any]:
        """Return {}: the pretrained head stays as it is."""
        return {}


def candidates(members: Sequence[Sequence[tuple[Sequence[str], Sequence[float]]]]) -> tuple[np.ndarray, Layout]:
    """Return the members' scores of all distinct texts of each row, and these texts as a layout.

    Within a row, texts are in the order of their mean share, so that the order of members does not matter.

    Args:
        members: One list a member: for each row its texts and their shares.

    Returns:
        Shares, float64, shape (num_members, num_units, 1).
    """
    from math import fsum

    import numpy as np
    import pyarrow as pa

    from ftlib.targets.layout import Layout

    counts, texts, columns = [], [], []
    for row in zip(*members, strict=True):
        given = [dict(zip(*one, strict=True)) for one in row]
        mean = {text: fsum(one.get(text, 0.0) for one in given) for one in given for text in one}
        ordered = sorted(mean, key=lambda text: (-mean[text], text))
        counts.append(len(ordered))
        texts += ordered
        columns += [[one.get(text, 0.0) for one in given] for text in ordered]
    values = np.array(columns, dtype=np.float64).reshape(-1, len(members)).T
    return values[..., None], Layout.of(np.array(counts, np.int64), pa.table({TEXT: pa.array(texts, pa.string())}))
