"""Explanations: the words of a text with what each adds to the score of the answer, for members and for fusions.

A fusion is explained where it is a weighted sum of its members: its attributions are the same sum of theirs, since
attributions are linear (Sundararajan, Taly & Yan 2017, section 3, "Linearity"). That is exact for means of scores; for
other fusions that have weights it explains the members' weighted mean, which `is_exact` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ftlib.errors import ParamsError, UnsupportedError, unknown
from ftlib.explaining.attribution import STEPS, Attributed, Method, attribute, check
from ftlib.explaining.reading import Reading, encode
from ftlib.explaining.words import spread, words_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.fusion.base import Combiner
    from ftlib.problems.base import Problem
    from ftlib.serving.answering import Member, Rows, Served

MOST_LABELS = 3
"""Of an answer of several labels, the surest are explained."""


@dataclass(frozen=True)
class Word:
    """A word and what it adds to the score.

    Attributes:
        column: Which of the row's texts it is in.
        start: Its first character there.
        end: The one after its last.
        text: The word.
        attribution: What it adds to the score; below 0 where it speaks against the answer.
    """

    column: str
    start: int
    end: int
    text: str
    attribution: float


@dataclass(frozen=True)
class Explanation:
    """Why a row has the score that it has for one answer.

    Attributes:
        row: The row's position among those given.
        prediction: What the model answers.
        explained: The label whose score is explained; "value" of a number.
        score: That score, as the members' weighted mean has it: a probability, or the number.
        baseline: The same score of a text without words.
        words: In the order of the text.
        rest: What special tokens, and text that the model reads beside words, add.
        texts: Column -> text, as the model reads it.
        is_exact: Whether `score` is the model's own: a fusion may be more than a weighted mean.
        method: How attributions were computed.
    """

    row: int
    prediction: Any
    explained: str
    score: float
    baseline: float
    words: tuple[Word, ...]
    rest: float
    texts: dict[str, str]
    is_exact: bool
    method: Method

    @property
    def gap(self) -> float:
        """What attributions and baseline lack of the score: integrated gradients lack next to nothing."""
        return self.score - self.baseline - self.rest - sum(word.attribution for word in self.words)


def explain(
    served: Served,
    rows: Rows,
    *,
    method: Method = "integrated_gradients",
    steps: int = STEPS,
    label: str | None = None,
) -> list[Explanation]:
    """Return explanations of the rows that can be answered; of an answer of several labels, one each.

    Args:
        served: The model.
        rows: Its input columns, in any form that it answers.
        method: integrated_gradients, or input_x_gradient, which is quicker and less faithful.
        steps: Points of the integration.
        label: The label to explain, whatever the answer is; the answer's own unless given.

    Raises:
        UnsupportedError: If the problem, the model or the fusion cannot be explained.
        ParamsError: If there is no such label.
    """
    import numpy as np

    check(served.problem)
    shares = shares_of(served)
    wanted = _number_of(label, served.problem)
    scored = served.score(rows, name="explain")
    answered = np.flatnonzero(scored.is_answered)
    predictions = served.problem.target.decode(scored.scores)
    chosen = [(i, output) for i in range(len(answered)) for output in _outputs(scored.scores[i], wanted, served)]
    places, outputs = (np.array([pair[side] for pair in chosen], dtype=np.int64) for side in (0, 1))
    inputs = scored.rows.filter(scored.is_answered).take(places)
    parts = [_member(m, inputs, outputs, served.problem, method, steps) for m in served.members]
    found = []
    for i, (place, output) in enumerate(chosen):
        words, texts, rest = _added([part[i] for part in parts], shares)
        score, baseline = (
            float(sum(w * getattr(part[i].attributed, name) for w, part in zip(shares, parts, strict=True)))
            for name in ("score", "baseline")
        )
        found.append(
            Explanation(
                row=int(answered[place]),
                prediction=predictions[place],
                explained=_name_of(output, served.problem),
                score=score,
                baseline=baseline,
                words=words,
                rest=rest,
                texts=texts,
                is_exact=bool(np.isclose(score, scored.scores[place, output], atol=1e-4)),
                method=method,
            )
        )
    return found


def shares_of(served: Served) -> list[float]:
    """Return what each of a served model's members counts for.

    Raises:
        UnsupportedError: If the fusion has no weights.
    """
    if served.combiner is None:
        return [1.0]
    weights = _weights(served.combiner, served.name, [member.name for member in served.members])
    return [weights[member.position] for member in served.members]


def _weights(combiner: Combiner, name: str, members: Sequence[str]) -> list[float]:
    weights = combiner.weights()
    if weights is None:
        raise UnsupportedError(
            f"fusion {name!r} gives its members no weights, so their attributions cannot be added up. Explain one "
            f"of them: {', '.join(members)} (--member NAME)."
        )
    return weights


def _number_of(label: str | None, problem: Problem) -> int | None:
    labels = problem.target.labels
    if label is None:
        return None
    if label not in labels:
        raise ParamsError(unknown("label", label, labels or ("value",)))
    return labels.index(label)


def _name_of(output: int, problem: Problem) -> str:
    return problem.target.labels[output] if problem.target.labels else "value"


def _outputs(scores: np.ndarray, wanted: int | None, served: Served) -> list[int]:
    """Return which scores of a row are explained: those of the answer, or of the likeliest label where it has none."""
    import numpy as np

    if wanted is not None:
        return [wanted]
    target = served.problem.target
    if target.kind != "multi_label":
        return [int(scores.argmax())]
    given = np.flatnonzero(target.predicted(scores[None])[0] > 0)
    ranked = sorted(given.tolist(), key=lambda i: -scores[i])[:MOST_LABELS]
    return ranked or [int(scores.argmax())]


@dataclass(frozen=True, eq=False)
class _Part:
    """What one member says of one row."""

    reading: Reading
    attributed: Attributed


def _member(
    member: Member, rows: pa.Table, outputs: np.ndarray, problem: Problem, method: Method, steps: int
) -> list[_Part]:
    encoded, read = encode(rows, problem, member.tokenizer_object)
    if "row" in encoded.column_names:
        raise UnsupportedError(f"{problem.name} cannot be explained: it reads a row in several windows.")
    found = attribute(member.checkpoint, encoded, outputs, problem, method=method, steps=steps)
    return [_Part(reading, attributed) for reading, attributed in zip(read, found, strict=True)]


def _added(parts: Sequence[_Part], shares: Sequence[float]) -> tuple[tuple[Word, ...], dict[str, str], float]:
    """Return the weighted sum of the members' attributions of a row, word by word, and of what is no word."""
    import numpy as np

    texts = parts[0].reading.texts
    if any(part.reading.texts != texts for part in parts):
        raise UnsupportedError("the members read the text differently, so their attributions cannot be added up. "
                               "Explain one of them with --member NAME.")  # fmt: skip
    places = [[(column, *place) for place in words_of(text)] for column, text in enumerate(texts.values())]
    ends = np.concatenate([[0], np.cumsum([len(of) for of in places])])
    values, rest = np.zeros(ends[-1]), 0.0
    for part, share in zip(parts, shares, strict=True):
        rest += share * part.attributed.added
        tokens = part.attributed.tokens
        rest += share * float(sum(v for v, at in zip(tokens, part.reading.places, strict=True) if at is None))
        for column, (first, last) in enumerate(pairwise(ends)):
            own = [i for i, at in enumerate(part.reading.places) if at is not None and at[0] == column]
            where = [part.reading.places[i][1:] for i in own]  # type: ignore[index]
            found, outside = spread(tokens[own], where, [place[1:] for place in places[column]])
            values[first:last] += share * found
            rest += share * outside
    names = list(texts)
    words = [
        Word(names[column], start, end, texts[names[column]][start:end], float(value))
        for (column, start, end), value in zip([place for of in places for place in of], values, strict=True)
    ]
    return tuple(words), texts, rest
