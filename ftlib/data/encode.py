"""Encoding: rows become token ids once, for every stage that shares the tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.problems.base import Problem

ROWS_AT_ONCE = 20_000
MANY_UNKNOWN = 0.2
logger = logging.getLogger(__name__)


def encode(
    table: pa.Table, problem: Problem, tokenizer: PreTrainedTokenizerBase, *, is_labelled: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows of a split as token ids and label ids, with what became of the tokens.

    Args:
        table: A split: row_id, texts, label.
        problem: With its labels filled in.
        tokenizer: Of the model to be trained.
        is_labelled: Whether the rows have labels; else `Target.no_labels` stand for them.

    Returns:
        Rows with row_id, input_ids (list<int32>), token_type_ids (list<int8>, where the model has them), labels
        (int64, fixed_size_list<float32>, or float32), whatever else the problem adds, and length (int32, tokens);
        several lines a row, where long ones become windows; and the summary {"rows",
        "tokens", "truncated_rows", "truncated_tokens", "unknown_tokens", "length": {"mean", "p50", "p95", "max"}}.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from ftlib.progress import Progress, emit

    problem.check_tokenizer(tokenizer)
    parts = []
    for start in range(0, len(table), ROWS_AT_ONCE):
        rows = table.slice(start, ROWS_AT_ONCE)
        encoded = problem.encode(rows, tokenizer)
        known = problem.encode_labels(rows, encoded, tokenizer) if is_labelled else _without_labels(encoded, problem)
        parts.append(_with_rows(rows, known))
        emit(Progress(step="encode", done=start + len(rows), total=len(table), unit="rows"))
    encoded = pa.concat_tables(parts)
    cut = encoded["num_truncated"]
    encoded = encoded.drop_columns(["num_truncated"])
    if "length" not in encoded.column_names:
        encoded = encoded.append_column("length", pc.list_value_length(encoded["input_ids"]).cast(pa.int32()))
    return encoded, _summary(encoded, cut, tokenizer)


def _without_labels(encoded: pa.Table, problem: Problem) -> pa.Table:
    from ftlib.problems._learning import as_column

    return encoded.append_column("labels", as_column(problem.target.no_labels(len(encoded))))


def _with_rows(rows: pa.Table, encoded: pa.Table) -> pa.Table:
    """Return encoded rows with their row_id first; those that say by `row` whose windows they are, by that."""
    if "row" not in encoded.column_names:
        return encoded.add_column(0, "row_id", rows["row_id"])
    row_ids = rows["row_id"].take(encoded["row"].combine_chunks())
    return encoded.drop_columns(["row"]).add_column(0, "row_id", row_ids)


def read_encoded(path: Path) -> pa.Table:
    """Read a split that was encoded."""
    from ftlib.files import read_table

    return read_table(path)


def read_splits(folder: Path, splits: Sequence[str]) -> pa.Table:
    """Read several encoded splits, one after the other."""
    import pyarrow as pa

    return pa.concat_tables([read_encoded(folder / f"{split}.parquet") for split in splits])


def _summary(encoded: pa.Table, truncated: pa.ChunkedArray, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths, cut = np.asarray(encoded["length"]), np.asarray(truncated)
    num_tokens = int(lengths.sum())
    num_rows = len(pc.unique(encoded["row_id"]))
    ids = pc.list_flatten(encoded["input_ids"]) if "input_ids" in encoded.column_names else pa.array([], pa.int32())
    num_unknown = 0 if tokenizer.unk_token_id is None else pc.sum(pc.equal(ids, tokenizer.unk_token_id)).as_py() or 0
    if num_unknown > MANY_UNKNOWN * max(1, num_tokens):
        logger.warning(
            "%.0f %% of the tokens are unknown to the tokenizer: does the base model know this language?",
            100 * num_unknown / num_tokens,
        )
    return {
        "rows": num_rows,
        "tokens": num_tokens,
        "truncated_rows": int((cut > 0).sum()),
        "truncated_tokens": int(cut.sum()),
        "unknown_tokens": num_unknown,
        "length": {
            "mean": float(lengths.mean()),
            "p50": int(np.percentile(lengths, 50)),
            "p95": int(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
    }
