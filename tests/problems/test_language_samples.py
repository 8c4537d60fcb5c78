"""The samples of problems on language models, shrunk, run to the end: one answer in training, in batches and served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.samples import check_one_answer, run_sample

SHRUNK = ["training.num_train_epochs=1", "stages.1.training.num_train_epochs=1", "stages.2.training.num_train_epochs=1",
          "evaluation.bootstrap_samples=100"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_rows", "atol"),
    [
        ("masked_language_modeling", 120, 1e-4),
        ("causal_language_modeling", 120, 0.1),  # perplexities and sums over tokens, in the hundreds
        ("text_generation", 150, 1e-4),
        ("dialogue", 120, 1e-4),
    ],
)
def test_a_sample_runs_and_its_model_answers_alike_everywhere(name: str, num_rows: int, atol: float, tmp_path: Path):
    run = run_sample(name, tmp_path, [f"data.sources.all.num_rows={num_rows}", *SHRUNK])
    found = run.evaluation
    for member in found["members"]:
        assert member["metrics"]["test"]["perplexity"] > 1
    assert len(found["members"]) == 3
    check_one_answer(run, atol=atol)
