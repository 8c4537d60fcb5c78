"""Voting: each member answers, and the answer with most votes wins.

`voting: hard` counts answers. How sure a member is makes no difference, so one that is badly calibrated, or whose
scores live on a scale of their own, does no harm; the price is that fine differences in confidence are lost
(vote shares are coarse probabilities: expect a worse log-loss than the mean's). Ties go to the higher mean score. A
label of a multi-label problem is given where more than half of the members give it, and of numbers the median is
taken. Of candidates each member has one vote a row, for the one it supports most. `voting: soft` counts scores, which
is the members' mean (scikit-learn's words for the two); with `calibrate: temperature` after each member's confidence
was made honest.

Source: Lam & Suen (1997), "Application of Majority Voting to Pattern Recognition",
https://doi.org/10.1109/3468.618255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ftlib.files import read_json, write_json
from ftlib.fusion._calibration import Calibrate, calibrated, check_calibrate
from ftlib.fusion._mean import WeightedMean, as_support, read_combiner, uniform
from ftlib.fusion.base import Combiner, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target
    from ftlib.targets.layout import Layout

MEAN_VOTE = 1e-3
"""What part of one vote the members' mean score casts: enough to break ties, too little to turn a majority."""


class Voting(Fusion):
    """Majority vote."""

    voting: Literal["hard", "soft"] = "hard"
    """Count the members' answers (hard) or their scores (soft)."""

    calibrate: Calibrate | None = None
    """Divide each member's logits by a temperature that held-out rows choose (soft only); numbers have none."""

    @model_validator(mode="after")
    def _hard_votes_have_no_confidence(self) -> Self:
        if self.calibrate and self.voting == "hard":
            line = "calibrate changes how sure members are, which hard votes do not see; set voting: soft, or leave it"
            raise PydanticCustomError("calibrate", line)
        return self

    def check(self, target: Target) -> None:
        """Refuse to calibrate numbers."""
        super().check(target)
        check_calibrate(self.calibrate, target, self.name)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> Combiner:
        """Return the vote; without calibration only the number of members is read."""
        if self.voting == "soft":
            _, temperatures = calibrated(scores, references, target, self.calibrate)
            return WeightedMean(target.unit_kind, "scores", uniform(len(scores)), temperatures)
        return MajorityVote(target.unit_kind, float(getattr(target, "threshold", 0.5)), len(scores))

    @classmethod
    def load(cls, folder: Path) -> Combiner:
        """Read back the vote."""
        value = read_json(folder / "combiner.json") if (folder / "combiner.json").is_file() else {}
        soft = value.get("combiner") == "weighted_mean"
        return WeightedMean.load(folder) if soft else MajorityVote.load(folder)


@dataclass(frozen=True)
class MajorityVote(Combiner):
    """Shares of the vote.

    Attributes:
        kind: The target's unit_kind.
        threshold: The score from which a multi-label member gives a label.
        num_members: How many vote.
    """

    kind: str
    threshold: float
    num_members: int

    def __call__(self, scores: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """Return vote shares, shape (num_units, num_outputs); the median of values."""
        import numpy as np

        values = np.asarray(scores, dtype=np.float64)
        if self.kind == "value":
            return np.median(values, axis=0)
        if self.kind == "multi_label":
            return self._labels(values)
        if self.kind == "candidate":
            return self._candidates(values, layout)
        votes = np.eye(values.shape[-1])[values.argmax(-1)].sum(0)
        return (votes + MEAN_VOTE * values.mean(0)) / (self.num_members + MEAN_VOTE)

    def _candidates(self, values: np.ndarray, layout: Layout | None) -> np.ndarray:
        """Give each member's vote to the candidate of each row that it supports most: the product of its factors."""
        import numpy as np

        if layout is None:
            raise ValueError("candidates are voted on row by row; their layout is needed")
        support = values.prod(-1)
        votes = np.zeros(values.shape[1])
        for member in support:
            best = layout.best(member)
            best = best[best >= 0]
            votes[best[member[best] > 0]] += 1  # who supports none of them has no vote
        shares = (votes + MEAN_VOTE * support.mean(0)) / (self.num_members + MEAN_VOTE)
        return as_support(shares, values.shape[-1])

    def _labels(self, values: np.ndarray) -> np.ndarray:
        """Give the threshold the place of one half, so that a majority is what reaches it."""
        votes = (values >= self.threshold).sum(0)
        mean = _move(values.mean(0), self.threshold, 0.5)
        shares = (votes + MEAN_VOTE * mean) / (self.num_members + MEAN_VOTE)
        return _move(shares, 0.5, self.threshold)

    def weights(self) -> list[float] | None:
        """Return an equal share for every member; a median has none."""
        return None if self.kind == "value" else list(uniform(self.num_members))

    def save(self, folder: Path) -> None:
        """Write combiner.json."""
        fields = {"kind": self.kind, "threshold": self.threshold, "num_members": self.num_members}
        write_json(folder / "combiner.json", {"combiner": "majority_vote", **fields})

    @classmethod
    def load(cls, folder: Path) -> MajorityVote:
        """Read combiner.json."""
        value = read_combiner(folder, "majority_vote")
        return cls(value["kind"], value["threshold"], value["num_members"])


def _move(values: np.ndarray, pivot: float, place: float) -> np.ndarray:
    """Return values in [0, 1] mapped onto [0, 1] by two lines that take `pivot` to `place`."""
    import numpy as np

    if pivot == place:
        return values
    above = 1 - (1 - values) * (1 - place) / (1 - pivot)
    return np.where(values >= pivot, above, values * place / pivot)
