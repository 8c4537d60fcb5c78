from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftlib.data.sources.base import Source
from ftlib.data.sources.huggingface import Huggingface
from ftlib.errors import DataError
from tests.hub import COMMIT, serving

datasets = pytest.importorskip("datasets")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of one data set with classes, a hidden test label and a list of classes."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **kwargs: SimpleNamespace(sha=COMMIT))
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "tags": datasets.List(datasets.ClassLabel(names=["a", "b", "c"])),
        }
    )
    rows = {"sentence": ["bad", "good", "?"], "label": [0, 1, -1], "tags": [[0, 2], [], None]}
    asked = []

    def load_dataset(path, *, name=None, split=None, revision=None):
        asked.append((path, name, split, revision))
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HTTPError

    def refuse(*args, **kwargs):
        raise HTTPError("no internet")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(datasets, "load_dataset", refuse)


def test_classes_are_read_by_name_and_minus_one_is_missing(hub):
    source = Huggingface(path="some/reviews", config="movies", split="test", revision="v1")
    table = source.read({"text": "sentence", "label": "label"})
    assert table.to_pydict() == {"text": ["bad", "good", "?"], "label": ["negative", "positive", None]}
    assert hub == [("some/reviews", "movies", "test", COMMIT)]


def test_lists_of_classes_are_read_by_name(hub):
    assert Huggingface(path="some/reviews").read({"label": "tags"})["label"].to_pylist() == [["a", "c"], [], None]


def test_a_wrong_column_is_answered_with_the_near_names(hub):
    with pytest.raises(DataError, match="Did you mean 'sentence'"):
        Huggingface(path="some/reviews").read({"text": "sentense", "label": "label"})


def test_without_internet_the_error_says_what_was_tried_and_what_to_give(offline):
    source = Huggingface(path="some/reviews", split="train")
    for ask in (source.fingerprint, lambda: source.read({"text": "text"})):
        with pytest.raises(DataError, match=r"hub and this machine's cache.*--set data\.sources\.train=FILE") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_without_internet_the_commit_of_an_earlier_run_is_known(offline, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "datasets--some--reviews" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    remembered = Huggingface(path="some/reviews").fingerprint()
    assert remembered == Huggingface(path="some/reviews", revision=COMMIT).fingerprint()


def test_the_fingerprint_is_of_the_commit_and_of_what_is_read_of_it(monkeypatch):
    import huggingface_hub

    newest = SimpleNamespace(sha=COMMIT)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **kwargs: newest)
    same = {Huggingface(path="a/b").fingerprint(), Huggingface(path="a/b", revision="main").fingerprint()}
    assert len(same) == 1
    others = {Huggingface(path="a/b", split="test").fingerprint(), Huggingface(path="a/b", config="x").fingerprint()}
    newest.sha = COMMIT[::-1]
    assert len(same | others | {Huggingface(path="a/b").fingerprint()}) == 4


@pytest.mark.parametrize("path", ["", "no/such/folder/here", "a folder"])
def test_a_path_that_is_neither_folder_nor_hub_id_is_said_so(path: str):
    source = Huggingface(path=path)
    for ask in (source.fingerprint, source.columns):
        with pytest.raises(DataError, match="hub id"):
            ask()


def test_a_folder_of_plain_files_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    (folder / "test.jsonl").write_text('{"text": "c", "label": "x"}\n')
    source = Source.model_validate({"name": "huggingface", "path": str(folder), "split": "test"})
    before = source.fingerprint()
    assert source.read({"text": "text", "label": "label"}).to_pylist() == [{"text": "c", "label": "x"}]
    (folder / "test.jsonl").write_text('{"text": "d", "label": "x"}\n')
    assert source.fingerprint() != before


def test_a_saved_data_set_is_read_and_a_wrong_split_named(tmp_path):
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"], "label": [1]})})
    saved.save_to_disk(tmp_path / "saved")
    assert Huggingface(path=str(tmp_path / "saved")).columns() == ["text", "label"]
    with pytest.raises(DataError, match="unknown split 'tets'"):
        Huggingface(path=str(tmp_path / "saved"), split="tets").columns()


READ = """
import sys

from ftlib.data.sources.huggingface import Huggingface

source = Huggingface(path="some/reviews", revision=sys.argv[1] or None)
print(source.fingerprint())
print(source.read({"text": "sentence", "label": "label"}).to_pydict())
"""


def test_rows_of_the_hub_are_read_and_found_again_without_it(tmp_path: Path):
    """In a process of its own, as the hub's address is read once; and by the real client, against a server."""
    source = tmp_path / "source"
    source.mkdir()
    rows = [{"sentence": "a bad film", "label": "no"}, {"sentence": "a good one", "label": "yes"}]
    (source / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def read(revision: str = "") -> tuple[list[str], str]:
        command = [sys.executable, "-c", READ, revision]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.stdout.splitlines(), done.stderr

    with serving({"datasets/some/reviews": source}, tmp_path / "cache") as environment:
        (fingerprint, found), _ = read()
    assert found == str({"text": ["a bad film", "a good one"], "label": ["no", "yes"]})
    environment["HF_HUB_OFFLINE"] = "1"  # else the client asks for half a minute before it gives the hub up
    assert read()[0] == [fingerprint, found]
    assert read(COMMIT)[0] == [fingerprint, found]
    assert f"commit {'a' * 40} cannot be had" in read("a" * 40)[1]
    assert "cannot be had" in read("v2")[1]
