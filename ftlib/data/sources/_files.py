"""What the file sources share: opening a file, its digest, and the proof that it is UTF-8 text."""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ftlib.data.sources.base import COMPRESSED, UNREADABLE
from ftlib.errors import DataError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_BYTES = 1 << 20
SLICE_BYTES = 8 << 20

# First bytes of files that are often given a wrong ending.
MAGIC = {
    b"\x1f\x8b": "a gzip file; give it the ending .gz",
    b"BZh": "a bzip2 file; give it the ending .bz2",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; give it the ending .zst",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"PAR1": "a Parquet file; use {name: parquet, path: ...}",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"%PDF": "a PDF",
    b"SQLite format 3\x00": "an SQLite database; export the table as CSV",
    b"\x80\x04\x95": "a Python pickle, which is refused since opening one runs what is in it; save it as Parquet",
    b"\x80\x05\x95": "a Python pickle, which is refused since opening one runs what is in it; save it as Parquet",
}
BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def existing_file(path: str) -> Path:
    """Return the path of a file that is there and can be read.

    Raises:
        DataError: If there is none; the message holds the near names.
    """
    if not path:
        raise DataError("a source needs a path: {name: csv, path: data/train.csv}, or the path alone.")
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise DataError(
                f"{path}: is a folder, expected a file. Name one file in it{_some_files(file)}; "
                "a folder saved by `datasets` is read by {name: huggingface, path: ...}."
            )
        if not file.exists():
            what = "is a link that leads to no file." if file.is_symlink() else "no such file."
            raise DataError(f"{path}: {what}{_near_files(file)} Paths start at the current folder.")
        if not file.is_file():  # opening a pipe would wait for a writer
            raise DataError(f"{path}: is a pipe or a device, expected a file; write the rows into one first.")
        with file.open("rb"):
            return file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file's permissions.") from None


def digest_file(path: str) -> str:
    """Return the sha256 of a file's bytes, hex."""
    with existing_file(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_head(path: str) -> bytes:
    """Return the first bytes of a text file (decompressed), without byte-order mark, proven to be UTF-8 as far."""
    data = _first_look(path, _read(path, HEAD_BYTES))
    _check_utf8(path, data, whole=len(data) < HEAD_BYTES)
    return _without_mark(data)


def read_text(path: str) -> bytes:
    """Return the bytes of a text file (decompressed), without byte-order mark, proven to be UTF-8.

    Raises:
        DataError: If it is empty, of another kind, or not UTF-8: byte offset and line are named.
    """
    data = _first_look(path, _read(path, -1))
    _check_utf8(path, data)
    return _without_mark(data)


def told_by_magic(data: bytes) -> str | None:
    """Return what a file is by its first bytes, and what to do with it; None where they say nothing."""
    return next((what for magic, what in MAGIC.items() if data.startswith(magic)), None)


def pick(path: str, wanted: Mapping[str, str], available: list[str], remedy: str = "") -> None:
    """Check that a source has the wanted columns, each once.

    Args:
        path: What messages call the source.
        wanted: The problem's column -> the source's column.
        available: The source's columns.
        remedy: What else to look at where a column is not found.

    Raises:
        DataError: One line for every column that is missing (with the near names) or there twice.
    """
    missing = [column for column in wanted.values() if column not in available]
    if len(available) == 1 and missing and (found := [mark for mark in ";\t,|" if mark in available[0]]):
        raise DataError(f"{path}: the whole header was read as one column; is the delimiter {found[0]!r}?")
    lines = []
    for name, column in wanted.items():
        if column not in available:
            shown = [found if len(found) <= 60 else f"{found[:57]}..." for found in available]
            lines.append(f"{path}: {unknown('column', column, shown, remedy=_remedy(name, available, remedy))}")
        elif available.count(column) > 1:
            lines.append(f"{path}: the header has {column!r} {available.count(column)} times; name each column once.")
    if lines:
        raise DataError("\n".join(lines))


def with_unreadable(table: pa.Table, bad: list[tuple[str, str]]) -> pa.Table:
    """Return the table with its unreadable rows at the end.

    Args:
        table: The rows that could be read.
        bad: For each other row its raw text and the reason.
    """
    import pyarrow as pa

    if not bad:
        return table
    first = table.column_names[0]
    is_list = pa.types.is_list(table[first].type)
    raw = pa.array([[raw] if is_list else raw for raw, _ in bad])
    rest = {field.name: pa.nulls(len(bad), field.type) if field.name != first else raw for field in table.schema}
    good = table.set_column(0, first, table[first].cast(raw.type)) if table[first].type != raw.type else table
    good = good.append_column(UNREADABLE, pa.nulls(len(table), pa.string()))
    return pa.concat_tables([good, pa.table({**rest, UNREADABLE: pa.array([why for _, why in bad])})])


def _remedy(name: str, available: list[str], more: str) -> str:
    if name == "group":
        return "It is named by splitting.group_column."
    if name.startswith("slice:"):
        return "It is named by evaluation.slices."
    if available and available == [str(i) for i in range(len(available))]:
        return f"The columns are read as positions, 0 to {len(available) - 1}: set data.columns.{name}."
    return f"Say which one holds the {name}: data.columns.{name}. {more}"


def _some_files(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""


def _near_files(file: Path) -> str:
    if not file.parent.is_dir():
        return f" The folder {str(file.parent)!r} does not exist either."
    others = [p.name for p in file.parent.iterdir() if p.name != file.name]
    near = difflib.get_close_matches(file.name, others, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(str(file.parent / n)) for n in near)}?" if near else ""


def _read(path: str, size: int) -> bytes:
    """Return the first `size` bytes, all for -1, decompressed where the ending says so."""
    file = existing_file(path)
    if PurePath(path).suffix.lower().lstrip(".") not in COMPRESSED:
        with file.open("rb") as handle:
            return handle.read(size)
    import pyarrow as pa

    try:
        with pa.input_stream(str(file), compression="detect") as stream:
            return bytes(stream.read(None if size < 0 else size))
    except (OSError, pa.ArrowException) as error:
        ending = PurePath(path).suffix
        raise DataError(f"{path}: is not the {ending} file that its ending says, or is damaged ({error}).") from None


def _first_look(path: str, data: bytes) -> bytes:
    if not data.strip(b" \t\r\n"):
        raise DataError(f"{path}: the file is empty.")
    for mark, encoding in BOMS.items():
        if data.startswith(mark):
            raise DataError(_not_utf8(path, f"is {encoding} text", encoding))
    kind = told_by_magic(data)
    if kind:
        raise DataError(f"{path}: is not text but {kind}.")
    sample = data[:4096]
    if sample.count(b"\x00") > len(sample) // 4:  # Latin text in UTF-16 is every other byte NUL
        raise DataError(_not_utf8(path, "is UTF-16 text without a byte-order mark, or no text at all", "UTF-16LE"))
    return data


def _check_utf8(path: str, data: bytes, *, whole: bool = True) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), SLICE_BYTES):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + SLICE_BYTES], final=whole and start + SLICE_BYTES >= len(data))
        except UnicodeDecodeError as error:
            offset = start - held + error.start
            line = data.count(b"\n", 0, offset) + 1
            what = f"is not UTF-8: byte 0x{data[offset]:02x} at offset {offset:,}, line {line:,}"
            if b"\x00" in data[:4096]:
                raise DataError(f"{path}: {what}. It looks like no text at all; is it the right file?") from None
            raise DataError(_not_utf8(path, what, "WINDOWS-1252")) from None


def _not_utf8(path: str, what: str, encoding: str) -> str:
    return f"{path}: {what}. Convert it, for example: iconv -f {encoding} -t UTF-8 {path} > converted"


def _without_mark(data: bytes) -> bytes:
    return data.removeprefix(codecs.BOM_UTF8)
