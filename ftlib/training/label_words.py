"""Label words, searched: which words a pretrained language model itself gives at the gap for each label's rows.

Gao, Fisch and Chen (2021), "Making Pre-trained Language Models Better Few-shot Learners",
https://arxiv.org/abs/2012.15723, section 5.1: for each label the words that the model finds most likely over its rows
(equation 4), then the assignment of one to each label that gets most of the rows right untrained; of equal ones here
the likeliest. There the best few assignments are fine-tuned to choose among them; here they are not. No weight changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.errors import UnsupportedError
from ftlib.training.batches import values

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.cloze import ClozeForm
    from ftlib.models.cloze_templates import Template
    from ftlib.problems.base import Problem

MOST_ASSIGNMENTS = 100_000
"""Up to so many are all tried; of more, one label's word at a time is exchanged for a better one until none is."""

CELLS_AT_ONCE = 1 << 22


def search(
    checkpoint: Checkpoint, rows: pa.Table, problem: Problem, *, num_candidates: int, num_rows: int, name: str
) -> tuple[str, ...]:
    """Return a word for each label.

    Args:
        checkpoint: Its model has a form attached, whose template is asked; its words do not matter.
        rows: Encoded training rows, with labels.
        problem: With its labels filled in.
        num_candidates: Words that are tried for each label.
        num_rows: The most rows of each label that are read, evenly spaced.
        name: What progress is told under.

    Raises:
        UnsupportedError: If a label has no rows, or there are fewer words than labels.
    """
    from ftlib.models import cloze

    model: Any = checkpoint.model
    form: ClozeForm = cloze.attached(model)  # type: ignore[assignment]
    rows = rows.take(_spread(values(rows["labels"]), problem.target.labels, num_rows))
    labels = values(rows["labels"])
    try:
        cloze.attach(model, replace(form, words=None))
        likelihood = _likelihood(_read(checkpoint, rows, problem, name), labels)
        found = [_candidates(line, form.template, num_candidates) for line in likelihood]
        tokens = sorted({token for line in found for token in line})
        cloze.attach(model, replace(form, words=tuple((token,) for token in tokens)))
        logits = np.empty((len(rows), len(tokens)), np.float32)
        for at, read in _read(checkpoint, rows, problem, name):
            logits[at] = read
    finally:
        cloze.attach(model, form)
    columns = [[tokens.index(token) for token in line] for line in found]
    best = assign(logits, labels, columns, likelihood[:, tokens])
    return tuple(str(form.template.word(tokens[column])) for column in best)


def assign(
    logits: np.ndarray, labels: np.ndarray, candidates: Sequence[Sequence[int]], likelihood: np.ndarray
) -> tuple[int, ...]:
    """Return a column of `logits` for each label, all different, by which most rows get their own label.

    Args:
        logits: Of words, shape (num_rows, num_words).
        labels: Of the rows.
        candidates: For each label, columns to choose from.
        likelihood: Of each word for each label, shape (num_labels, num_words), by which equal assignments are told
            apart.

    Raises:
        UnsupportedError: If there are fewer words than labels.
    """
    if np.prod([float(len(line)) for line in candidates]) <= MOST_ASSIGNMENTS:
        return _best(logits, labels, product(*candidates), likelihood)[1]
    contrast = likelihood - likelihood.mean(0)
    chosen: list[int] = []
    for label, line in enumerate(candidates):
        chosen.append(max((c for c in line if c not in chosen), key=lambda c: contrast[label, c], default=-1))
    score: Any = (-1,)
    while True:
        before = score
        for label, line in enumerate(candidates):
            others = ((*chosen[:label], c, *chosen[label + 1 :]) for c in line)
            score, best = _best(logits, labels, others, likelihood)
            chosen = list(best)
        if score == before:
            return tuple(chosen)


def _best(logits: np.ndarray, labels: np.ndarray, assignments: Any, likelihood: np.ndarray) -> tuple[Any, Any]:
    """Return the best assignment's number of rows that are right, and its likelihood; and itself."""
    best: tuple[Any, Any] = ((-1, 0.0), None)
    distinct = (a for a in assignments if len(set(a)) == len(a) and -1 not in a)
    at_once = max(1, CELLS_AT_ONCE // (len(labels) * len(likelihood)))
    while part := list(islice(distinct, at_once)):
        columns = np.array(part)
        right = (logits[:, columns].argmax(2) == labels[:, None]).sum(0)
        likely = likelihood[np.arange(len(likelihood)), columns].sum(1)
        first = np.lexsort((-likely, -right))[0]
        best = max(best, ((int(right[first]), float(likely[first])), part[first]), key=lambda pair: pair[0])
    if best[1] is None:
        raise UnsupportedError(
            "cloze finds fewer words than there are labels; give verbalizer, or raise num_candidates."
        )
    return best


def _spread(labels: np.ndarray, names: Sequence[str], most: int) -> np.ndarray:
    """Return places of at most so many rows of each label."""
    chosen = []
    for label, name in enumerate(names):
        places = np.flatnonzero(labels == label)
        if not len(places):
            raise UnsupportedError(f"cloze cannot search a word for label {name!r}, which no training row has; give "
                                   "verbalizer.")  # fmt: skip
        chosen.append(places[np.unique(np.linspace(0, len(places) - 1, most).astype(int))])
    return np.sort(np.concatenate(chosen))


def _read(
    checkpoint: Checkpoint, rows: pa.Table, problem: Problem, name: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from ftlib.models.forward import Teller, forward

    return forward(checkpoint, rows, problem, watch=Teller(name, len(rows)))


def _likelihood(batches: Iterable[tuple[np.ndarray, np.ndarray]], labels: np.ndarray) -> np.ndarray:
    """Return the mean log-probability of every token at the gap over each label's rows, (num_labels, num_tokens)."""
    total: Any = 0.0
    known = np.arange(labels.max() + 1)[:, None] == labels
    for at, logits in batches:
        wide = logits.astype(np.float64)
        wide -= wide.max(1, keepdims=True)
        total = total + known[:, at].astype(float) @ (wide - np.log(np.exp(wide).sum(1, keepdims=True)))
    return total / known.sum(1, keepdims=True)


def _candidates(likelihood: np.ndarray, template: Template, number: int) -> list[int]:
    """Return the likeliest tokens that are words."""
    order = np.argsort(-likelihood, kind="stable").tolist()
    return list(islice((token for token in order if template.word(token) is not None), number))
