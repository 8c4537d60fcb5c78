"""Explanations: the words of a text with what each adds to the score of an answer, for members and for fusions.

A fusion is explained where it is a weighted sum of its members: its attributions are the same sum of theirs, since
attributions are linear (Sundararajan, Taly & Yan 2017, section 3, "Linearity"). That is exact for means of scores; for
other fusions that have weights it explains the members' weighted mean, which `is_exact` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import ParamsError, UnsupportedError, unknown
from ftlib.explaining.attribution import STEPS, Attributed, Method, attribute
from ftlib.explaining.words import spread, words_of
from ftlib.problems._questions import Posed, Question, Scale
from ftlib.progress import Progress, emit

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.fusion.base import Combiner
    from ftlib.problems._reading import Reading
    from ftlib.problems.base import Problem
    from ftlib.serving.answering import Member, Rows, Served


@dataclass(frozen=True)
class Word:
    """A word and what it adds to the score.

    Attributes:
        column: Which of the row's texts it is in.
        start: Its first character there.
        end: The one after its last.
        text: The word; of an image, which part of it.
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
        explained: What the score is that of: a label, "value" of a number, "Rome: LOC", an answer's text.
        score: That score, as the members' weighted mean has it.
        baseline: The same score of a text without words.
        words: In the order of the text.
        rest: What special tokens, and text that the model reads beside words, add.
        texts: Column -> text, as the model reads it.
        is_exact: Whether `score` is the model's own: a fusion may be more than a weighted mean.
        method: How attributions were computed.
        scale: What the score is: a probability, the number, or a log-probability.
        instead: What the model answers, where that is something else; "" where it is not.
        content: What the baseline is without: "words", "the image", "words and the image".
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
    scale: Scale = "probability"
    instead: str = ""
    content: str = "words"

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
    """Return explanations of the rows that can be answered; of an answer in several parts, one each.

    Args:
        served: The model.
        rows: Its input columns, in any form that it answers.
        method: integrated_gradients, or input_x_gradient, which is quicker and less faithful.
        steps: Points of the integration.
        label: The label to explain, whatever the answer is; the answer's own unless given.

    Raises:
        UnsupportedError: If the fusion cannot be explained.
        ParamsError: If there is no such label.
    """
    import numpy as np
    import pyarrow as pa

    problem = served.problem
    _check_label(label, problem)
    shares = shares_of(served)
    scored = served.score(rows, name="explain")
    answered = np.flatnonzero(scored.is_answered)
    inputs = scored.rows.filter(scored.is_answered)
    questions = problem.questions(scored.scores, inputs, scored.layout, label) if len(answered) else []
    predictions = problem.target.over(scored.layout).decode(scored.scores) if len(answered) else []
    chosen = inputs.take(pa.array([question.row for question in questions], pa.int64()))
    parts = [_member(m, chosen, questions, problem, method, steps) for m in served.members]
    return [
        _explanation(question, of, shares, int(answered[question.row]), predictions[question.row], method)
        for question, of in zip(questions, zip(*parts, strict=True), strict=True)
    ]


def _explanation(
    question: Question, parts: Sequence[_Part], shares: Sequence[float], row: int, prediction: Any, method: Method
) -> Explanation:
    """Return what the members' attributions for a question come to together."""
    from math import isclose

    words, texts, rest = _added(parts, shares)
    score, baseline = (
        sum(w * getattr(part.attributed, name) for w, part in zip(shares, parts, strict=True))
        for name in ("score", "baseline")
    )
    alone = len(parts) == 1
    return Explanation(
        row=row,
        prediction=prediction,
        explained=parts[0].posed.name or question.name,
        score=score,
        baseline=baseline,
        words=words,
        rest=rest,
        texts=texts,
        is_exact=alone if question.score is None else isclose(score, question.score, rel_tol=1e-5, abs_tol=1e-4),
        method=method,
        scale=question.scale,
        instead=question.instead,
        content=parts[0].posed.reading.content,
    )


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


def _check_label(label: str | None, problem: Problem) -> None:
    labels = problem.target.labels
    if label is None or label in labels:
        return
    if not labels:
        raise ParamsError(f"unknown label {label!r}: {problem.name} has no labels. Leave it out.")
    raise ParamsError(unknown("label", label, labels))


@dataclass(frozen=True, eq=False)
class _Part:
    """What one member says to one question."""

    posed: Posed
    attributed: Attributed


def _member(
    member: Member, rows: pa.Table, questions: Sequence[Question], problem: Problem, method: Method, steps: int
) -> list[_Part]:
    posed = problem.pose(member.checkpoint, rows, questions)
    found = []
    for done, one in enumerate(posed, 1):
        found.append(_Part(one, attribute(member.checkpoint, one, problem, method=method, steps=steps)))
        emit(Progress("explain", done, len(posed), "answers"))
    return found


def _added(parts: Sequence[_Part], shares: Sequence[float]) -> tuple[tuple[Word, ...], dict[str, str], float]:
    """Return the weighted sum of the members' attributions of a row, word by word, and of what is no word."""
    import numpy as np

    reading = parts[0].posed.reading
    if any(part.posed.reading.texts != reading.texts for part in parts):
        raise UnsupportedError("the members read the text differently, so their attributions cannot be added up. "
                               "Explain one of them with --member NAME.")  # fmt: skip
    named = {name: _words(reading, name) for name in reading.texts}
    sums, rest = {name: np.zeros(len(of)) for name, of in named.items()}, 0.0
    for part, share in zip(parts, shares, strict=True):
        values, outside = _by_word(part, named)
        sums = {name: sums[name] + share * values[name] for name in named}
        rest += share * outside
    words = [Word(name, *of, float(value)) for name in named for of, value in zip(named[name], sums[name], strict=True)]
    return tuple(words), reading.texts, rest


def _words(reading: Reading, name: str) -> Sequence[tuple[int, int, str]]:
    """Return the parts of one of the texts that attributions are gathered into: its words, as a rule."""
    text = reading.texts[name]
    return reading.parts.get(name) or [(start, end, text[start:end]) for start, end in words_of(text)]


def _by_word(part: _Part, named: Mapping[str, Sequence[tuple[int, int, str]]]) -> tuple[dict[str, np.ndarray], float]:
    """Return one member's attributions by text and word, and the sum of those that belong to no word."""
    values, places = part.attributed.values, part.posed.reading.places
    rest = part.attributed.added + float(sum(v for v, at in zip(values, places, strict=True) if at is None))
    found = {}
    for number, (name, words) in enumerate(named.items()):
        own = [i for i, at in enumerate(places) if at is not None and at[0] == number]
        where = [places[i][1:] for i in own]  # type: ignore[index]
        found[name], outside = spread(values[own], where, [word[:2] for word in words])
        rest += outside
    return found, rest
