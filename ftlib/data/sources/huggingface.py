"""Hugging Face data sets: from the hub by id, or a folder saved by `datasets`.

Labels that the data set declares as classes are read by their names; the -1 that hub test splits carry in place of
a hidden label is a missing value. What is inside a column is named with a dot: translation.en. Without internet, what
an earlier run fetched is used.

    data:
      sources:
        train: {name: huggingface, path: nyu-mll/glue, config: sst2, split: train}
        test: {name: huggingface, path: nyu-mll/glue, config: sst2, split: validation}
      columns: {text: sentence}

Source: Lhoest et al. (2021), "Datasets: A Community Library for Natural Language Processing",
https://arxiv.org/abs/2109.02846.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ftlib.data.sources import _files
from ftlib.data.sources.base import Source
from ftlib.errors import DataError, unknown

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

HUB_SECONDS = 20.0
COMMIT = re.compile(r"[0-9a-f]{40}")


class Huggingface(Source):
    """A data set of the Hugging Face hub, or a local folder in its format."""

    example_path: ClassVar[str] = "nyu-mll/glue"

    quick: ClassVar[bool] = False

    config: str | None = None
    """The configuration, where the data set has several: sst2 of nyu-mll/glue."""

    split: str = "train"
    """The data set's own split to read; slices such as "train[:1000]" are understood."""

    revision: str | None = None
    """A branch, tag or commit of the hub's repository; the newest unless given."""

    def fingerprint(self) -> str:
        """Return a digest of the files of a folder, or of the hub's commit, with what is read of it."""
        content = _digest_folder(self._folder()) if self._folder() else self._commit()
        parts = (self.path if not self._folder() else "", self.config or "", self.split, content)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def columns(self) -> list[str]:
        """Return the names of the columns, and of what is inside them: translation.en."""
        dataset = self._load()
        return list(dict.fromkeys((*dataset.column_names, *dataset.flatten().column_names)))

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Return the rows, classes by their names."""
        import pyarrow as pa

        dataset = self._load()
        if not set(columns.values()) <= set(dataset.column_names):
            dataset = dataset.flatten()  # translation: {en, ro} becomes translation.en and translation.ro
        _files.pick(self._shown(), columns, list(dataset.column_names))
        if not len(dataset):
            raise DataError(f"{self._shown()}: has columns but no rows.")
        wanted = list(dict.fromkeys(columns.values()))
        table: pa.Table = dataset.select_columns(wanted).with_format("arrow")[:]
        named = {key: _named(table[key], dataset.features[key]) for key in wanted}
        return pa.table({name: named[column] for name, column in columns.items()})

    def _folder(self) -> Path | None:
        folder = Path(self.path).expanduser()
        return folder if self.path and folder.is_dir() else None

    def _shown(self) -> str:
        return f"{self.path}{f' ({self.config})' if self.config else ''}, split {self.split!r}"

    def _load(self) -> Dataset:
        if not self.path:
            raise DataError("huggingface needs a path: a hub id such as nyu-mll/glue, or a folder.")
        if not self._folder() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.path):
            raise DataError(f"{self.path}: no such folder, and not a hub id (user/name). Check the path.")
        folder = self._folder()
        if folder and ((folder / "state.json").exists() or (folder / "dataset_dict.json").exists()):
            return self._from_disk(folder)
        return self._from_hub()

    def _from_disk(self, folder: Path) -> Dataset:
        """Open what `save_to_disk` wrote."""
        import datasets

        try:
            found = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.path}: cannot be opened as a saved data set ({_first_line(error)}).") from None
        if isinstance(found, datasets.Dataset):
            return found
        if self.split not in found:
            raise DataError(f"{self.path}: {unknown('split', self.split, found)}")
        return found[self.split]

    def _from_hub(self) -> Dataset:
        """Load by id, or a folder of plain data files."""
        import datasets
        from huggingface_hub.errors import HTTPError  # of httpx or httpx2, as the hub's version has it

        commit = None if self._folder() else self._commit()
        try:
            dataset = datasets.load_dataset(self.path, name=self.config, split=self.split, revision=commit)
        except (datasets.exceptions.DatasetNotFoundError, OSError, HTTPError) as error:
            raise DataError(self._unreachable(error)) from None
        except (datasets.exceptions.DatasetsError, ValueError, RuntimeError, KeyError) as error:
            raise DataError(f"{self._shown()}: {_first_line(error)}") from None
        if commit:
            self._remember(commit, dataset)
        return dataset

    def _remember(self, commit: str, dataset: Dataset) -> None:
        """Note that the revision is this commit, for when the hub cannot be asked.

        Raises:
            DataError: If the rows are of another one: where the hub does not answer, `datasets` gives what it has.
        """
        for name in {Path(file["filename"]).parent.name for file in dataset.cache_files}:
            if COMMIT.fullmatch(name) and name != commit:
                raise DataError(
                    f"{self._shown()}: commit {commit} cannot be had: the Hugging Face hub does not answer, and this "
                    f"machine's cache of it has {name}. Give that as revision, or run where there is internet."
                )
        if self.revision != commit:
            reference = self._reference()
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)

    def _commit(self) -> str:
        """Return the commit that the revision stands for: asked of the hub, or remembered from an earlier run."""
        if self.revision and COMMIT.fullmatch(self.revision):
            return self.revision
        if not self.path:
            self._load()  # says what is missing
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, HTTPError

        try:
            found = HfApi().dataset_info(self.path, revision=self.revision, timeout=HUB_SECONDS)
        except HFValidationError:
            raise DataError(f"{self.path}: no such folder, and not a hub id (user/name). Check the path.") from None
        except (OSError, HTTPError) as error:
            known = self._known_commit()
            if known is None:
                raise DataError(self._unreachable(error)) from None
            return known
        return str(found.sha)

    def _known_commit(self) -> str | None:
        reference = self._reference()
        return reference.read_text().strip() if reference.is_file() else None

    def _reference(self) -> Path:
        """Return the file of the hub's cache that names a revision's commit; `datasets` itself writes none."""
        from huggingface_hub.constants import HF_HUB_CACHE

        repository = Path(HF_HUB_CACHE, f"datasets--{self.path.replace('/', '--')}")
        return repository / "refs" / (self.revision or "main")

    def _unreachable(self, error: BaseException) -> str:
        return (
            f"{self._shown()}: cannot be had: tried the Hugging Face hub and this machine's cache of it "
            f"({type(error).__name__}: {_first_line(error)[:120]}). Where there is no internet, give a file: "
            "--set data.sources.train=FILE (test, validation likewise); check the spelling otherwise."
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _digest_folder(folder: Path | None) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in (folder or Path()).rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{file.relative_to(folder or Path()).as_posix()}\n{_files.digest_file(str(file))}\n".encode())
    return digest.hexdigest()


def _named(column: pa.ChunkedArray, feature: Any) -> pa.ChunkedArray | pa.Array:
    """Return class ids, single or in lists, as names; other columns as they are."""
    import pyarrow as pa
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return _names_of(column, feature.names)
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if not isinstance(inner, ClassLabel):
        return column
    lists = pa.concat_arrays([chunk.cast(pa.list_(pa.int64())) for chunk in column.chunks])
    values = _names_of(lists.flatten(), inner.names)
    offsets = pa.compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).cumsum()
    starts = pa.array([0, *offsets.tolist()], pa.int32())
    return pa.ListArray.from_arrays(starts, values, mask=lists.is_null())


def _names_of(ids: pa.ChunkedArray | pa.Array, names: list[str]) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.if_else(pc.greater_equal(ids, 0), ids, pa.scalar(None, ids.type))
    return pc.take(pa.array(names, pa.string()), known)
