"""Leaks: rows of one split whose input, or whose group, is in another split too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.problems.base import Problem

STRICTEST_FIRST = ("test", "validation", "fusion", "train", "unlabelled")
"""Where an input is in several splits, it stays in the first of these; both that are trained on may share a group."""


class Leaks:
    """The rows to take out so that no input and no group is in two splits.

    Args:
        table: Rows with texts, label and perhaps group.
        problem: Says which columns are the input.
    """

    def __init__(self, table: pa.Table, problem: Problem) -> None:
        import numpy as np

        from ftlib.data._rows import group_codes, input_codes

        self._table = table
        self._label_column = problem.label_column
        self._keys = {"input": input_codes(table, problem.input_columns)}
        if "group" in table.column_names:
            self._keys["group"] = group_codes(table)
        self.fine = np.ones(len(table), bool)
        """Which rows stay."""
        self._reasons = np.full(len(table), None, dtype=object)
        self.counts: dict[str, int] = {}
        """Rows taken out, by where they were and what has them too: {"train in test": count}."""

    def find(self, names: np.ndarray) -> None:
        """Take out rows, among those that are fine, that a stricter split has too.

        Args:
            names: The split of each row, shape (num_rows,), object.
        """
        import numpy as np

        rank_of = {name: rank for rank, name in enumerate(STRICTEST_FIRST)}
        of_input = np.array([rank_of[name] for name in names.tolist()], dtype=np.int64)
        for what, keys in self._keys.items():
            ranks = of_input if what == "input" else np.minimum(of_input, rank_of["train"])
            strictest = np.full(int(keys.max(initial=0)) + 1, len(STRICTEST_FIRST))
            np.minimum.at(strictest, keys[self.fine], ranks[self.fine])
            leaked = np.flatnonzero(self.fine & (strictest[keys] < ranks))
            for row, rank in zip(leaked.tolist(), strictest[keys[leaked]].tolist(), strict=True):
                pair = f"{names[row]} in {STRICTEST_FIRST[rank]}"
                self._reasons[row] = f"leak: its {what} is in {STRICTEST_FIRST[rank]} too"
                self.counts[pair] = self.counts.get(pair, 0) + 1
            self.fine[leaked] = False

    def rejected(self, names: np.ndarray) -> pa.Table:
        """Return the rows taken out, label as text, with their reasons."""
        import pyarrow as pa

        from ftlib.data._rejections import label_as_text

        out = ~self.fine
        rows = label_as_text(self._table.filter(out), self._label_column)
        at = rows.column_names.index("split")
        rows = rows.set_column(at, "split", pa.array(names[out], pa.string()))
        return rows.append_column("reason", pa.array(self._reasons[out], pa.string()))
