"""Data steps: collect, clean, split, encode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.artifacts import Draft
from ftlib.data.clean import Cleaning
from ftlib.data.sources.base import Source
from ftlib.data.split import Splitting
from ftlib.problems.base import Problem
from ftlib.steps import Step


class Collect(Step):
    """Read every source into one table of raw rows."""

    libraries = ("pyarrow", "datasets")

    sources: dict[str, Source]
    columns: dict[str, str | tuple[str, ...]]
    files: tuple[str, ...] = ()
    folder: str | None = None
    unlabelled: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return a digest of the sources' content, and of the files that their rows name."""
        from ftlib.data.collect import fingerprint

        return fingerprint(self.sources, self.columns, files=self.files, folder=self.folder)

    def parameters(self) -> dict[str, Any]:
        """Leave paths out: the content is in the fingerprint."""
        sources = {split: source.model_dump(mode="json", exclude={"path"}) for split, source in self.sources.items()}
        return {"sources": sources, "columns": self.columns, "files": list(self.files),
                "unlabelled": list(self.unlabelled)}  # fmt: skip

    def run(self, draft: Draft) -> None:  # type: ignore[override]
        """Write rows.parquet and collect.json."""
        from ftlib.data.collect import collect
        from ftlib.files import write_json, write_table

        rows = collect(self.sources, self.columns, files=self.files, folder=self.folder, unlabelled=self.unlabelled)
        write_table(draft.folder / "rows.parquet", rows.table)
        write_json(draft.folder / "collect.json", rows.summary)


class Clean(Step):
    """Repair rows, and reject with a reason those that cannot be."""

    libraries = ("pyarrow", "ftfy")

    problem: Problem
    cleaning: Cleaning

    def run(self, draft: Draft, rows: Path) -> None:  # type: ignore[override]
        """Write rows.parquet, rejected.parquet and cleaning.json."""
        from ftlib.data.clean import clean
        from ftlib.files import read_table, write_json, write_table

        cleaned = clean(read_table(rows / "rows.parquet"), self.problem, self.cleaning)
        write_table(draft.folder / "rows.parquet", cleaned.table)
        write_table(draft.folder / "rejected.parquet", cleaned.rejected)
        write_json(draft.folder / "cleaning.json", cleaned.summary)


class Split(Step):
    """Divide rows into splits that share no row and no group."""

    libraries = ("pyarrow", "numpy", "scikit-learn")

    problem: Problem
    splitting: Splitting
    seed: int

    def run(self, draft: Draft, rows: Path) -> None:  # type: ignore[override]
        """Write one Parquet file a split, rejected.parquet, problem.json (labels filled in) and splits.json."""
        from ftlib.data.split import split
        from ftlib.files import read_table, write_json, write_table

        splits = split(read_table(rows / "rows.parquet"), self.problem, self.splitting, seed=self.seed)
        for name, table in splits.tables.items():
            write_table(draft.folder / f"{name}.parquet", table)
        write_table(draft.folder / "rejected.parquet", splits.rejected)
        write_json(draft.folder / "problem.json", splits.problem.model_dump(mode="json"))
        write_json(draft.folder / "splits.json", splits.summary)


class Encode(Step):
    """Turn rows into token ids and label ids, once for every stage that shares the tokenizer."""

    libraries = ("pyarrow", "tokenizers", "transformers")

    problem: Problem

    def run(self, draft: Draft, splits: Path, checkpoint: Path) -> None:  # type: ignore[override]
        """Write one Parquet file a split, problem.json and encoding.json."""
        from ftlib.data.collect import UNLABELLED
        from ftlib.data.encode import encode
        from ftlib.files import read_json, read_table, write_json, write_table
        from ftlib.models import families

        bound = read_json(splits / "problem.json")
        problem = Problem.model_validate(bound)
        families.check(checkpoint, problem)
        tokenizer = problem.load_tokenizer(checkpoint)
        summary = {}
        for path in sorted(splits.glob("*.parquet")):
            if path.stem != "rejected":
                rows, is_labelled = read_table(path), path.stem != UNLABELLED
                table, summary[path.stem] = encode(rows, problem, tokenizer, is_labelled=is_labelled)
                write_table(draft.folder / path.name, table)
        write_json(draft.folder / "problem.json", bound)
        write_json(draft.folder / "encoding.json", summary)
