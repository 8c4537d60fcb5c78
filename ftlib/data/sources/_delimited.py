"""Reading delimited text (CSV, TSV) with pyarrow; shared by the sources of that kind."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ftlib.data.sources._files import pick, read_head, read_text, with_unreadable
from ftlib.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 64 << 20
REMEDY = "Where line 1 is no header, set header: false."
Quoting = Literal["standard", "none"]


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    Attributes:
        delimiter: What separates the columns, one character.
        quoting: "standard" (RFC 4180: values may be quoted, a quote inside is doubled, and may span lines) or
            "none" (a quote is a character like any other).
        header: Whether the first line names the columns.
    """

    delimiter: str
    quoting: Quoting
    header: bool


@dataclass(frozen=True)
class First:
    """The first record of a file: its values, and the number of lines up to its end."""

    values: list[str]
    num_lines: int


def columns(path: str, dialect: Dialect) -> list[str]:
    """Return the column names; positions where there is no header."""
    first = _first_record(path, read_head(path), dialect)
    return first.values if dialect.header else [str(i) for i in range(len(first.values))]


def read(path: str, dialect: Dialect, wanted: Mapping[str, str]) -> pa.Table:
    """Return the wanted columns as strings, empty values as null; rows of another width as unreadable.

    Everything is read as strings, since a delimited file has no types: a text "007" or "NA" stays what it is.
    """
    import pyarrow as pa

    data = read_text(path)
    first = _first_record(path, data[: 1 << 20], dialect)
    positions = [str(i) for i in range(len(first.values))]
    names = first.values if dialect.header else positions
    pick(path, wanted, names, REMEDY)
    table, bad = _parse(path, data, dialect, positions, first.num_lines if dialect.header else 0)
    if not len(table) and not bad:
        raise DataError(f"{path}: has a header but no rows.")
    _check_closed(path, data, dialect, table, bad)
    chosen = pa.table({name: table[str(names.index(column))] for name, column in wanted.items()})
    return with_unreadable(chosen, bad)


def _first_record(path: str, head: bytes, dialect: Dialect) -> First:
    quoting: Any = csv.QUOTE_MINIMAL if dialect.quoting == "standard" else csv.QUOTE_NONE
    lines = io.StringIO(head.decode("utf-8", errors="replace"), newline="")
    csv.field_size_limit(len(head) + 1)  # a first value may be a long document
    reader = csv.reader(lines, delimiter=dialect.delimiter, quoting=quoting)
    try:
        values = next(record for record in reader if record)
    except StopIteration:
        raise DataError(f"{path}: the file is empty.") from None
    except csv.Error as error:
        raise DataError(f"{path}: line 1 cannot be read as a header ({error}); is this a text table?") from None
    return First([v.strip() for v in values] if dialect.header else values, reader.line_num)


def _parse(
    path: str, data: bytes, dialect: Dialect, names: list[str], skip: int
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return the rows, and for each row of another width its text and the reason."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    invalid: list[arrow_csv.InvalidRow] = []

    def collect(row: arrow_csv.InvalidRow) -> str:
        invalid.append(row)
        return "skip"

    if not data[_end_of_lines(data, skip) :].strip(b"\r\n"):
        return pa.table({name: pa.array([], pa.string()) for name in names}), []
    quoted = dialect.quoting == "standard"
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # one thread: only then are invalid rows numbered, in the file's order
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=skip, block_size=BLOCK_BYTES
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                invalid_row_handler=collect,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: cannot be parsed ({error}). {_quote_hint()}") from None
    return table, _reasons(data, invalid)


def _reasons(data: bytes, invalid: list) -> list[tuple[str, str]]:
    """Name the line of each invalid row: pyarrow counts records, which are not lines where values span several."""
    bad, position, line = [], 0, 1
    for row in invalid:
        found = _find_line(data, row.text.encode(), position)
        if found >= 0:
            line += data.count(b"\n", position, found)
            position = found
        where = f"line {line:,}" if found >= 0 else f"record {row.number:,}"
        columns = "1 column" if row.actual_columns == 1 else f"{row.actual_columns} columns"
        bad.append((row.text, f"unreadable row: {where} has {columns}, expected {row.expected_columns}"))
        position += 1 if found >= 0 else 0
    return bad


def _find_line(data: bytes, text: bytes, start: int) -> int:
    """Return where the line `text` begins at or after `start`; -1 where it is not found."""
    at = data.find(text, start)
    while at >= 0:
        end = data[at + len(text) : at + len(text) + 1]
        if (at == 0 or data[at - 1] in b"\r\n") and end in (b"", b"\n", b"\r"):
            return at
        at = data.find(text, at + 1)
    return -1


def _end_of_lines(data: bytes, count: int) -> int:
    """Return the offset after the first `count` lines."""
    at, end = 0, b"\n" if b"\n" in data else b"\r"
    for _ in range(count):
        at = data.find(end, at) + 1
        if at == 0:
            return len(data)
    return at


def _check_closed(path: str, data: bytes, dialect: Dialect, table: pa.Table, bad: list[tuple[str, str]]) -> None:
    """Refuse a file whose last value swallowed the lines after a quote that is opened and never closed."""
    if dialect.quoting == "none" or data.count(b'"') % 2 == 0:
        return
    ends = [raw for raw, _ in bad[-1:]]
    ends += [str(table.column(table.num_columns - 1)[-1].as_py() or "")] if len(table) else []
    for last in ends:
        at = data.rfind(last.rstrip("\n").encode()[:200]) if "\n" in last.rstrip("\n") else -1
        if at >= 0:
            line = data.count(b"\n", 0, at) + 1
            raise DataError(f"{path}: a quote opened in line {line:,} is never closed. {_quote_hint()}")


def _quote_hint() -> str:
    return "Where quotes are plain characters in this file, set quoting: none on the source."
