"""The choice: who enters the short runs, who wins, and the table that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftlib.errors import UnsupportedError
from ftlib.selection.halving import best_first
from ftlib.selection.scoring import order

Json = Mapping[str, Any]


def entrants(candidates: Sequence[str], scores: Sequence[Json], *, higher: bool, keep: int | None) -> list[int]:
    """Return the places of the candidates that go on after scoring, the best first.

    Args:
        candidates: What they are called.
        scores: `Score.summary` of each one.
        higher: Whether a larger score is a better one.
        keep: How many go on at most; None: all. Where no candidate has a score, all go on.

    Raises:
        UnsupportedError: If the problem can be learned with none of them.
    """
    fit = [place for place, score in enumerate(scores) if not score["unfit"]]
    if not fit:
        reasons = "; ".join(f"{name}: {score['unfit']}" for name, score in zip(candidates, scores, strict=True))
        raise UnsupportedError(f"base_model: none of the candidates can do the problem: {reasons}. Name others.")
    ranked = [fit[i] for i in order([scores[place]["value"] for place in fit], higher=higher)]
    is_scored = any(scores[place]["value"] is not None for place in fit)
    return ranked[:keep] if is_scored else ranked


def choose(
    candidates: Sequence[str],
    scores: Sequence[Json],
    entered: Sequence[int],
    rounds: Sequence[Mapping[int, Json]],
    *,
    measure: str | None,
    higher: bool,
    metric: str,
    metric_higher: bool,
) -> dict[str, Any]:
    """Return the choice and its table, the chosen candidate first, those that went further before others.

    Args:
        candidates: What they are called.
        scores: `Score.summary` of each one.
        entered: Places of those that went on after scoring, the best first.
        rounds: Place -> `Trial.summary` of those that ran, a round each.
        measure: What they were scored by; None where there is no such.
        higher: Whether a larger score is a better one.
        metric: What short runs were compared by.
        metric_higher: Whether a larger value of that is a better one.

    Raises:
        UnsupportedError: If no short run could be done.
    """
    ran = [found for found in rounds if found]
    _check_ran(candidates, ran)
    ranked = _ranked(entered, ran, metric_higher)
    scored = order([s["value"] if not s["unfit"] else None for s in scores], higher=higher)
    others = [place for place in scored if place not in ranked]
    others.sort(key=lambda place: bool(scores[place]["unfit"]))
    return {
        "chosen": candidates[ranked[0]],
        "place": ranked[0],
        "measure": measure,
        "higher_is_better": higher,
        "metric": metric if ran else None,
        "metric_higher_is_better": metric_higher,
        "rounds": [{"rows": max(t["rows"] for t in found.values()), "candidates": len(found)} for found in ran],
        "candidates": [
            {**_line(place, candidates, scores, ran), **_fate(place, ranked[0], scores, ran)}
            for place in (*ranked, *others)
        ],
    }


def _check_ran(candidates: Sequence[str], rounds: Sequence[Mapping[int, Json]]) -> None:
    notes = {candidates[place]: trial["note"] for place, trial in rounds[0].items()} if rounds else {}
    if notes and all(notes.values()):
        listed = "; ".join(f"{name}: {note}" for name, note in notes.items())
        raise UnsupportedError(f"base_model.halving: no candidate could run. {listed}")


def _ranked(entered: Sequence[int], rounds: Sequence[Mapping[int, Json]], higher: bool) -> list[int]:
    """Return the places of those that went on after scoring: who ran in a later round first, the better first."""
    ranked = list(entered)
    for found in rounds:
        first = best_first({place: found[place] for place in ranked if place in found}, higher=higher)
        ranked = [*first, *(place for place in ranked if place not in found)]
    return ranked


def _line(
    place: int, candidates: Sequence[str], scores: Sequence[Json], rounds: Sequence[Mapping[int, Json]]
) -> dict[str, Any]:
    score = scores[place]
    return {
        "name": candidates[place],
        "place": place,
        "family": score["family"],
        "num_parameters": score["num_parameters"],
        "score": score["value"],
        "rounds": [found[place]["value"] if place in found else None for found in rounds],
    }


def _fate(place: int, winner: int, scores: Sequence[Json], rounds: Sequence[Mapping[int, Json]]) -> dict[str, str]:
    """Return what became of a candidate, "chosen", "dropped" or "left_out", and in words why."""
    score = scores[place]
    if score["unfit"]:
        return {"state": "left_out", "reason": score["unfit"]}
    came = [number for number, found in enumerate(rounds, 1) if place in found]
    if place == winner:
        return {"state": "chosen", "reason": f"best in round {came[-1]}" if came else _how_it_won(scores, score)}
    if not came:
        return {"state": "dropped", "reason": score["note"] or "dropped by its score"}
    last = rounds[came[-1] - 1][place]
    why = f": {last['note']}" if last["note"] else ", its run diverged" if last["value"] is None else ""
    return {"state": "dropped", "reason": f"dropped in round {came[-1]}{why}"}


def _how_it_won(scores: Sequence[Json], score: Json) -> str:
    alone = sum(not other["unfit"] for other in scores) == 1
    return "the only one left" if alone else "best score" if score["value"] is not None else "the first one listed"


def figures(choice: Json) -> dict[str, float]:
    """Return the table's numbers under flat names, for tracking: score_1, round_2_1... by the candidates' order."""
    found: dict[str, float | None] = {}
    for line in choice["candidates"]:
        number = line["place"] + 1
        found[f"score_{number}"] = line["score"]
        found |= {f"round_{i}_{number}": value for i, value in enumerate(line["rounds"], 1)}
    return {name: float(value) for name, value in found.items() if value is not None}
