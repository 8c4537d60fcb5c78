from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ftlib.data.clean import Cleaning
from ftlib.errors import CheckpointError
from ftlib.files import read_json
from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.serving.packing import pack


def fitted(folder: Path, shares: tuple[float, ...], space: str = "scores") -> tuple[Fusion, Path]:
    folder.mkdir()
    WeightedMean("single_label", space, shares).save(folder)
    (folder / "validation.parquet").write_text("")
    return Fusion.named("weighted")(), folder


def digests(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_member_is_packed_alone(packed):
    folder = packed(num_members=3)
    about = read_json(folder / "model.json")
    assert (about["kind"], about["name"], about["fusion"]) == ("member", "m0", None)
    assert about["labels"] == ["account", "billing", "bug"]
    assert about["members"] == [{"name": "m0", "position": 0}]
    assert sorted(p.name for p in (folder / "members").iterdir()) == ["m0"]
    assert not (folder / "combiner").exists()


def test_only_what_answering_needs_is_packed(packed, tmp_path: Path):
    folder = packed(num_members=2, fusion=fitted(tmp_path / "fitted", (0.5, 0.5)))
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert not names & {"history.json", "validation.parquet", "manifest.json"}
    assert {"model.json", "combiner.json", "model.safetensors", "ftlib.json"} <= names


def test_members_at_weight_zero_are_left_out(packed, tmp_path: Path):
    folder = packed(num_members=3, fusion=fitted(tmp_path / "fitted", (0.25, 0.0, 0.75)))
    about = read_json(folder / "model.json")
    assert about["members"] == [{"name": "m0", "position": 0}, {"name": "m2", "position": 2}]
    assert about["num_members"] == 3
    assert sorted(p.name for p in (folder / "members").iterdir()) == ["m0", "m2"]


def test_packing_twice_gives_the_same_bytes(packed, tmp_path: Path):
    fusion = fitted(tmp_path / "fitted", (0.5, 0.5))
    assert digests(packed(num_members=2, fusion=fusion)) == digests(packed(num_members=2, fusion=fusion))


def test_nothing_packed_names_this_machine(packed, tmp_path: Path):
    folder = packed(num_members=2, fusion=fitted(tmp_path / "fitted", (0.5, 0.5)))
    assert not [p for p in folder.rglob("*") if p.is_file() and str(tmp_path.parent).encode() in p.read_bytes()]


def test_an_unknown_best_is_answered_with_the_near_names(tmp_path: Path, checkpoint):
    with pytest.raises(CheckpointError, match=r"unknown member or fusion 'ful'\. Did you mean 'full'"):
        pack(
            tmp_path,
            best="ful",
            problem=Problem.model_validate({"name": "text_classification", "labels": ["account", "billing", "bug"]}),
            cleaning=Cleaning(),
            members={"full": checkpoint()},
            fusions={},
        )
