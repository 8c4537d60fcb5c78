"""Served models of random weights for explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

HEADS = ("classifier", "score", "pre_classifier", "qa_outputs", "classification_head")


@pytest.fixture
def member(tiny_model: Callable[..., Path]) -> Callable[..., Member]:
    """Return a member with a random head that has an opinion, by problem, seed and architecture."""
    import torch

    def give(kind: str | Problem = "single", seed: int = 0, architecture: str = "bert", position: int = 0) -> Member:
        problem = kind if isinstance(kind, Problem) else Problem.model_validate(PROBLEMS[kind])
        torch.manual_seed(seed)
        checkpoint = checkpoints.load(tiny_model(architecture), problem)
        with torch.no_grad():
            for name, values in checkpoint.model.named_parameters():
                if name.startswith(HEADS) and values.ndim == 2:
                    values.normal_(std=0.3)
        return Member(f"m{seed}", position, checkpoint, f"{architecture}-{seed}")

    return give


@pytest.fixture
def served(member: Callable[..., Member]) -> Callable[..., Served]:
    """Return a served model of one member."""

    def give(kind: str | Mapping[str, Any] = "single", **of: Any) -> Served:
        problem = Problem.model_validate(PROBLEMS[kind] if isinstance(kind, str) else kind)
        return Served("m0", problem, Cleaning(), (member(problem, **of),), None, 1)

    return give
