"""Token averaging: the members write one text together, by the mean of what each says of the next token.

Known as ensemble decoding: at every step of generation the members' next-token probabilities are averaged, and beams,
draws and penalties (`problem.generation`) see that mean alone. Other fusions choose among texts that single members
have finished; this one can write a text that no member would have. In the first neural translation into French five
models together reached 34.81 BLEU where the best single one had 30.59 (Sutskever et al. 2014, table 1).

It helps where members were trained apart from each other (other seeds, other starts) on the same task. It asks for one
vocabulary, that is one `base_model`, or base models with the same tokenizer: members of other vocabularies are
refused before any training; for them there is `minimum_bayes_risk`. And it costs: every member runs once more over
validation and test, a token takes as long as all members together, and so it does when serving.

`mean: arithmetic` averages probabilities; a token that one member finds likely stays likely. `mean: geometric` averages
log-probabilities and normalises them anew: a token that one member finds impossible is out. Nothing is fitted.

    fusions: [token_averaging, {name: two-to-one, method: {name: token_averaging, weights: [2, 1]}}]

Sources: Sutskever, Vinyals & Le (2014), "Sequence to Sequence Learning with Neural Networks",
https://arxiv.org/abs/1409.3215, table 1; Luong & Manning (2016), "Achieving Open Vocabulary Neural Machine
Translation with Hybrid Word-Character Models", https://aclanthology.org/P16-1100; as fairseq's
`--path one.pt:two.pt`: Ott et al. (2019), https://aclanthology.org/N19-4009.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ftlib.errors import ParamsError, UnsupportedError
from ftlib.fusion._mean import WeightedMean, uniform
from ftlib.fusion.base import Fusion, Joint, Mean

if TYPE_CHECKING:
    import numpy as np

    from ftlib.targets.base import Target


class TokenAveraging(Fusion):
    """The members write one text together."""

    mean: Mean = "arithmetic"
    """What is averaged: probabilities (arithmetic) or log-probabilities (geometric)."""

    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Each member's weight, in the order of the stages that are members; only ratios count, and one at 0 is not run.
    All the same unless given."""

    def check(self, target: Target) -> None:
        """Refuse targets whose answers are not written (UnsupportedError)."""
        if target.kind != "texts":
            raise UnsupportedError(
                f"token_averaging is for generated texts, written token by token; it cannot combine {target.kind}. "
                "Use averaging."
            )

    def joint(self, num_members: int) -> Joint:
        """Return the members' shares, and the mean.

        Raises:
            ParamsError: If there are not as many weights as members, or all are 0.
        """
        if self.weights is None:
            return Joint(self.name, uniform(num_members), self.mean)
        if len(self.weights) != num_members:
            raise ParamsError(
                f"token_averaging: {len(self.weights)} weights for {num_members} members; give one for each stage "
                "that is a member, in their order, or leave weights out."
            )
        total = sum(self.weights)
        if not total:
            raise ParamsError("token_averaging: all weights are 0; give at least one member a weight.")
        return Joint(self.name, tuple(weight / total for weight in self.weights), self.mean)

    def fit(self, scores: np.ndarray, references: np.ndarray, target: Target, *, seed: int) -> WeightedMean:
        """Return the mean: what the members say together stands in every member's place, so any mean is that."""
        return WeightedMean(target.unit_kind, "scores", self.joint(len(scores)).shares)

    @classmethod
    def load(cls, folder: Path) -> WeightedMean:
        """Read back the mean."""
        return WeightedMean.load(folder)
