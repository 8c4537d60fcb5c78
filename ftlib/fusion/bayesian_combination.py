"""Bayesian model combination: not one weighting of the members, but all of them, each as far as it is believed.

Every way of weighing the members is a combination. Before the held-out rows are seen all are as likely as each other
(a Dirichlet prior); each row makes those likelier that give its gold answer more probability; the answer is the mean
of all combinations' answers under what is then believed. As a combination's answer is a weighted mean, so is that
one: by the weights' posterior mean.

Helps where held-out rows are few: `weighted` takes the one weighting that fits best, though a hundred others fit
nearly as well, while here few rows leave the weights near equal and many rows settle them. No member ever gets
exactly 0, so all must run when serving; to drop some, use `weighted` or `greedy`. It is not Bayesian model averaging,
which asks which single member is the true one and, with enough rows, puts all weight on it.

Numbers are taken to have normal errors. Of candidates, a row's likelihood is the mean quality under their support;
where support has several factors (a span's start and end) each is averaged by the same weights. A row of several units
(words) counts once, since its words go together.

Sources: Monteith, Carroll, Seppi & Martinez (2011), "Turning Bayesian Model Averaging Into Bayesian Model
Combination", https://doi.org/10.1109/IJCNN.2011.6033566 (section III, combinations drawn from a Dirichlet; here each is
believed by its likelihood, not by its error rate alone); Minka (2002), "Bayesian model averaging is not model
combination", https://tminka.github.io/papers/minka-bma-isnt-mc.pdf; Cappé, Guillin, Marin & Robert (2004), "Population
Monte Carlo", https://doi.org/10.1198/106186004X12803 (how the posterior is sampled).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.fusion._calibration import Calibrate, calibrated, check_calibrate
from ftlib.fusion._likelihood import candidate_sums, gold_probabilities, quotient
from ftlib.fusion._logarithms import log
from ftlib.fusion._mean import WeightedMean, pool
from ftlib.fusion.base import COMPLETE, LINEAR, Fusion

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target

NUM_ROUNDS = 30
"""At most so many rounds of sampling."""

KEPT_ROUNDS = 3
"""How many rounds that believe the rows wholly are enough."""

ENOUGH = 0.5
"""Share of the samples that must count for a round to be kept: else the rows are believed more slowly."""

LogLikelihood = Callable[["np.ndarray"], "np.ndarray"]
"""Weights, shape (num_samples, num_members) -> log-likelihoods, shape (num_samples,)."""


class BayesianCombination(Fusion):
    """The mean over all weightings of the members, each as far as it is believed."""

    concentration: float = Field(1.0, gt=0)
    """Of the prior: 1 takes every weighting for as likely; more leans to equal weights, less to few members."""

    num_samples: int = Field(500, ge=50)
    """Weightings drawn in each round; more makes the mean more exact."""

    calibrate: Calibrate | None = None
    """Divide each member's logits by a temperature that held-out rows choose, before all; numbers have none."""

    @property
    def unit_kinds(self) -> frozenset[str]:
        """All kinds, as far as it takes means of scores as they are."""
        return COMPLETE if self.calibrate else LINEAR

    def check(self, target: Target) -> None:
        """Refuse to calibrate numbers."""
        super().check(target)
        check_calibrate(self.calibrate, target, self.name)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the weighted mean, by the posterior mean of the weights."""
        import numpy as np

        scores, temperatures = calibrated(scores, references, target, self.calibrate)
        order = _own_order(scores)
        evidence = _evidence(scores[order], references, target)
        mean = posterior_mean(evidence, len(scores), self.concentration, self.num_samples, seed)
        weights = np.empty(len(scores))
        weights[order] = mean.round(6)  # the last digits are the samples' noise
        return WeightedMean(target.unit_kind, "scores", tuple((weights / weights.sum()).tolist()), temperatures)

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the weighted mean."""
        return WeightedMean.load(folder)


def _own_order(scores: np.ndarray) -> list[int]:
    """Return the members in an order of their own, so that the samples do not depend on how they are listed."""
    import hashlib

    import numpy as np

    digests = [hashlib.sha256(np.ascontiguousarray(member).tobytes()).hexdigest() for member in scores]
    return sorted(range(len(scores)), key=digests.__getitem__)


def _evidence(scores: np.ndarray, references: np.ndarray, target: Target) -> LogLikelihood:
    """Return the log-likelihood of the gold answers as a function of the weights."""
    import numpy as np

    if target.unit_kind in ("single_label", "multi_label"):
        gold = np.stack([gold_probabilities(member, references, target) for member in scores])
        weight = _counts(target, scores.shape[1], gold[0].size)
        gold = gold.reshape(len(scores), -1)
        return lambda weights: log(weights @ gold) @ weight
    if target.unit_kind == "candidate":
        return _candidates(scores, references, target)
    if target.unit_kind == "likelihood":
        return lambda weights: np.array([-_losses(scores, w, references, target).sum() for w in weights])
    errors = scores[..., 0] - references
    products = errors @ errors.T / len(references)
    return lambda weights: -len(references) / 2 * log(((weights @ products) * weights).sum(1))


def _losses(scores: np.ndarray, weights: np.ndarray, references: np.ndarray, target: Target) -> np.ndarray:
    return target.row_losses(pool(scores, weights, kind=target.unit_kind), references)


def _candidates(scores: np.ndarray, references: np.ndarray, target: Target) -> LogLikelihood:
    """Return the same of candidates: a product of weighted means is a sum of products, summed over each row once."""
    import numpy as np

    choices = list(product(range(len(scores)), repeat=scores.shape[2]))  # a member for each factor
    supports = [np.prod([scores[m, :, f] for f, m in enumerate(chosen)], axis=0) for chosen in choices]
    found = [candidate_sums(support, references, target) for support in supports]
    good, total = (np.stack(sums) for sums in zip(*found, strict=True))

    def log_likelihood(weights: np.ndarray) -> np.ndarray:
        shares = np.stack([weights[:, chosen].prod(1) for chosen in choices], axis=1)
        return log(quotient(shares @ good, shares @ total)).sum(1)

    return log_likelihood


def _counts(target: Target, num_units: int, size: int) -> np.ndarray:
    """Return how much each gold probability counts, shape (size,): a row's units together once."""
    import numpy as np

    if target.layout is None:
        return np.ones(size)
    counts = np.repeat(target.layout.counts, target.layout.counts)
    return np.repeat(1 / counts, size // max(1, num_units))


def posterior_mean(
    evidence: LogLikelihood, num_members: int, concentration: float, num_samples: int, seed: int
) -> np.ndarray:
    """Return the posterior mean of the weights, shape (num_members,).

    Population Monte Carlo: samples from a Dirichlet, each counting by how far the posterior is above the Dirichlet
    there, choose the next Dirichlet. In the first rounds the rows are believed in part only, as far as half of the
    samples count; the rounds in which they are believed wholly make up the mean.

    Args:
        evidence: The log-likelihood of weights.
        num_members: How many weights.
        concentration: Of the prior, a symmetric Dirichlet.
        num_samples: Drawn in each round.
        seed: For the samples.
    """
    import numpy as np
    from scipy.special import softmax

    if num_members == 1:
        return np.ones(1)
    random = np.random.default_rng(seed)
    prior = proposal = np.full(num_members, concentration)
    means: list[np.ndarray] = []
    for _ in range(NUM_ROUNDS):
        samples = np.maximum(random.dirichlet(proposal, num_samples), 1e-12)
        known, told = _log_density(samples, prior) - _log_density(samples, proposal), evidence(samples)
        belief = _belief(known, told)
        counts = softmax(known + belief * told)
        if belief == 1.0:
            means.append(counts @ samples)
        if len(means) == KEPT_ROUNDS:
            break
        proposal = _matching(samples, counts)
    return np.mean(means, axis=0) if means else proposal / proposal.sum()


def _belief(known: np.ndarray, told: np.ndarray) -> float:
    """Return the power of the likelihood, at most 1, at which enough samples count."""
    low, high = 0.0, 1.0
    if _effective(known + told) >= ENOUGH:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _effective(known + middle * told) >= ENOUGH else (low, middle)
    return low


def _effective(log_counts: np.ndarray) -> float:
    """Return the share of samples that count: 1 where all count the same."""
    from scipy.special import softmax

    shares = softmax(log_counts)
    return float(1 / (shares**2).sum() / len(shares))


def _log_density(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return a Dirichlet's log-density, but for a constant."""
    import numpy as np

    return (np.log(samples) * (alpha - 1)).sum(1)


def _matching(samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the Dirichlet of the samples' mean, a little wider than they are, so that it covers the tails."""
    import numpy as np

    mean = counts @ samples
    variance = counts @ (samples - mean) ** 2
    precision = (mean * (1 - mean)).sum() / max(variance.sum(), 1e-12) - 1
    return np.maximum(0.7 * precision * mean, 0.1)
