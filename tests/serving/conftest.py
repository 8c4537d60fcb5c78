"""Tiny packed models, made on the fly: two blocks of hidden size 16, words as tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.data.clean import Cleaning
from ftlib.problems.base import Problem
from ftlib.serving.packing import pack

WORDS = ["i", "was", "charged", "twice", "refund", "the", "app", "crashes", "password", "my", "a", "b", "c", "it", "is"]
PROBLEMS = {
    "single": {"name": "text_classification", "labels": ["account", "billing", "bug"]},
    "multi": {"name": "text_classification", "labels": ["account", "billing", "bug"], "multi_label": True},
    "pair": {"name": "text_pair_classification", "labels": ["different", "same"]},
    "value": {"name": "text_regression"},
}


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    for name in ("FTLIB_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def problem_of(kind: str) -> Problem:
    return Problem.model_validate(PROBLEMS[kind])


def make_checkpoint(folder: Path, problem: Problem, seed: int, *, lower: bool = True) -> Path:
    """Write a checkpoint of random weights, as a training step does."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from ftlib.models import checkpoints

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lower:
        words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), **sizes, max_position_embeddings=64, **problem.model_settings())
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.normal_(std=3.0)  # random weights that have an opinion
    settings = {"problem": problem.model_dump(mode="json"), "strategy": {"name": "full"}}
    checkpoints.save(checkpoints.Checkpoint(model.eval(), tokenizer, settings), folder)
    (folder / "history.json").write_text("[]")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a checkpoint of a problem by seed; equal ones are made once."""
    made: dict[tuple, Path] = {}

    def give(kind: str = "single", seed: int = 0, *, lower: bool = True) -> Path:
        key = (kind, seed, lower)
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp("checkpoint"), problem_of(kind), seed, lower=lower)
        return made[key]

    return give


@pytest.fixture
def packed(tmp_path: Path, checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Return a packed model: of one member unless a fusion and its combiner's folder are given."""

    def give(kind: str = "single", *, num_members: int = 1, fusion=None, cleaning: Cleaning | None = None) -> Path:
        folder = tmp_path / f"packed-{len(list(tmp_path.glob('packed-*')))}"
        folder.mkdir()
        members = {f"m{i}": checkpoint(kind, i) for i in range(num_members)}
        pack(
            folder,
            best="fused" if fusion else "m0",
            problem=problem_of(kind),
            cleaning=cleaning or Cleaning(),
            members=members,
            fusions={"fused": fusion} if fusion else {},
        )
        return folder

    return give
