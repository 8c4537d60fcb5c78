"""Hidden words: which are hidden, what is learned of them, and how a mixture of models is measured."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from ftlib.data.encode import encode
from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.evaluation.measures import measure
from ftlib.fusion.averaging import Averaging
from ftlib.fusion.base import Fusion
from ftlib.fusion.weighted import Weighted
from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict
from ftlib.problems.masked_language_modeling import MaskedLanguageModeling, hide
from ftlib.targets.losses import IGNORED
from tests.problems.language_models import TinyModel, batch_of, encoded, opened

PROBLEM = MaskedLanguageModeling(mask_ratio=0.3, num_candidates=5)
ROWS = PROBLEM.examples()


@pytest.fixture(scope="module")
def first(tiny_model: TinyModel) -> Checkpoint:
    return opened(PROBLEM, tiny_model("bert"))


@pytest.fixture(scope="module")
def second(tiny_model: TinyModel) -> Checkpoint:
    return opened(PROBLEM, tiny_model("bert"), seed=4)


def whole_logits(checkpoint: Checkpoint, batch: dict) -> torch.Tensor:
    """Return plain transformers' logits at every place."""
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return checkpoint.model(**inputs).logits


# -- what is hidden ------------------------------------------------------------------------------------


def test_of_the_chosen_tokens_eight_in_ten_are_masked_and_one_in_ten_is_random():
    ids, random = np.arange(100, 20_100), np.random.default_rng(0)
    hidden, labels = hide(ids, np.ones(len(ids), bool), 0.15, 3, 50_000, random)
    chosen = labels != IGNORED
    assert chosen.mean() == pytest.approx(0.15, abs=1e-3)
    assert (labels[chosen] == ids[chosen]).all()
    assert (hidden[~chosen] == ids[~chosen]).all()
    assert (hidden[chosen] == 3).mean() == pytest.approx(0.8, abs=0.03)
    assert (hidden[chosen] == ids[chosen]).mean() == pytest.approx(0.1, abs=0.03)


def test_a_text_is_hidden_alike_wherever_it_stands_and_special_tokens_never(first: Checkpoint):
    one = encoded(PROBLEM, ROWS, first.tokenizer)
    other = encoded(PROBLEM, ROWS[::-1], first.tokenizer)
    assert one["input_ids"].to_pylist() == other["input_ids"].to_pylist()[::-1]
    special = set(first.tokenizer.all_special_ids)
    for labels in one["labels"].to_pylist():
        hidden = [label for label in labels if label != IGNORED]
        assert hidden
        assert not special & set(hidden)


def test_masks_are_drawn_anew_at_each_step_and_alike_for_the_same_step(first: Checkpoint):
    batch = batch_of(encoded(PROBLEM, ROWS, first.tokenizer), first, PROBLEM)
    one, again, other = (PROBLEM.draw(batch, seed) for seed in ((1, 5), (1, 5), (1, 6)))
    assert torch.equal(one["input_ids"], again["input_ids"])
    assert not torch.equal(one["labels"], other["labels"])
    plain = first.tokenizer([row["text"] for row in ROWS], padding=True)["input_ids"]
    for drawn in (one, other):
        back = torch.where(drawn["labels"] >= 0, drawn["labels"], drawn["input_ids"])
        assert back.tolist() == plain
        assert ((drawn["labels"] != IGNORED).sum(1) > 0).all()


def test_a_student_keeps_the_masks_that_its_teacher_saw(first: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    taught = PROBLEM.teach(rows, [predict(first, rows, PROBLEM).table])
    batch = batch_of(taught, first, PROBLEM)
    assert PROBLEM.draw(batch, (1, 5)) is batch


def test_a_tokenizer_without_a_mask_is_one_clear_line(tiny_model: TinyModel):
    from ftlib.models.checkpoints import load_tokenizer

    with pytest.raises(CheckpointError, match=r"mask token.*causal_language_modeling"):
        encode(pa.table({"row_id": [1], "text": ["a"]}), PROBLEM, load_tokenizer(tiny_model("gpt2")))


# -- what is learned -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_loss_is_transformers_own_on_hidden_tokens_alone(family: str, tiny_model: TinyModel):
    checkpoint = opened(PROBLEM, tiny_model(family))
    batch = batch_of(encoded(PROBLEM, ROWS, checkpoint.tokenizer), checkpoint, PROBLEM)
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask", "token_type_ids", "labels") if n in batch}
    with torch.no_grad():
        logits = PROBLEM.forward(checkpoint.model, batch)
        assert logits.shape == (int((batch["labels"] != IGNORED).sum()), len(checkpoint.tokenizer))
        torch.testing.assert_close(PROBLEM.loss(logits, batch), checkpoint.model(**inputs).loss)


def test_a_student_that_sees_the_whole_vocabulary_learns_the_divergence(first: Checkpoint, second: Checkpoint):
    problem = PROBLEM.model_copy(update={"num_candidates": len(first.tokenizer)})
    rows = encoded(problem, ROWS, first.tokenizer)
    batch = batch_of(problem.teach(rows, [predict(first, rows, problem).table]), first, problem)
    with torch.no_grad():
        student, teacher = problem.forward(second.model, batch), problem.forward(first.model, batch)
    logs = [logits.log_softmax(-1) for logits in (student, teacher)]
    expected = F.kl_div(*logs, log_target=True, reduction="batchmean")
    found = problem.distillation_loss(student, batch, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert float(problem.distillation_loss(teacher, batch, 2.0)) == pytest.approx(0, abs=1e-3)


def test_several_teachers_teach_the_mean_of_their_distributions(first: Checkpoint, second: Checkpoint):
    problem = PROBLEM.model_copy(update={"num_candidates": len(first.tokenizer)})
    rows = encoded(problem, ROWS, first.tokenizer)
    batch = batch_of(problem.teach(rows, [predict(c, rows, problem).table for c in (first, second)]), first, problem)
    with torch.no_grad():
        mean = sum(problem.forward(c.model, batch).softmax(-1) for c in (first, second)) / 2
    assert float(problem.distillation_loss(mean.log(), batch, 1.0)) == pytest.approx(0, abs=1e-3)


# -- how it is measured --------------------------------------------------------------------------------


def scored(members: list[Checkpoint], rows: pa.Table):
    tables = [predict(c, rows, PROBLEM).table for c in members]
    values, layout = PROBLEM.align(tables, rows)
    return values, PROBLEM.target.over(layout), PROBLEM.references(rows, layout), layout


def test_perplexity_and_accuracy_are_those_of_all_logits(first: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    values, target, references, _ = scored([first], rows)
    batch = batch_of(rows, first, PROBLEM)
    logits, gold = whole_logits(first, batch), batch["labels"]
    found = target.metrics(values[0], references)
    assert found["log_loss"] == pytest.approx(float(F.cross_entropy(logits.flatten(0, 1), gold.flatten())), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["log_loss"]))
    hidden = gold != IGNORED
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == gold)[hidden].float().mean()))
    assert PROBLEM.measure(first, rows) == pytest.approx({"loss": found["log_loss"], **found})


def test_the_mean_of_two_members_has_exactly_the_mixture_s_perplexity(first: Checkpoint, second: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    values, target, references, layout = scored([first, second], rows)
    combiner = Averaging().fit(values, references, target, seed=0)
    fused = combiner(values, layout)
    batch = batch_of(rows, first, PROBLEM)
    gold = batch["labels"][batch["labels"] != IGNORED]
    mixture = sum(whole_logits(c, batch).softmax(-1) for c in (first, second))[batch["labels"] != IGNORED] / 2
    expected = float(torch.exp(-mixture.gather(1, gold[:, None]).log().mean()))
    assert target.metrics(fused, references)["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_the_gold_token_never_helps_a_guess(first: Checkpoint, second: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    values, target, *_ = scored([first, second], rows)
    tokens = np.array(target.layout.units["token"])
    told = {int(t) for row in predict(first, rows, PROBLEM).table["top"].to_pylist() for t in row}
    told |= {int(t) for row in predict(second, rows, PROBLEM).table["top"].to_pylist() for t in row}
    assert set(tokens[tokens >= 0].tolist()) <= told
    assert (values[:, tokens < 0] > 0).all()
    assert (tokens[target.best(values[0])] >= 0).all()


def test_metrics_of_resamples_are_metrics_of_the_rows_drawn(first: Checkpoint, second: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    values, target, references, _ = scored([first, second], rows)
    drawn = np.array([0, 0, 3, 5, 5, 5, 8])
    counts = np.bincount(drawn, minlength=len(rows))[None].astype(float)
    units, taken = target.positions(drawn), target.take(drawn)
    for metric in target.metric_names:
        direct = taken.metric(metric, values[0][units], references[units])
        assert measure(metric, values[0], references, target)(counts)[0] == pytest.approx(direct), metric


def test_fusions_that_only_take_means_apply_and_the_others_refuse_by_name():
    target = PROBLEM.target
    for name in ("averaging", "weighted", "greedy"):
        Fusion.named(name)().check(target)
    for name in ("voting", "stacking"):
        with pytest.raises(UnsupportedError, match=rf"{name} cannot combine tokens.*averaging"):
            Fusion.named(name)().check(target)
    with pytest.raises(UnsupportedError, match="space: scores"):
        Averaging(space="logits").check(target)


@pytest.mark.parametrize("weights_from", ["optimised", "validation_scores"])
def test_weights_favour_the_better_member(weights_from: str, first: Checkpoint, second: Checkpoint):
    rows = encoded(PROBLEM, ROWS, first.tokenizer)
    values, target, references, _ = scored([first, second], rows)
    values[0] = np.where(references[:, :1] > 0, np.minimum(1, 3 * values[0]), values[0])
    weights = Weighted(weights_from=weights_from).fit(values, references, target, seed=0).weights()  # type: ignore
    assert weights[0] > weights[1]


def test_members_of_other_vocabularies_are_refused_in_one_line(first: Checkpoint, tiny_model: TinyModel):
    other = opened(PROBLEM, tiny_model("roberta"))
    tables = [predict(c, rows, PROBLEM).table for c in (first, other) for rows in [encoded(PROBLEM, ROWS, c.tokenizer)]]
    with pytest.raises(UnsupportedError, match=r"different vocabularies.*share a tokenizer"):
        PROBLEM.align(tables, tables[0])


# -- serving -------------------------------------------------------------------------------------------


def test_masks_in_a_text_are_filled_as_transformers_pipeline_does(first: Checkpoint):
    from transformers import pipeline

    text = "The courier rang [MASK] and took the [MASK] back."
    rows = PROBLEM.encode(pa.table({"text": [text]}), first.tokenizer)
    rows = rows.append_column("row_id", pa.array([0], pa.int64()))
    values, layout = PROBLEM.align([predict(first, rows, PROBLEM).table], rows)
    told = PROBLEM.answers(values[0], pa.table({"text": [text]}), layout)
    expected = pipeline("fill-mask", model=first.model, tokenizer=first.tokenizer, top_k=5)(text)
    for place, wanted in zip(told["candidates"][0], expected, strict=True):
        assert [c["token"] for c in place] == [w["token_str"] for w in wanted]
        assert [c["score"] for c in place] == pytest.approx([w["score"] for w in wanted], rel=1e-4)
    assert told["prediction"][0] == ", ".join(wanted[0]["token_str"] for wanted in expected)
