"""Packing: everything that answering a raw row takes, in one folder that can be copied anywhere.

    model.json          the problem with its labels, the cleaning, the members in order, the fusion
    members/<name>/     a checkpoint each; only those that the fusion reads, or the one that it has made of them
    combiner/           the fitted fusion; missing where the best model is a single member

`ftlib.serving` opens it. Equal models give equal bytes: no time, no path.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib import __version__
from ftlib.errors import CheckpointError, unknown
from ftlib.files import write_json

if TYPE_CHECKING:
    from ftlib.data.clean import Cleaning
    from ftlib.fusion.base import Combiner, Fusion
    from ftlib.problems.base import Problem

FORMAT = 1
"""Of model.json; a later ftlib says so where it cannot read it."""

LEFT_OUT = ("manifest.json", "history.json", "validation.parquet")
"""Files of the steps' artifacts that answering does not need."""


def pack(
    folder: Path,
    *,
    best: str,
    problem: Problem,
    cleaning: Cleaning,
    members: Mapping[str, Path],
    fusions: Mapping[str, tuple[Fusion, Path]],
    merged: Mapping[str, Path] | None = None,
) -> None:
    """Write the packed model into `folder`.

    Args:
        folder: Empty.
        best: What validation chose: the name of a member or of a fusion.
        problem: What was learned, its labels filled in.
        cleaning: How the training rows were repaired.
        members: Member -> checkpoint, in the order that the fusions were fitted in.
        fusions: Fusion -> the plugin, and the folder of its fitted combiner.
        merged: Fusion -> the checkpoint that it has made of its members, which is its only member, where it has.

    Raises:
        CheckpointError: If nothing is called `best`.
    """
    members = read_by(best, members, merged or {})
    if best in members and best not in fusions:
        positions, fusion, kind = [list(members).index(best)], None, "member"
    elif best in fusions:
        fusion, fitted = fusions[best]
        positions, kind = _read_by(type(fusion).load(fitted), len(members)), "fusion"
        _copy(fitted, folder / "combiner")
    else:
        raise CheckpointError(unknown("member or fusion", best, [*members, *fusions]))
    names = list(members)
    for i in positions:
        _copy(members[names[i]], folder / "members" / names[i])
    write_json(folder / "model.json", {
        "format": FORMAT,
        "ftlib": __version__,
        "name": best,
        "kind": kind,
        "problem": problem.model_dump(mode="json"),
        "labels": list(problem.target.labels),
        "cleaning": cleaning.model_dump(mode="json"),
        "members": [{"name": names[i], "position": i} for i in positions],
        "num_members": len(names),
        "fusion": fusion.model_dump(mode="json") if fusion else None,
    })  # fmt: skip


def read_by(best: str, members: Mapping[str, Path], merged: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return the checkpoints that a model is made of: the members, or of a fusion that merges them the merged one.

    Args:
        best: The model: a member or a fusion.
        members: Member -> checkpoint.
        merged: Fusion -> checkpoint, of those that merge.
    """
    return {best: merged[best]} if best in merged else members


def _read_by(combiner: Combiner, num_members: int) -> list[int]:
    """Return the positions of the members that a combiner reads: those whose weight is not zero."""
    weights: list[Any] | None = combiner.weights()
    return [i for i in range(num_members) if weights is None or weights[i] != 0]


def _copy(source: Path, target: Path) -> None:
    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name in LEFT_OUT] if Path(folder) == source else []

    shutil.copytree(source, target, ignore=ignored, copy_function=shutil.copyfile)
