"""What of its members a fusion runs, with which weights, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import ArtifactError
from ftlib.files import read_json

if TYPE_CHECKING:
    from ftlib.fusion.base import Combiner


@dataclass(frozen=True)
class Use:
    """How a fusion uses its members.

    Attributes:
        weights: Member -> weight; None where the method has none.
        members: Those that have a part in it.
        cost: Parameters touched per token when it answers.
        note: What was not as hoped for; "" for nothing.
    """

    weights: dict[str, float] | None
    members: tuple[str, ...]
    cost: float
    note: str

    def facts(self) -> dict[str, Any]:
        """Return what the summary says of it; the cost is told beside those of others."""
        told = {"weights": self.weights, "members_used": list(self.members)}
        return {**told, **({"note": self.note} if self.note else {})}


def settings_of(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, its sizes among it.

    Raises:
        ArtifactError: If it does not say them.
    """
    path = checkpoint / "ftlib.json"
    facts = read_json(path) if path.is_file() else {}
    if missing := [key for key in ("num_parameters", "inference_parameters") if key not in facts]:
        raise ArtifactError(f"{path} does not say {' and '.join(missing)}; expected a checkpoint that a stage saved.")
    return facts


def use_of(combiner: Combiner, costs: Mapping[str, float]) -> Use:
    """Return how a combiner uses its members: each that it reads is run.

    Args:
        combiner: Fitted.
        costs: Member -> its cost, in the order of fitting.
    """
    weights = combiner.weights()
    named = None if weights is None else dict(zip(costs, weights, strict=True))
    used = tuple(name for name in costs if named is None or named[name] != 0)
    return Use(named, used, sum(costs[name] for name in used), combiner.note)


def use_of_merged(checkpoint: Path, members: Mapping[str, float]) -> Use:
    """Return the same of one model that was made of members' weights; it costs what it costs itself.

    Args:
        checkpoint: The merged one.
        members: All of the experiment.
    """
    from ftlib.models.merging import MERGED

    facts = settings_of(checkpoint)
    made = facts[MERGED]
    named = made["weights"] and {name: made["weights"].get(name, 0.0) for name in members}
    used = tuple(name for name in members if name in made["members"] and (named is None or named[name] != 0))
    return Use(named, used, float(facts["inference_parameters"]), made["note"])
