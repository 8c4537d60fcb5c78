"""Sample data that the project makes itself: questions on short articles about towns that do not exist.

For trying extractive question answering with no file at hand. An article states some facts of a town, in any order
and in different words, beside sentences that answer nothing; a question asks for one of them, or, where
`no_answer_ratio` is set, for a fact that this article does not state. The rows are as untidy as collected ones: places
that are off (some can be repaired, since the answer is in the text once, some cannot), answers that are not in the
text, missing questions, duplicates, HTML, mojibake and stray white space in texts, where places must move along. Not
for judging a method: what is learned from made-up sentences says little about real ones.

Columns: question, context, answers (list<{text, start}>), title (for `splitting.group_column`).

    {"question": "When was Alderwick founded?", "context": "... was founded in 1642 by ...",
     "answers": [{"text": "1642", "start": 31}], "title": "Alderwick"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftlib.data.sources import _samples, _towns
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("question", "context", "answers", "title")
QUESTIONS_AN_ARTICLE = 3

Row = tuple[str | None, str, list[dict[str, Any]], str]


class SampleQuestions(Source):
    """Made-up questions on made-up towns."""

    num_rows: int = Field(1200, ge=10, le=1_000_000)
    """How many rows, noise included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    no_answer_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of rows whose article does not hold the answer."""

    misplaced_ratio: float = Field(0.04, ge=0, le=1)
    """Share of rows whose place is off by some characters."""

    wrong_answer_ratio: float = Field(0.02, ge=0, le=1)
    """Share of rows whose answer is not in the text at all."""

    missing_ratio: float = Field(0.01, ge=0, le=1)
    """Share of rows without a question."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    untidy_ratio: float = Field(0.1, ge=0, le=1)
    """Share of articles with tags, entities, stray white space or characters read in the wrong encoding."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _towns)

    def columns(self) -> list[str]:
        """Return question, context, answers and title."""
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        import pyarrow as pa

        answers = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
        return _samples.table(self, columns, self._rows(), {"answers": answers})

    def _rows(self) -> Iterator[Row]:
        random = Random(self.seed)
        written: list[Row] = []
        while len(written) < self.num_rows:
            for row in self._article(random)[: self.num_rows - len(written)]:
                written.append(_samples.again(random, written, self.duplicate_ratio) or row)
                yield written[-1]

    def _article(self, random: Random) -> list[Row]:
        """Return the questions on one article."""
        town = _towns.Town(random)
        untidy = _UNTIDY[random.randrange(len(_UNTIDY))] if random.random() < self.untidy_ratio else None
        context = untidy(town.text) if untidy else town.text
        rows: list[Row] = []
        for question, answer in town.questions[:QUESTIONS_AN_ARTICLE]:
            asked, answers = question, [{"text": answer, "start": context.find(answer)}]
            if random.random() < self.no_answer_ratio:
                asked, answers = random.choice(town.unanswerable), []
            rows.append(self._damaged(random, (asked, context, answers, town.name)))
        return rows

    def _damaged(self, random: Random, row: Row) -> Row:
        question, context, answers, title = row
        if answers and random.random() < self.misplaced_ratio:
            answers = [{**answers[0], "start": max(0, answers[0]["start"] + random.choice((-3, -1, 1, 2, 40)))}]
        elif answers and random.random() < self.wrong_answer_ratio:
            answers = [{**answers[0], "text": f"about {answers[0]['text']}?"}]
        return (None if random.random() < self.missing_ratio else question), context, answers, title


def _as_html(text: str) -> str:
    first, _, rest = text.partition(". ")
    return f"<p>{first}.</p>\n<p>{rest}</p>"


def _mojibake(text: str) -> str:
    """Return the text as it reads when its UTF-8 is taken for Windows-1252."""
    return text.replace("'", "’").encode("utf-8").decode("cp1252", "replace")


_UNTIDY = (
    _as_html,
    _mojibake,
    lambda text: text.replace(". ", ".&nbsp;", 2),
    lambda text: text.replace(" ", "  ", 3),
    lambda text: f" \t{text}\n",
    lambda text: text.replace(", ", " \u200b, ", 2),
)
