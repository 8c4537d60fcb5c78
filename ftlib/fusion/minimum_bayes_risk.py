"""Minimum Bayes risk: of all members' candidates, the text that is most like all the others.

The most probable text is often an odd one: the probability of what is right is spread over many ways to say it. So a
text is judged by its expected utility: how good it would be if another candidate were the gold one, on average
over the candidates, each counting by the members' mean share. The text in the middle wins, though no member need have
put it first. Nothing is fitted, except with `weights_from: validation_scores`.

It helps most where members are of like quality and their candidates many (`generation.num_candidates`, or sampling): of
two candidates neither is in the middle. Against one strong beam search among weak members it loses, as averaging
does. The utility should be the metric that counts: chrF for translations, ROUGE-L for summaries unless said otherwise.
The gain is largest in that metric, and other metrics may fall.

    fusions: [minimum_bayes_risk, {name: mbr-bleu, method: {name: minimum_bayes_risk, utility: bleu}}]

Sources: Kumar & Byrne (2004), "Minimum Bayes-Risk Decoding for Statistical Machine Translation",
https://aclanthology.org/N04-1022; Eikema & Aziz (2020), "Is MAP Decoding All You Need?",
https://aclanthology.org/2020.coling-main.398; over several models: DeNero et al. (2010), "Model Combination for Machine
Translation", https://aclanthology.org/N10-1141.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftlib.errors import UnsupportedError
from ftlib.files import write_json
from ftlib.fusion._mean import pool, read_combiner, uniform
from ftlib.fusion.base import Combiner, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

TEXT = "text"
"""The column of a layout's units that holds a candidate's text."""

Utility = Literal["chrf", "rougeL", "bleu"]


class MinimumBayesRisk(Fusion):
    """The candidate with the highest expected utility."""

    utility: Utility | None = None
    """How alike two texts are: chrf, rougeL (Latin letters only), or bleu of a sentence; what the problem calls a
    text's quality unless given."""

    weights_from: Literal["uniform", "validation_scores"] = "uniform"
    """Every member's candidates count the same, or by the member's main metric on the held-out rows."""

    sharpness: float = 4.0
    """Power of the metric (validation_scores only)."""

    def check(self, target: Target) -> None:
        """Refuse targets whose answers are not texts (UnsupportedError)."""
        if target.kind != "texts":
            raise UnsupportedError(
                f"minimum_bayes_risk compares generated texts; it cannot combine {target.kind}. Use averaging."
            )

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> ExpectedUtility:
        """Return the combiner; with `weights_from: uniform` only the number of members is read."""
        utility = self.utility or target.measuring.quality  # type: ignore[attr-defined]  # `check` lets only texts in
        if self.weights_from == "uniform":
            return ExpectedUtility(utility, uniform(len(scores)))
        values = [_value(member, references, target) ** self.sharpness for member in scores]
        total = sum(values)
        return ExpectedUtility(utility, tuple(v / total for v in values) if total else uniform(len(scores)))

    @classmethod
    def load(cls, folder: Path) -> ExpectedUtility:
        """Read back the combiner."""
        return ExpectedUtility.load(folder)


def _value(scores: np.ndarray, references: np.ndarray, target: Target) -> float:
    from ftlib.evaluation.measures import value_of

    return max(0.0, value_of(target.main_metric, scores, references, target))


@dataclass(frozen=True)
class ExpectedUtility(Combiner):
    """Each candidate's utility, expected under the members' mean shares.

    Attributes:
        utility: How alike two texts are.
        shares: Each member's weight; they sum to 1.
    """

    utility: Utility
    shares: tuple[float, ...]

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return expected utilities, from 0 to 1, shape (num_units, 1); 0 for texts that no member with weight gives.

        A member without weight need not run, so what it would say may not be chosen.
        """
        import numpy as np

        from ftlib.targets.text_metrics import expected_utility

        if layout is None or layout.units is None:
            raise ValueError("minimum_bayes_risk compares the candidates' texts; their layout is needed")
        mixture = pool(scores, self.shares, kind="candidate").prod(-1)
        texts = layout.units[TEXT].to_pylist()
        expected = np.zeros(len(mixture))
        for start, end in zip(layout.splits[:-1].tolist(), layout.splits[1:].tolist(), strict=True):
            expected[start:end] = expected_utility(texts[start:end], mixture[start:end], self.utility)
        return np.where(mixture > 0, expected, 0.0)[:, None]

    def weights(self) -> list[float]:
        """Return each member's share."""
        return list(self.shares)

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        value = {"combiner": "expected_utility", "utility": self.utility, "weights": self.weights()}
        write_json(folder / "combiner.json", value)

    @classmethod
    def load(cls, folder: Path) -> ExpectedUtility:
        """Read combiner.json."""
        value = read_combiner(folder, "expected_utility")
        return cls(value["utility"], tuple(value["weights"]))
