"""Told answers: what a client is told of a question, with places in the text that it sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.data.originals import Places


def originals(rows: pa.Table) -> list[Places | None]:
    """Return where the characters of each repaired context come from; None where it is as it came."""
    from ftlib.data.originals import GIVEN, places

    contexts = rows["context"].to_pylist()
    if f"{GIVEN}context" not in rows.column_names:
        return [None] * len(contexts)
    pairs = zip(rows[f"{GIVEN}context"].to_pylist(), contexts, strict=True)
    return [None if given == text else places(given, text) for given, text in pairs]


class Told:
    """The candidates of some rows, as answers.

    Args:
        splits: Where each row's candidates begin, and the last one's end.
        units: The candidates: start, end, text.
        support: Each one's, shape (num_units,).
        places: Of each row, where its context's characters come from; None where it is as it came.
    """

    def __init__(self, splits: np.ndarray, units: pa.Table, support: np.ndarray, places: list[Places | None]) -> None:
        self.splits, self.support, self.places = splits, support, places
        self.starts, self.ends = (units[name].to_numpy() for name in ("start", "end"))
        self.texts = units["text"]

    def best(self, row: int, number: int) -> list[dict[str, Any]]:
        """Return a row's best answers, each text once: text, start, end, score; start and end None for no answer."""
        import numpy as np

        first, last = self.splits[row], self.splits[row + 1]
        order = first + np.argsort(-self.support[first:last], kind="stable")
        found: dict[str, dict[str, Any]] = {}
        for unit in order.tolist():
            answer = self._answer(row, unit)
            found.setdefault(answer["text"], answer)
            if len(found) == number:
                break
        return list(found.values())

    def _answer(self, row: int, unit: int) -> dict[str, Any]:
        start, end = int(self.starts[unit]), int(self.ends[unit])
        text, score = self.texts[unit].as_py(), float(self.support[unit])
        if start < 0:
            return {"text": text, "start": None, "end": None, "score": score}
        places = self.places[row]
        start, end = places.in_given(start, end) if places else (start, end)
        return {"text": text, "start": start, "end": end, "score": score}
