"""What evaluation reads, put in order from the numbered inputs of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.evaluation.evaluate import SPLITS, Artifacts

if TYPE_CHECKING:
    from ftlib.fusion.base import Fusion


def gather(
    splits: Path,
    inputs: Mapping[str, Path],
    *,
    members: Sequence[str],
    fusions: Mapping[str, Fusion],
    read: Sequence[str] = SPLITS,
) -> Artifacts:
    """Return what evaluation reads.

    Args:
        splits: The split artifact.
        inputs: For member i, checkpoint_i and <split>_i; for fusion j, fusion_j, where its members answer as one
            <split>_fusion_j, and where they were merged merged_j.
        members: The members' names, in order.
        fusions: Name -> the plugin, in order.
        read: The splits on which predictions are read.
    """

    def of_splits(number: str) -> dict[str, Path]:
        return {split: inputs[f"{split}_{number}"] for split in read}

    together = {n: f"fusion_{j}" for j, n in enumerate(fusions) if f"{read[0]}_fusion_{j}" in inputs}
    return Artifacts(
        splits=splits,
        members={name: of_splits(str(i)) for i, name in enumerate(members)},
        checkpoints={name: inputs[f"checkpoint_{i}"] for i, name in enumerate(members)},
        fusions={name: (fusion, inputs[f"fusion_{j}"]) for j, (name, fusion) in enumerate(fusions.items())},
        together={name: of_splits(number) for name, number in together.items()},
        merged={name: inputs[f"merged_{j}"] for j, name in enumerate(fusions) if f"merged_{j}" in inputs},
    )
