"""Validation passes counted over a trial's stages: what training tells, and what histories tell of the rest."""

from __future__ import annotations

import pytest

from ftlib.artifacts import GivenUp
from ftlib.progress import Progress
from ftlib.tuning.passes import Passes, StagePasses

STAGES = [StagePasses("train-full", 4, 4, "accuracy", 1), StagePasses("train-lora", 2, 3, "accuracy", 1)]


def event(step: str, done: float, total: float, score: float | None, name: str = "accuracy") -> Progress:
    return Progress(step, done, total, "steps", {} if score is None else {f"validation_{name}": score, "loss": 1.0})


def history(*scores: float) -> list[dict[str, float]]:
    rows = [{"step": i, "validation_accuracy": score, "validation_loss": 1.0} for i, score in enumerate(scores)]
    return [{"step": 0, "loss": 2.0}, *rows]


def heard(stages=STAGES):
    told: list[tuple[int, float]] = []
    return Passes(stages, lambda step, score: told.append((step, score))), told


def test_each_pass_is_told_once_over_all_stages():
    passes, told = heard()
    for done, score in ((3, None), (10, 0.5), (14, 0.5), (20, 0.6), (27, 0.6)):
        passes.hear(event("train-full", done, 40, score))
    passes.ended("train-full", history(0.5, 0.6, 0.7, 0.8))
    passes.hear(event("train-lora", 5, 10, 0.9))
    passes.ended("train-lora", history(0.9, 0.95))
    assert told == [(1, 0.5), (2, 0.6), (3, 0.7), (4, 0.8), (5, 0.9), (6, 0.95)]


def test_a_stage_from_the_cache_tells_what_it_would_have_told():
    computed, told = heard()
    computed.hear(event("train-full", 10, 40, 0.5))
    computed.ended("train-full", history(0.5, 0.6))
    cached, told_too = heard()
    cached.ended("train-full", history(0.5, 0.6))
    assert told == told_too


def test_a_stage_that_stops_early_does_not_shift_the_next():
    passes, told = heard()
    passes.hear(event("train-full", 20, 20, 0.4))  # its last word: the total is now where it stopped
    passes.ended("train-full", history(0.5, 0.4))
    passes.ended("train-lora", history(0.9))
    assert told == [(1, 0.5), (2, 0.4), (5, 0.9)]


def test_passes_between_epochs_are_told_when_they_are_made():
    passes, told = heard([StagePasses("train-full", 4, 4, "accuracy", 1)])  # two epochs of five steps, two passes each
    for done in (2, 5, 7):
        passes.hear(event("train-full", done, 10, done / 10))
    assert told == [(1, 0.2), (2, 0.5), (3, 0.7)]


def test_a_loss_counts_the_other_way_round():
    passes, told = heard([StagePasses("train-full", 2, 2, "loss", -1)])
    passes.hear(event("train-full", 10, 20, 0.75, "loss"))
    assert told == [(1, -0.75)]


def test_other_steps_and_undefined_scores_are_not_told():
    passes, told = heard()
    passes.hear(event("predict-full-validation", 10, 40, 0.5))
    passes.ended("train-other", history(0.5))
    passes.ended("train-full", history(float("nan"), 0.5))
    assert told == [(2, 0.5)]


def test_a_trial_that_is_not_wanted_is_given_up():
    passes = Passes(STAGES, lambda step, score: score < 0.5)
    passes.hear(event("train-full", 10, 40, 0.6))
    with pytest.raises(GivenUp):
        passes.hear(event("train-full", 20, 40, 0.4))
    with pytest.raises(GivenUp):
        passes.ended("train-lora", history(0.3))
