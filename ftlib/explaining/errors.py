"""Explanations of the worst errors, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.explaining.explain import Explanation
    from ftlib.fusion.base import Fusion
    from ftlib.problems.base import Problem
    from ftlib.serving.answering import Served


def explain_errors(
    errors: pa.Table,
    *,
    best: str,
    problem: Problem,
    members: Mapping[str, Path],
    fusions: Mapping[str, tuple[Fusion, Path]],
    merged: Mapping[str, Path] | None = None,
    number: int,
) -> dict[str, Any]:
    """Return why the best model erred where it erred worst, as JSON values.

    Args:
        errors: The worst errors, worst first: row_id and the input as the models read it.
        best: The best model's name.
        problem: With its labels filled in.
        members: Member -> its checkpoint, in the order of fusing.
        fusions: Fusion -> the plugin, and the folder with its combiner.
        merged: Fusion -> the checkpoint that it has made of its members, which is its only member, where it has.
        number: How many of the errors.

    Returns:
        reason: why there are none, or None; explanations: row_id, explained, scale, content, score, baseline,
        texts, and words as [column, start, end, attribution].
    """
    from ftlib.explaining.explain import explain
    from ftlib.serving.packing import read_by

    chosen = errors.slice(0, number)
    if not len(chosen):
        return {"reason": None, "explanations": []}
    try:
        served = _served(best, problem, read_by(best, members, merged or {}), fusions)
        found = explain(served, chosen.select(list(problem.input_columns)))
    except UnsupportedError as error:
        return {"reason": str(error), "explanations": []}
    row_ids = chosen["row_id"].to_pylist()
    return {"reason": None, "explanations": [_plain(one, row_ids[one.row]) for one in found]}


def _served(
    best: str, problem: Problem, members: Mapping[str, Path], fusions: Mapping[str, tuple[Fusion, Path]]
) -> Served:
    """Return the best model, to be given rows that are cleaned already."""
    from ftlib.data.clean import Cleaning
    from ftlib.serving.answering import Served, ensemble_of, open_member

    combiner, used = None, [best]
    if best in fusions:
        fusion, folder = fusions[best]
        combiner = type(fusion).load(folder)
        weights = combiner.weights()
        if weights is None:
            raise UnsupportedError(f"fusion {best!r} gives its members no weights: attributions cannot be added up.")
        used = [name for name, weight in zip(members, weights, strict=True) if weight]
    position = {name: i for i, name in enumerate(members)}
    opened = tuple(open_member(members[name], name, position[name] if combiner else 0, problem) for name in used)
    untouched = Cleaning(fix_unicode=False, strip_html=False, collapse_whitespace=False)
    ensemble = ensemble_of(opened, fusions[best][0], len(members)) if combiner else None
    return Served(best, problem, untouched, opened, combiner, len(members) if combiner else 1, ensemble)


def _plain(one: Explanation, row_id: int) -> dict[str, Any]:
    return {
        "row_id": row_id,
        "explained": one.explained,
        "scale": one.scale,
        "content": one.content,
        "score": round(one.score, 6),
        "baseline": round(one.baseline, 6),
        "texts": one.texts,
        "words": [[w.column, w.start, w.end, round(w.attribution, 6)] for w in one.words],
    }
