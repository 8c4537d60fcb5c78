"""Served models of random weights for explanations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.data.clean import Cleaning
from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.serving.answering import Member, Served

PROBLEMS = {
    "single": {"name": "text_classification", "labels": ["account", "billing", "bug"]},
    "multi": {"name": "text_classification", "labels": ["account", "billing", "bug"], "multi_label": True},
    "pair": {"name": "text_pair_classification", "labels": ["different", "same"]},
    "value": {"name": "text_regression"},
    "relation": {"name": "relation_classification", "labels": ["born_in", "causes"]},
}


@pytest.fixture
def member(tiny_model: Callable[..., Path]) -> Callable[..., Member]:
    """Return a member with a random head that has an opinion, by problem, seed and architecture."""
    import torch

    def give(kind: str = "single", seed: int = 0, architecture: str = "bert", position: int = 0) -> Member:
        problem = Problem.model_validate(PROBLEMS[kind])
        torch.manual_seed(seed)
        checkpoint = checkpoints.load(tiny_model(architecture), problem)
        with torch.no_grad():
            for name, values in checkpoint.model.named_parameters():
                if name.startswith(("classifier", "score", "pre_classifier")) and values.ndim == 2:
                    values.normal_(std=0.3)
        return Member(f"m{seed}", position, checkpoint, f"{architecture}-{seed}", checkpoint.tokenizer)

    return give


@pytest.fixture
def served(member: Callable[..., Member]) -> Callable[..., Served]:
    """Return a served model of one member."""

    def give(kind: str = "single", **of: object) -> Served:
        problem = Problem.model_validate(PROBLEMS[kind])
        return Served("m0", problem, Cleaning(), (member(kind, **of),), None, 1)

    return give
