"""How the best of several models is chosen, on validation alone.

Models are ranked by the metric on validation, where a fusion's scores are out of fold. A small validation split cannot
tell good models apart by it: accuracy moves in steps of one row, a correlation by chance. So all that lie within one
standard error of the leader (of the paired difference, by bootstrap) count as tied, as in the one-standard-error rule
of Breiman et al. (1984), "Classification and Regression Trees", section 3.4.3, and among them the lowest loss on
validation wins (the target's `proper_loss`: log-loss, which sees every row's probability; the error of numbers). Of
models that are exactly equal, as a fusion that came down to one member is to it, the cheaper one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.evaluation.assessment import Contest


def choose(contest: Contest, costs: Mapping[str, float]) -> str:
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
        behind = values[leader] - values[name]
        return behind == 0 or behind <= contest.standard_error(leader, name)

    def rank(name: str) -> tuple[float, float]:
        loss = value_of(target.proper_loss, contest.scores[name], contest.references, target)
        return round(loss, 9), costs[name]

    return min(filter(is_tied, costs), key=rank)
