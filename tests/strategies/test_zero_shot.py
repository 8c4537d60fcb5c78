"""Zero-shot of texts: the nearest description wins, by hand as sentence encoders compare, in a plain checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ftlib.data.encode import encode
from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.problems.base import Problem
from ftlib.strategies.zero_shot import ZeroShot
from ftlib.training import stage
from ftlib.training.stage import Training
from tests import contracts

PROBLEM = contracts.bound(Problem.named("text_classification")())
LABELS = PROBLEM.target.labels
TEXTS = [row["text"] for row in PROBLEM.examples()[:8]]


def answered(folder: Any, strategy: ZeroShot, problem: Problem, tmp_path: Any) -> Any:
    """Run the stage and return the saved checkpoint's folder."""
    stage.set_seed(3)
    checkpoint = checkpoints.load(folder, problem)
    rows = encode(contracts.labelled_rows(problem, 8), problem, checkpoint.tokenizer)[0]
    found = stage.train(
        checkpoint,
        rows,
        rows,
        problem=problem,
        strategy=strategy,
        settings=Training(),
        seed=1,
        scratch=tmp_path / "scratch",
        name="zero_shot",
    )
    checkpoints.save(found.checkpoint, tmp_path / "saved")
    return tmp_path / "saved"


def vectors(folder: Any, texts: list[str]) -> torch.Tensor:
    """Return mean-pooled vectors, centred and of length 1, by transformers alone."""
    with checkpoints.quiet():
        model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean - mean.mean(1, keepdim=True))


def logits(folder: Any, texts: list[str]) -> torch.Tensor:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits


@pytest.fixture
def base(tiny_model: Any) -> Any:
    return tiny_model("distilbert")  # its ReLU hands vectors on as they are; tanh bends them


def test_logits_are_scaled_cosines_with_the_descriptions(base: Any, tmp_path: Any):
    words = {LABELS[0]: ("how do I pay", "money back"), LABELS[1]: "it is broken"}
    saved = answered(base, ZeroShot(descriptions=words, template="about {label}", scale=10), PROBLEM, tmp_path)
    described = [["how do I pay", "money back"], ["it is broken"]]
    described += [[f"about {label.replace('_', ' ')}"] for label in LABELS[2:]]
    with torch.no_grad():
        directions = torch.stack([torch.nn.functional.normalize(vectors(base, d).mean(0), dim=0) for d in described])
        expected = 10 * vectors(base, TEXTS) @ directions.T
    torch.testing.assert_close(logits(saved, TEXTS), expected, atol=0.01, rtol=0)
    assert checkpoints.load(saved, PROBLEM).settings["num_trainable_parameters"] == 0


def test_of_a_set_a_label_counts_where_its_text_is_nearer_than_labels_are_to_each_other(base: Any, tmp_path: Any):
    problem = PROBLEM.model_copy(update={"multi_label": True})
    described = [label.replace("_", " ") for label in LABELS]
    checkpoint = checkpoints.load(base, problem)
    model = ZeroShot().adapt(checkpoint.model, problem)
    weight, bias = ZeroShot()._head(checkpoints.Checkpoint(model, checkpoint.tokenizer), problem)
    with torch.no_grad():
        similar = (vectors(base, described) @ vectors(base, described).T).numpy()
    between = similar[~np.eye(len(LABELS), dtype=bool)].mean()
    np.testing.assert_allclose(bias, -20 * between, atol=0.05)
    np.testing.assert_allclose(weight @ weight.T / 400, similar, atol=5e-3)


@pytest.mark.parametrize("name", ["token_classification", "text_pair_classification", "text_regression"])
def test_what_has_no_label_of_one_text_is_refused_by_name(name: str):
    with pytest.raises(UnsupportedError, match=f"zero_shot cannot answer {name}"):
        ZeroShot().check(Problem.named(name)())


def test_a_description_of_no_label_is_told_with_the_near_ones():
    with pytest.raises(UnsupportedError, match=f"unknown label '{LABELS[0]}x'. Did you mean '{LABELS[0]}'"):
        ZeroShot(descriptions={f"{LABELS[0]}x": "words"}).check(PROBLEM)
