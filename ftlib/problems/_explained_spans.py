"""What is explained where a question is answered by a stretch of a text: that the answer begins and ends there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.problems._questions import Posed, Question
from ftlib.problems._reading import Place, Reading
from ftlib.problems._spans import ELSEWHERE, Window, chosen_places
from ftlib.problems._windows import Template

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.question_answering import QuestionAnswering
    from ftlib.targets.span import Span


def questions(target: Span, scores: np.ndarray) -> list[Question]:
    """Return the question for each row's answer; a unit is its first character and the one after its last.

    Args:
        target: Over the layout of the rows.
        scores: Shape (num_units, 2).
    """
    units, best = target.laid_out.units, target.predicted(scores)
    spans = units.select(["start", "end", "text"]).take(best).to_pylist()  # type: ignore[union-attr]
    return [
        Question(row, span["text"] or "no answer", float(score), (span["start"], span["end"]))
        for row, (span, score) in enumerate(zip(spans, scores[best].prod(-1), strict=True))
    ]


def pose(problem: QuestionAnswering, checkpoint: Checkpoint, rows: pa.Table, asked: Sequence[Question]) -> list[Posed]:
    """Return the window in which each answer begins; of no answer, the one with the likeliest place.

    What the model says of a long context's other windows stays as it is: they compete, but their words are not weighed.
    """
    encoded = problem.encode(rows, checkpoint.tokenizer)
    encoded = encoded.rename_columns(["row_id" if name == "row" else name for name in encoded.column_names])
    bias = problem.no_answer_bias(checkpoint)
    lines: dict[int, list[int]] = {}
    for line, row in enumerate(encoded["row_id"].to_pylist()):
        lines.setdefault(row, []).append(line)
    windows = problem.read_windows(checkpoint, encoded)
    texts = rows.select(["question", "context"]).to_pylist()
    found = []
    for i, question in enumerate(asked):
        places = _Places.of([windows[line] for line in lines[i]], bias if problem.no_answer else None)
        window = places.window(question.unit)
        line = encoded.slice(lines[i][window], 1)
        found.append(Posed(line, _reading(texts[i], line, checkpoint), places.score(question.unit, window, line)))
    return found


@dataclass(frozen=True, eq=False)
class _Places:
    """The places at which an answer may begin (0) or end (1), in all windows of a context, and what a model says there.

    Attributes:
        window_of: The window of each place; -1 of "nowhere", which comes last where there may be no answer.
        tokens: The token among those of the context in that window.
        starts: Its first character in the context.
        ends: The one after its last.
        logits: Against "not in here".
    """

    window_of: tuple[np.ndarray, np.ndarray]
    tokens: tuple[np.ndarray, np.ndarray]
    starts: tuple[np.ndarray, np.ndarray]
    ends: tuple[np.ndarray, np.ndarray]
    logits: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, windows: Sequence[Window], bias: float | None) -> _Places:
        """Return the places of a context's windows; `bias`: log-odds of no answer, None where there must be one."""
        import numpy as np

        columns = chosen_places(windows)
        window_of = np.repeat(np.arange(len(windows)), [len(window.starts) for window in windows])
        tokens = np.concatenate([np.arange(len(window.starts)) for window in windows])
        starts, ends, logits = (
            np.concatenate([getattr(w, name) for w in windows]) for name in ("starts", "ends", "logits")
        )
        none = [] if bias is None else [-1]
        zero = [] if bias is None else [bias / 2]
        parts = [
            [np.append(values[at], none).astype(int) for at in columns] for values in (window_of, tokens, starts, ends)
        ]
        return cls(*map(tuple, parts), tuple(np.append(logits[at, i], zero) for i, at in enumerate(columns)))  # type: ignore

    def _place(self, column: int, span: tuple[int, int]) -> int | None:
        """Return the place that covers a span's first, or last, character; None where no token does."""
        import numpy as np

        if span[0] < 0:
            return len(self.logits[column]) - 1
        character = (span[0], span[1] - 1)[column]
        covers = np.flatnonzero((self.starts[column] <= character) & (self.ends[column] > character))
        return int(covers[0]) if len(covers) else None

    def window(self, span: tuple[int, int]) -> int:
        """Return the window in which an answer begins; of none, that with the likeliest beginning."""
        place = self._place(0, span) if span[0] >= 0 else None
        inside = self.window_of[0] >= 0
        if place is None and inside.any():
            place = int(self.logits[0][inside].argmax())
        return int(self.window_of[0][place]) if place is not None else 0

    def score(self, span: tuple[int, int], window: int, line: pa.Table) -> Callable[[Tensor], Tensor]:
        """Return how an answer's probability follows from the logits of one window, those of the others being given.

        Args:
            span: Its characters; (-1, -1) for no answer.
            window: Its number.
            line: The window, encoded.
        """
        import numpy as np

        inside = np.flatnonzero(np.array(line["char_starts"][0].as_py()) >= 0)
        first, last = (self._factor(column, span, window, inside) for column in (0, 1))
        return lambda logits: first(logits[..., 0]) * last(logits[..., 1])

    def _factor(
        self, column: int, span: tuple[int, int], window: int, inside: np.ndarray
    ) -> Callable[[Tensor], Tensor]:
        import numpy as np
        import torch

        place, own = self._place(column, span), np.flatnonzero(self.window_of[column] == window)
        tokens, fixed = inside[self.tokens[column][own]], torch.tensor(self.logits[column], dtype=torch.float32)

        def factor(logits: Tensor) -> Tensor:
            if place is None:
                return logits.new_full((len(logits),), ELSEWHERE)
            odds = fixed.to(logits).repeat(len(logits), 1)
            odds[:, own] = logits[:, tokens] - logits[:, :1]  # the first token stands for "not in here"
            return odds.softmax(1)[:, place]

        return factor


def _reading(texts: dict[str, str], line: pa.Table, checkpoint: Checkpoint) -> Reading:
    """Return where a window's tokens are in question and context."""
    ids, starts, ends = (line[name][0].as_py() for name in ("input_ids", "char_starts", "char_ends"))
    places: list[Place | None] = [(1, a, b) if a >= 0 else None for a, b in zip(starts, ends, strict=True)]
    told: Any = checkpoint.tokenizer(texts["question"], add_special_tokens=False, return_offsets_mapping=True)
    first = [piece for piece, _ in Template.of(checkpoint.tokenizer).pieces].index("A")
    asked = zip(told["input_ids"], told["offset_mapping"], ids[first:], strict=False)
    for i, (token, place, given) in enumerate(asked, first):
        if token != given:  # a long question is cut
            break
        places[i] = (0, *place)
    return Reading(texts, places)
