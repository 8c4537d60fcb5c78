"""What a report tells: the summaries that the pipeline's steps wrote, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftlib.report.words import SPACE

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Story:
    """All that the report is made of; no times, no paths, so that equal results give equal reports.

    Attributes:
        experiment: The experiment's name.
        members: A card a member: "name", "strategy" (a name, or its parameters with "name" among them),
            "start_from", and any other parameters that are to be shown.
        collected: collect.json.
        cleaning: cleaning.json.
        splits: splits.json.
        encoding: encoding.json: a summary a split.
        histories: Member -> the rows of its history.json.
        evaluation: evaluation.json.
        errors: The worst test errors of the best model, worst first.
        explanations: Of some of them, which words the answer rests on: explanations.json.
        transfer: Where there are several tasks, every stage on each of them: transfer.json.
        base_model: Where the base model was chosen, the choice and its table: choice.json.
        settings: Other parameters to be shown, such as the seed.
    """

    experiment: str
    members: list[dict[str, Any]]
    evaluation: dict[str, Any]
    collected: dict[str, Any] = field(default_factory=dict)
    cleaning: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, Any] = field(default_factory=dict)
    encoding: dict[str, Any] = field(default_factory=dict)
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    errors: pa.Table | None = None
    explanations: list[dict[str, Any]] = field(default_factory=list)
    transfer: dict[str, Any] = field(default_factory=dict)
    base_model: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Return the metric that the choice goes by."""
        return self.evaluation["metric"]

    @property
    def target(self) -> str:
        """Return what is predicted: "single_label", "multi_label" or "value"."""
        return self.evaluation["target"]

    @property
    def labels(self) -> list[str]:
        """Return the label names; none where a value is predicted."""
        return [str(label) for label in self.evaluation.get("labels") or ()]

    @property
    def coverage(self) -> str:
        """Return how much the intervals cover, such as "95 %"."""
        return f"{self.evaluation.get('confidence', 0.95) * 100:g}{SPACE}%"
