"""SQuAD: articles of paragraphs with questions, in the JSON of versions 1.1 and 2.0.

One row a question. Columns: question, context (the paragraph), answers (list<{text, start}>; [] where is_impossible is
set), title (the article's: name it as `splitting.group_column`, so that no article is in two splits) and id. XQuAD,
KorQuAD and many others have this form, too.

    {"version": "1.1", "data": [{"title": "Warsaw", "paragraphs": [{"context": "...", "qas": [
        {"id": "57", "question": "...", "answers": [{"text": "...", "answer_start": 17}]}]}]}]}

Source: Rajpurkar et al. (2016), https://arxiv.org/abs/1606.05250; Rajpurkar et al. (2018),
https://arxiv.org/abs/1806.03822.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.data.sources import _files
from ftlib.data.sources.base import Source
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("question", "context", "answers", "title", "id")


class Squad(Source):
    """A file in the form of SQuAD."""

    example_path: ClassVar[str] = "data/train.json"

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest_file(self.path)

    def columns(self) -> list[str]:
        """Return the columns, having looked at the beginning of the file."""
        head = _files.read_head(self.path)
        if not head.lstrip().startswith(b"{") or (b'"data"' not in head and b'"paragraphs"' not in head):
            raise DataError(
                f"{self.path}: is not in the form of SQuAD: expected an object with `data`, a list of articles."
            )
        return list(COLUMNS)

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return a row for each question; those without a question, a context or answers have none there."""
        import pyarrow as pa

        _files.pick(self.path, columns, list(COLUMNS))
        rows = list(self._rows())
        if not rows:
            raise DataError(f"{self.path}: holds no question.")
        answers = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
        given = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
        return pa.table({n: pa.array(given[c], answers if c == "answers" else pa.string()) for n, c in columns.items()})

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for number, article in enumerate(self._articles(), 1):
            if not isinstance(article, dict):
                raise DataError(f"{self.path}: article {number:,} is no object; expected {{title, paragraphs}}.")
            title = _text(article.get("title")) or f"article {number}"
            for paragraph in _objects(article.get("paragraphs")):
                for question in _objects(paragraph.get("qas")):
                    asked = _text(question.get("question"))
                    context = _text(paragraph.get("context"))
                    yield asked, context, _answers(question), title, _text(question.get("id"))

    def _articles(self) -> list[Any]:
        try:
            value = json.loads(_files.read_text(self.path))
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path}: line {error.lineno:,} is not valid JSON ({error.msg}).") from None
        except RecursionError:
            raise DataError(f"{self.path}: is nested too deeply to be in the form of SQuAD.") from None
        articles = value.get("data") if isinstance(value, dict) else None
        if not isinstance(articles, list):
            raise DataError(
                f"{self.path}: is not in the form of SQuAD: expected an object with `data`, a list of articles."
            )
        return articles


def _answers(question: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return a question's answers; None where there is no list of them, which cleaning rejects."""
    if question.get("is_impossible") is True:
        return []
    given = question.get("answers")
    if not isinstance(given, list):
        return None
    return [{"text": _text(one.get("text")), "start": _place(one.get("answer_start"))} for one in _objects(given)]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """Return a value as text; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
    if value is None or isinstance(value, (list, dict)):
        return None
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _place(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else -1
