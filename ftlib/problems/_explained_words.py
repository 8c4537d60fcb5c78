"""What is explained where words are tagged: the spans that are found, or the tags that a model is least sure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ftlib.problems._entities import entities
from ftlib.problems._questions import MOST, Posed, Question
from ftlib.problems._reading import Place, Reading
from ftlib.problems._words import is_text, places, token_words, words_of
from ftlib.targets.tag_spans import OUTSIDE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.token_classification import TokenClassification
    from ftlib.targets.tags import Tags


def questions(target: Tags, scores: np.ndarray, rows: pa.Table, label: str | None) -> list[Question]:
    """Return the questions for rows of words; a unit is a word and a tag.

    A span stands with the least sure of its tags, whose probability is the score that a client is told. A row without
    a span is asked why the likeliest one is none.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_words, num_tags).
        rows: With their words.
        label: The tag to explain, at the word that is likeliest to have it.
    """
    words, splits = words_of(rows["tokens"]), target.laid_out.splits.tolist()
    spans = [] if target.is_plain else entities(target, scores, rows["tokens"])
    tags = target.decode(scores)
    found = []
    for row, (start, end) in enumerate(pairwise(splits)):
        asked = _Row(row, words[row], scores[start:end], tags[row], target)
        if label is not None:
            found.append(asked.likeliest([target.labels.index(label)]))
        elif target.is_plain:
            found += asked.least_sure()
        elif spans[row]:
            ranked = sorted(spans[row], key=lambda span: span["score"])[:MOST]
            found += [asked.span(s["first_word"], s["last_word"], f"{s['text']}: {s['type']}") for s in ranked]
        else:
            found.append(asked.likeliest([i for i, tag in enumerate(target.labels) if tag != OUTSIDE]))
    return found


class _Row:
    """What can be asked of a row.

    Args:
        row: Its position.
        words: Its words.
        scores: Their tags' probabilities, shape (num_words, num_tags).
        tags: Their tags.
        target: What tags there are.
    """

    def __init__(self, row: int, words: list[str], scores: np.ndarray, tags: list[str], target: Tags) -> None:
        self.row, self.words, self.scores, self.tags, self.labels = row, words, scores, tags, target.labels

    def question(self, word: int, tag: int, name: str) -> Question:
        """Return the question for a word's tag."""
        given = self.tags[word]
        instead = "" if given == self.labels[tag] else f"{self.words[word]}: {given}"
        return Question(self.row, name, float(self.scores[word, tag]), (word, tag), instead=instead)

    def span(self, first: int, last: int, name: str) -> Question:
        """Return the question for the least sure tag of a span."""
        word = min(range(first, last + 1), key=lambda i: self.scores[i, self.labels.index(self.tags[i])])
        return self.question(word, self.labels.index(self.tags[word]), name)

    def likeliest(self, tags: Sequence[int]) -> Question:
        """Return the question for the word that is likeliest to have one of these tags."""
        word, place = divmod(int(self.scores[:, tags].argmax()), len(tags))
        return self.question(word, tags[place], f"{self.words[word]}: {self.labels[tags[place]]}")

    def least_sure(self) -> list[Question]:
        """Return the questions for the words whose tags are least sure."""
        import numpy as np

        words = np.argsort(self.scores.max(1), kind="stable")[:MOST].tolist()
        return [self.question(i, self.labels.index(self.tags[i]), f"{self.words[i]}: {self.tags[i]}") for i in words]


def pose(
    problem: TokenClassification, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question]
) -> list[Posed]:
    """Return the window in which each question's word is tagged."""
    encoded = problem.encode(rows, checkpoint.tokenizer)
    owners, owned, words = encoded["row"].to_pylist(), encoded["words"].to_pylist(), words_of(rows["tokens"])
    found = []
    for i, question in enumerate(asked):
        word, tag = question.unit
        line = next(n for n, row in enumerate(owners) if row == i and word in owned[n])
        text, at = _text(rows["tokens"].slice(i, 1))
        inside = token_words(words[i], owned[line], checkpoint.tokenizer)
        tokens: list[Place | None] = [None if w is None else (0, *at[w]) for w in inside]
        score = _tag_score(owned[line].index(word), tag)
        found.append(Posed(encoded.slice(line, 1), Reading({"tokens": text}, tokens), score))
    return found


def _tag_score(token: int, tag: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits[:, token].softmax(-1)[:, tag]


def _text(tokens: pa.ChunkedArray) -> tuple[str, list[tuple[int, int]]]:
    """Return a row's text, and where its words are; of words alone, these side by side."""
    if is_text(tokens):
        text = tokens[0].as_py() or ""
        return text, places(text)
    words = words_of(tokens)[0]
    starts = accumulate((len(word) + 1 for word in words), initial=0)
    return " ".join(words), [(start, start + len(word)) for start, word in zip(starts, words, strict=False)]
