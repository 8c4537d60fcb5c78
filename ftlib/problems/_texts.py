"""What problems on texts share: turning one or two text columns into token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.errors import DataError, unknown

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import BatchEncoding, PreTrainedTokenizerBase

ROWS_AT_ONCE = 8192
"""Rows tokenized together: enough for the tokenizer's threads, few enough for memory."""


def encode_texts(
    rows: pa.Table, columns: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> pa.Table:
    """Return token ids for one text or a pair a row.

    Rows are tokenized whole, and the few that are too long once more, cut: so the tokens lost are counted exactly,
    whatever the tokenizer adds around them. Of a pair, the longer text is cut first.

    Args:
        rows: Holds `columns`; a missing text counts as an empty one.
        columns: One or two names.
        tokenizer: Of the model to be trained or served.
        max_length: Tokens kept of a row, special tokens included; less where the model takes less.

    Returns:
        input_ids (list<int32>), token_type_ids (list<int8>) where the tokenizer gives them, num_truncated (int32).

    Raises:
        DataError: If a column is missing or holds no text.
    """
    import pyarrow as pa

    texts = [text_column(rows, column) for column in columns]
    limit = min(max_length, tokenizer.model_max_length)
    has_types = "token_type_ids" in tokenizer.model_input_names
    batches = [
        _encode_batch([column.slice(start, ROWS_AT_ONCE).to_pylist() for column in texts], tokenizer, limit, has_types)
        for start in range(0, rows.num_rows, ROWS_AT_ONCE)
    ]
    schema = _schema(has_types)
    return pa.Table.from_batches(batches, schema).combine_chunks() if batches else schema.empty_table()


def _schema(has_types: bool) -> pa.Schema:
    import pyarrow as pa

    types = [("token_type_ids", pa.list_(pa.int8()))] if has_types else []
    return pa.schema([("input_ids", pa.list_(pa.int32())), *types, ("num_truncated", pa.int32())])


def text_column(rows: pa.Table, column: str) -> pa.ChunkedArray:
    """Return a column of texts; a missing one counts as empty.

    Raises:
        DataError: If it is not there or holds no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column not in rows.column_names:
        raise DataError(unknown("column", column, rows.column_names, remedy=f"Rows need a column {column!r}."))
    try:
        return pc.fill_null(pc.cast(rows[column], pa.string()), "")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column {column!r} holds {rows[column].type}, expected text in UTF-8.") from None


def _encode_batch(
    texts: list[list[str]], tokenizer: PreTrainedTokenizerBase, limit: int, has_types: bool
) -> pa.RecordBatch:
    import pyarrow as pa

    def tokenize(chosen: list[list[str]], *, cut: bool) -> BatchEncoding:
        return tokenizer(
            *chosen,
            truncation="longest_first" if cut else False,
            max_length=limit if cut else None,
            return_attention_mask=False,
            return_token_type_ids=has_types,
            verbose=False,
        )

    whole = tokenize(texts, cut=False)
    ids = whole["input_ids"]
    num_truncated = [0] * len(ids)
    long = [i for i, row in enumerate(ids) if len(row) > limit]
    if long:
        short = tokenize([[column[i] for i in long] for column in texts], cut=True)
        for place, i in enumerate(long):
            num_truncated[i] = len(ids[i]) - len(short["input_ids"][place])
            for key in whole:
                whole[key][i] = short[key][place]
    columns = [ids, *([whole["token_type_ids"]] if has_types else []), num_truncated]
    schema = _schema(has_types)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
