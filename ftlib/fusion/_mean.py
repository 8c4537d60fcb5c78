"""The weighted mean of the members: what averaging, weighted, soft voting and greedy selection all come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftlib.errors import ArtifactError
from ftlib.files import read_json, write_json
from ftlib.fusion._calibration import softened
from ftlib.fusion._logarithms import SMALLEST, log_odds
from ftlib.fusion.base import Combiner

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.layout import Layout

Space = Literal["scores", "logits"]


@dataclass(frozen=True)
class WeightedMean(Combiner):
    """The weighted mean of the members' scores, or of their logits.

    Attributes:
        kind: The target's unit_kind: "single_label", "multi_label", "value" or "candidate".
        space: What is averaged: scores give the arithmetic mean, logits the normalised geometric one.
        shares: Each member's weight; they sum to 1.
        temperatures: What each member's confidence is divided by before (`ftlib.fusion._calibration`); () for nothing.
        note: What was not as hoped for; "" for nothing.
    """

    kind: str
    space: Space
    shares: tuple[float, ...]
    temperatures: tuple[float, ...] = ()
    note: str = ""

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return the weighted mean, shape (num_units, num_outputs)."""
        if self.temperatures:
            scores = softened(scores, self.temperatures, kind=self.kind, layout=layout)
        return pool(scores, self.shares, kind=self.kind, space=self.space)

    def weights(self) -> list[float]:
        """Return each member's share."""
        return list(self.shares)

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        value = {"combiner": "weighted_mean", "kind": self.kind, "space": self.space, "weights": self.weights()}
        calibration = {"temperatures": list(self.temperatures)} if self.temperatures else {}
        note = {"note": self.note} if self.note else {}
        write_json(folder / "combiner.json", {**value, **calibration, **note})

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read combiner.json."""
        value = read_combiner(folder, "weighted_mean")
        more = {"temperatures": tuple(value.get("temperatures", ())), "note": value.get("note", "")}
        return cls(value["kind"], value["space"], tuple(value["weights"]), **more)


def read_combiner(folder: Path, combiner: str) -> dict:
    """Return what combiner.json holds, having checked that it is of the expected make."""
    path = folder / "combiner.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no combiner.json; expected a folder that a fusion step wrote.")
    value = read_json(path)
    if value.get("combiner") != combiner:
        raise ArtifactError(f"{path} holds a combiner {value.get('combiner')!r}; expected {combiner!r}.")
    return value


def pool(
    scores: np.ndarray, weights: Sequence[float] | np.ndarray, *, kind: str, space: Space = "scores"
) -> np.ndarray:
    """Return the members' weighted mean; copies of one member give that member.

    Genest & Zidek (1986), "Combining Probability Distributions: A Critique and an Annotated Bibliography",
    https://doi.org/10.1214/ss/1177013825: the linear pool (scores) and the logarithmic pool (logits). A value
    has one space only, so both are the mean there.

    Args:
        scores: Shape (num_members, num_units, num_outputs); members at weight 0 are not read.
        weights: One a member, at least 0, not all 0; only their ratios count.
        kind: The target's unit_kind.
        space: What is averaged.
    """
    import numpy as np

    shares = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(shares)
    shares = shares[used] / shares[used].sum()
    values = np.asarray(scores)[used].astype(np.float64)
    if space == "scores" or kind == "value":
        # The bounds hold for every mean; keeping them mends the last digit, so that copies give the member itself.
        return np.clip(_mean(values, shares), values.min(0), values.max(0))
    return _logarithmic(values, shares, kind)


def uniform(num_members: int) -> tuple[float, ...]:
    """Return equal weights."""
    return (1 / num_members,) * num_members


def as_support(values: np.ndarray, num_outputs: int) -> np.ndarray:
    """Return one number a candidate, shape (num_units,), as its support in `num_outputs` equal factors."""
    import numpy as np

    return np.repeat((values ** (1 / num_outputs))[:, None], num_outputs, axis=1)


def _logarithmic(values: np.ndarray, shares: np.ndarray, kind: str) -> np.ndarray:
    import numpy as np
    from scipy.special import expit, softmax

    if kind == "multi_label":
        return expit(_mean(log_odds(values), shares))
    if kind == "candidate":
        return np.exp(_mean(np.log(np.maximum(values, SMALLEST)), shares))
    return softmax(_mean(np.log(np.maximum(values, SMALLEST)), shares), axis=-1)


def _mean(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Add member by member: unlike a matrix product, this rounds a row alike in every batch."""
    total = shares[0] * values[0]
    for share, value in zip(shares[1:], values[1:], strict=True):
        total = total + share * value
    return total
