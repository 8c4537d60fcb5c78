"""How the best of several models is chosen, on validation alone.

Models are ranked by the metric on validation, where a fusion's scores are out of fold. A small validation split cannot
tell good models apart by it: accuracy moves in steps of one row, a correlation by chance. So all that it does not show
to be worse than the leader count as tied: those whose difference from it (paired, by bootstrap) has zero in its
interval. One standard error would not do: a model that answers nearly as the leader does would be left out for three
rows of seven hundred, and one that answers otherwise be kept. Among the tied the lowest loss on validation wins (the
target's `proper_loss`: log-loss, which sees every row's probability; the error of numbers). Of models that are exactly
equal, as a fusion that came down to one member is to it, the cheaper one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.evaluation.assessment import Contest


@dataclass(frozen=True)
class Choice:
    """The best model, and how it came to be that.

    Attributes:
        name: The best model.
        leader: The one with the best value of the metric: another one where the loss decided.
        num_tied: How many validation does not show to be worse than the leader, the leader counted.
        loss: What decided among those.
    """

    name: str
    leader: str
    num_tied: int
    loss: str

    @property
    def reason(self) -> str | None:
        """Why the leader was not chosen, in a sentence; None where it was."""
        if self.name == self.leader:
            return None
        return (
            f"{self.leader} was ahead on validation, by less than its error: of {self.num_tied} models so close, "
            f"{self.name} has the lowest {self.loss.replace('_', ' ')}."
        )


def choose(contest: Contest, costs: Mapping[str, float]) -> Choice:
    """Return the best model by its scores: see the module's docstring. Of equals, the first.

    Args:
        contest: All models on the validation rows.
        costs: The models to choose from, and what each costs when it answers.
    """
    from ftlib.evaluation.measures import value_of

    target = contest.target
    sign = 1 if target.higher_is_better(contest.metric) else -1
    values = {name: -inf if isnan(v := contest.values[name]) else sign * v for name in costs}
    leader = max(costs, key=values.__getitem__)

    def is_tied(name: str) -> bool:
        lead = contest.lead(leader, name)
        return values[leader] == values[name] or (lead is not None and lead[0] <= 0 <= lead[1])

    def rank(name: str) -> tuple[float, float]:
        loss = value_of(target.proper_loss, contest.scores[name], contest.references, target)
        return round(loss, 9), costs[name]

    tied = list(filter(is_tied, costs))
    return Choice(min(tied, key=rank), leader, len(tied), target.proper_loss)
