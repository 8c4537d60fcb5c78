"""Columns of files: paths become content, so that content decides."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect, fingerprint
from ftlib.data.contents import read_contents
from ftlib.data.sources.base import Source
from ftlib.data.sources.huggingface import Huggingface
from ftlib.data.sources.sample_shapes import SampleShapes
from ftlib.errors import DataError
from ftlib.problems.image_text_classification import ImageTextClassification
from ftlib.serving.reading import read_rows

COLUMNS = {"image": "file", "label": "label"}
FILES = ("image",)
PICTURES = [row["image"] for row in ImageTextClassification.examples()]


@pytest.fixture
def photos(tmp_path: Path) -> Source:
    """A table of paths beside its pictures; two names for one picture, and one that leads nowhere."""
    (tmp_path / "photos").mkdir()
    for name, content in (("a.png", PICTURES[0]), ("b.png", PICTURES[1]), ("copy.png", PICTURES[0])):
        (tmp_path / "photos" / name).write_bytes(content)
    lines = [("photos/a.png", "x"), ("photos/b.png", "y"), ("photos/copy.png", "x"), ("photos/gone.png", "y")]
    rows = "".join(json.dumps({"file": file, "label": label}) + "\n" for file, label in lines)
    (tmp_path / "rows.jsonl").write_text(f"{rows}not JSON\n")
    return Source.model_validate(str(tmp_path / "rows.jsonl"))


def test_paths_start_at_the_source_s_folder_and_become_what_the_files_hold(photos: Source):
    table = collect({"all": photos}, COLUMNS, files=FILES).table
    assert table["image"].to_pylist() == [PICTURES[0], PICTURES[1], PICTURES[0], None, None]
    assert table["unreadable"][3].as_py() == "unreadable image: no such file 'photos/gone.png'"
    assert table["unreadable"][4].as_py().startswith("unreadable row: line 5 is not JSON")


def test_the_same_picture_under_two_names_is_a_duplicate(photos: Source):
    table = collect({"all": photos}, COLUMNS, files=FILES).table
    cleaned = clean(table, ImageTextClassification(), Cleaning(max_rejected_ratio=1))
    assert cleaned.table["row_id"].to_pylist() == [0, 1]
    assert cleaned.summary["rejected"] == {"duplicate": 1, "unreadable image": 1, "unreadable row": 1}


def test_a_folder_may_be_given_and_must_exist(photos: Source, tmp_path: Path):
    (tmp_path / "elsewhere" / "photos").mkdir(parents=True)
    (tmp_path / "elsewhere" / "photos" / "a.png").write_bytes(PICTURES[2])
    table = collect({"all": photos}, COLUMNS, files=FILES, folder=str(tmp_path / "elsewhere")).table
    assert table["image"].to_pylist() == [PICTURES[2], None, None, None, None]
    with pytest.raises(DataError, match=r"data\.folder: nowhere: no such folder"):
        collect({"all": photos}, COLUMNS, files=FILES, folder="nowhere")


def test_a_changed_picture_changes_the_fingerprint_and_its_name_does_not(photos: Source, tmp_path: Path):
    def digest() -> str:
        return fingerprint({"all": photos}, COLUMNS, files=FILES)

    before = digest()
    assert before == digest() != fingerprint({"all": photos}, COLUMNS)
    (tmp_path / "photos" / "b.png").write_bytes(PICTURES[3])
    assert digest() != before


def test_a_file_comes_as_bytes_path_record_or_data_uri(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"content")
    uri = f"data:image/png;base64,{base64.b64encode(b'content').decode()}"
    given = [b"content", "a.png", {"bytes": b"content", "path": "x"}, {"bytes": None, "path": "a.png"}, uri]
    assert read_contents(given, "image", tmp_path).values.to_pylist() == [b"content"] * 5
    strange = read_contents([None, "", b"", "data:image/png,abc", "no\0name", 3.5], "image", tmp_path)
    assert strange.values.null_count == 6
    assert strange.reasons.to_pylist() == [
        None, None, "empty image", "unreadable image: not a data URI in base64",
        "unreadable image: no path 'no\\x00name'", None]  # fmt: skip


def test_predicting_reads_paths_from_the_file_s_folder(photos: Source):
    rows = read_rows(photos, {"image": "file"}, FILES)
    assert rows.needed["image"].to_pylist() == [PICTURES[0], PICTURES[1], PICTURES[0], None, None]
    assert rows.own["file"][0].as_py() == "photos/a.png"
    assert rows.unreadable.null_count == 3


def test_images_of_the_hub_are_read_without_decoding_them(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [{"bytes": PICTURES[0], "path": "0.png"}, None], "label": [1, 0]}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict(rows, features=features))
    source = Huggingface(path="some/pictures", revision="0" * 40)
    table = collect({"all": source}, {"image": "img", "label": "label"}, files=FILES).table
    assert table["image"].to_pylist() == [PICTURES[0], None]
    assert table["label"].to_pylist() == ["dog", "cat"]


def test_parquet_bytes_pass_through(tmp_path: Path):
    pq.write_table(pa.table({"file": PICTURES[:2], "label": ["a", "b"]}), tmp_path / "rows.parquet")
    source = Source.model_validate(str(tmp_path / "rows.parquet"))
    table = collect({"all": source}, COLUMNS, files=FILES).table
    assert table["image"].to_pylist() == PICTURES[:2]
    assert table["image"].type == pa.large_binary()


# -- the sample ----------------------------------------------------------------------------------------


def test_the_sample_is_the_same_for_a_seed_and_as_untidy_as_it_says():
    source = SampleShapes(num_rows=300, seed=5, damaged_ratio=0.1)
    columns = {name: name for name in source.columns()}
    table = source.read(columns)
    assert table == source.read(columns)
    assert source.fingerprint() != SampleShapes(num_rows=300, seed=6, damaged_ratio=0.1).fingerprint()
    rows = table.select(["image", "label"]).add_column(0, "split", pa.array(["all"] * 300))
    cleaned = clean(rows.add_column(0, "row_id", pa.array(range(300))), ImageTextClassification(), Cleaning())
    assert set(cleaned.summary["rejected"]) >= {"unreadable image", "duplicate", "empty image", "missing label"}
    assert len(set(cleaned.table["label"].to_pylist())) == 12


def test_the_sample_leaves_combinations_out_and_names_near_ones():
    drawn = set(
        SampleShapes(num_rows=200, without=("red circle",), missing_ratio=0).read({"l": "label"})["l"].to_pylist()
    )
    assert len(drawn) == 11
    assert "red circle" not in drawn
    with pytest.raises(DataError, match=r"unknown combination 'red circel'. Did you mean 'red circle'"):
        SampleShapes(only=("red circel",)).read({"l": "label"})
