"""Summarization and translation: what an encoder-decoder reads, learns and generates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu
import torch

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.models import checkpoints, layers
from ftlib.models.checkpoints import Checkpoint
from ftlib.prediction import predict
from ftlib.problems import _generation, _seq2seq
from ftlib.problems._generation import Generation
from ftlib.problems.summarization import Summarization
from ftlib.problems.translation import Translation
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import Rows
from tests import contracts
from tests.samples import Run, check_one_answer, run_sample

FAMILIES = ("t5", "bart")
TINY = {"max_length": 64, "max_target_length": 24, "label_smoothing": 0.0}

Opened = Callable[[str], tuple[Checkpoint, Rows, pa.Table]]


def translation(**fields: Any) -> Translation:
    return Translation.model_validate({**TINY, **fields})


def batch_of(checkpoint: Checkpoint, problem: Any, limit: int = 6) -> tuple[dict[str, torch.Tensor], pa.Table]:
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer, limit)
    return Rows.from_table(rows, checkpoint.tokenizer, problem).batch(np.arange(limit)), rows


@pytest.fixture(scope="module")
def fitted(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a tiny model that has learned the examples by heart, nearly."""

    @cache
    def folder(family: str) -> Path:
        where = tmp_path_factory.mktemp(f"fitted-{family}")
        full = Strategy.named("full")()
        trained = contracts.train_on_examples(
            full, translation(), tiny_model(family), where, num_epochs=6, learning_rate=4e-3
        )
        return trained.folder

    return folder


def adapted(folder: Path, strategy: str) -> Checkpoint:
    """Return a checkpoint with what a strategy adds, its new weights made large enough to matter."""
    stage.set_seed(5)
    checkpoint = checkpoints.load(folder, translation())
    kind = {"num_virtual_tokens": 4} if strategy in ("prefix", "prompt_tuning") else {}
    model = Strategy.named(strategy)(**kind).adapt(checkpoint.model, translation())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return Checkpoint(model.eval(), checkpoint.tokenizer)


# -- rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [Summarization(max_target_length=16), translation(max_target_length=16)])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_the_gold_texts_tokens_with_an_end_even_where_they_are_cut(
    problem: Any, family: str, tiny_model: Callable[..., Path]
) -> None:
    tokenizer = checkpoints.load_tokenizer(tiny_model(family))
    rows = contracts.labelled_rows(problem)
    encoded = contracts.encoded_rows(problem, tokenizer, None)
    for gold, labels in zip(rows[problem.label_column].to_pylist(), encoded["labels"].to_pylist(), strict=True):
        assert labels[-1] == tokenizer.eos_token_id
        assert len(labels) <= 16
        assert gold.startswith(tokenizer.decode(labels, skip_special_tokens=True).strip())


def test_a_prefix_is_read_before_each_text(tiny_model: Callable[..., Path]) -> None:
    tokenizer = checkpoints.load_tokenizer(tiny_model("t5"))
    rows = contracts.raw_rows(translation())
    ids = translation(prefix="translate: ").encode(rows, tokenizer)["input_ids"].to_pylist()
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == f"translate: {rows['text'][0].as_py()}"
    assert rows["text"][0].as_py() == translation().examples()[0]["text"]


def test_languages_are_refused_by_a_tokenizer_that_knows_none(tiny_model: Callable[..., Path]) -> None:
    tokenizer = checkpoints.load_tokenizer(tiny_model("t5"))
    with pytest.raises(CheckpointError, match=r"problem\.target_language: .* knows no languages"):
        translation(target_language="ron_Latn").check_tokenizer(tokenizer)


def test_languages_go_to_a_tokenizer_that_has_them_and_the_answer_begins_with_its_own() -> None:
    from transformers import NllbTokenizer

    words = {f"▁{word}": -1.0 for word in ("zwei", "hunde", "two", "dogs")}
    special = {"<s>": 0.0, "<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    tokenizer = NllbTokenizer(vocab={t: i for i, t in enumerate({**special, **words})}, merges=[])
    problem = translation(source_language="deu_Latn", target_language="eng_Latn")
    problem.check_tokenizer(tokenizer)
    rows = pa.table({"row_id": [0], "text": ["zwei hunde"], "translation": ["two dogs"]})
    encoded = problem.encode_labels(rows, problem.encode(rows, tokenizer), tokenizer)
    read, written = encoded["input_ids"][0].as_py(), encoded["labels"][0].as_py()
    assert read[0] == tokenizer.convert_tokens_to_ids("deu_Latn")
    assert written[0] == tokenizer.convert_tokens_to_ids("eng_Latn")
    assert read[-1] == written[-1] == tokenizer.eos_token_id
    with pytest.raises(CheckpointError, match="no such language"):
        translation(target_language="english").check_tokenizer(tokenizer)


def test_more_candidates_than_beams_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="raise num_beams, or set do_sample"):
        Generation(num_beams=2, num_candidates=3)
    assert Generation(do_sample=True, num_candidates=3).num_beams == 1


# -- learning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_models_own(family: str, tiny_model: Callable[..., Path]) -> None:
    checkpoint = checkpoints.load(tiny_model(family), translation())
    batch, rows = batch_of(checkpoint, translation())
    with torch.no_grad():
        own = checkpoint.model(**batch).loss
        ours = translation().loss(translation().forward(checkpoint.model, batch), batch)
    assert ours.item() == pytest.approx(own.item(), rel=1e-6)
    assert translation().measure(checkpoint, rows)["loss"] == pytest.approx(own.item(), rel=1e-5)
    assert translation(label_smoothing=0.3).measure(checkpoint, rows)["loss"] == pytest.approx(own.item(), rel=1e-5)


def test_a_teachers_texts_are_read_beside_the_gold_ones(tiny_model: Callable[..., Path]) -> None:
    checkpoint = checkpoints.load(tiny_model("bart"), translation())
    batch, _ = batch_of(checkpoint, translation())
    taught = {**batch, "teacher_labels": torch.nn.functional.pad(batch["labels"].flip(0), (0, 3), value=-100)}
    with torch.no_grad():
        gold = translation().forward(checkpoint.model, batch)
        other = translation().forward(checkpoint.model, {**batch, "labels": taught["teacher_labels"]})
        both = translation().forward(checkpoint.model, taught)
    torch.testing.assert_close(_seq2seq.gold_part(both, taught), gold, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(_seq2seq.teacher_part(both, taught), other, atol=1e-5, rtol=1e-5)
    expected = _seq2seq.loss(other, taught["teacher_labels"]).item()
    assert translation().distillation_loss(both, taught, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_learns_its_teachers_text_in_its_own_tokens(tiny_model: Callable[..., Path]) -> None:
    tokenizer = checkpoints.load_tokenizer(tiny_model("t5"))
    texts = [["two dogs", "a dog"], ["a man"]]
    teacher = _generation.predictions_table(pa.chunked_array([[0, 1]]), [(t, [0.5] * len(t)) for t in texts])
    rows = pa.table({"row_id": [0, 1], "labels": [[1], [1]]})
    labels = translation().teach(rows, [teacher], tokenizer)["teacher_labels"].to_pylist()
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in labels] == ["two dogs", "a man"]


def test_of_several_teachers_the_text_in_the_middle_is_learned() -> None:
    def says(text: str) -> pa.Table:
        return _generation.predictions_table(pa.chunked_array([[0]]), [([text], [0.5])])

    texts = ["a cat sleeps", "two dogs run fast", "two dogs run", "two dogs ran"]
    alike = [sum(sacrebleu.sentence_chrf(one, [other]).score for other in texts) for one in texts]
    assert _generation.lessons([says(text) for text in texts], "chrf") == [texts[int(np.argmax(alike))]]


def test_a_student_of_t5_keeps_the_block_that_holds_the_positions(tiny_model: Callable[..., Path]) -> None:
    model = checkpoints.load(tiny_model("t5"), translation()).model
    with pytest.raises(UnsupportedError, match="block 0 of T5ForConditionalGeneration"):
        layers.keep_blocks(model, [1])
    assert [len(blocks) for blocks in layers.block_lists(layers.keep_blocks(model, 1))] == [1, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_both_halves_belongs_to_one_group(family: str, tiny_model: Callable[..., Path]) -> None:
    model = checkpoints.load(tiny_model(family), translation()).model
    found = layers.layers(model)
    groups = [found.embeddings, *found.blocks, found.pooler, found.head]
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in model.parameters())
    assert not found.head
    assert len(found.blocks) == 4


# -- generating ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["full", "lora", "prefix", "prompt_tuning"])
def test_what_is_generated_is_what_training_saw_as_most_probable(
    strategy: str, family: str, fitted: Callable[[str], Path]
) -> None:
    checkpoint = adapted(fitted(family), strategy)
    batch, _ = batch_of(checkpoint, translation())
    with torch.inference_mode():
        written = _generation.generate(checkpoint.model, batch, Generation(), limit=20)
        labels = _seq2seq._labels(written[:, 1:], checkpoint.tokenizer.eos_token_id)
        logits = translation().forward(checkpoint.model, {**batch, "labels": labels})
    real = labels != _seq2seq.IGNORED
    if family == "bart":  # it always ends at the limit
        real[:, -1] = False
    assert real.sum() > 6
    assert (logits.argmax(-1)[real] == labels[real]).float().mean() > 0.99


@pytest.mark.parametrize("strategy", ["prefix", "prompt_tuning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_that_is_read_still_counts_behind_virtual_tokens(
    strategy: str, family: str, fitted: Callable[[str], Path]
) -> None:
    checkpoint = adapted(fitted(family), strategy)
    batch, _ = batch_of(checkpoint, translation())
    with torch.no_grad():
        one = translation().forward(checkpoint.model, batch)
        other = translation().forward(checkpoint.model, {**batch, "input_ids": batch["input_ids"].flip(0)})
        plain = translation().forward(checkpoints.load(fitted(family), translation()).model, batch)
    size = plain.shape[-1]
    assert (one - other).abs().max() > 0.1
    assert (one[..., :size] - plain).abs().clamp(max=9).max() > 0.01


def test_a_virtual_token_is_never_written_and_no_place_is_cut(fitted: Callable[[str], Path]) -> None:
    checkpoint = adapted(fitted("t5"), "prompt_tuning")
    batch, _ = batch_of(checkpoint, translation())
    virtual = list(checkpoint.model.virtual_tokens.ids)  # type: ignore[union-attr,operator]
    length = batch["input_ids"].shape[1] + len(virtual)  # as long as what is read with the virtual tokens in it
    labels = torch.nn.functional.pad(batch["labels"], (0, length), value=-100)[:, :length]
    with torch.no_grad():
        logits = translation().forward(checkpoint.model, {**batch, "labels": labels})
    assert logits.shape[:2] == labels.shape
    assert logits[..., virtual].max() < -1e30
    written = _generation.generate(checkpoint.model, batch, Generation(num_beams=3, num_candidates=3), limit=12)
    assert not torch.isin(written, torch.tensor(virtual)).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_support_is_in_the_order_of_the_beams(family: str, fitted: Callable[[str], Path]) -> None:
    checkpoint = checkpoints.load(fitted(family), translation())
    settings = Generation(num_beams=4, num_candidates=4)
    batch, rows = batch_of(checkpoint, translation())
    written = _generation.generate(checkpoint.model, batch, settings, limit=24)
    texts = [t.strip() for t in checkpoint.tokenizer.batch_decode(written, skip_special_tokens=True)]
    found = predict(checkpoint, rows, translation(generation=settings)).table["texts"].to_pylist()
    assert [row[0] for row in found] == texts[::4]
    assert [set(row) for row in found] == [set(texts[i : i + 4]) for i in range(0, len(texts), 4)]


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3, "num_candidates": 3}, {"do_sample": True, "num_candidates": 4}]
)
def test_what_a_row_is_answered_does_not_depend_on_the_rows_beside_it(
    settings: dict[str, Any], fitted: Callable[[str], Path]
) -> None:
    checkpoint = checkpoints.load(fitted("t5"), translation())
    problem = translation(generation=settings)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer, 6)
    together = predict(checkpoint, rows, problem).table
    for i in range(len(rows)):
        alone = predict(checkpoint, rows.slice(i, 1), problem).table
        assert alone["texts"].to_pylist() == together["texts"].slice(i, 1).to_pylist()
        np.testing.assert_allclose(alone["support"][0].as_py(), together["support"][i].as_py(), atol=1e-5)


def test_draws_follow_the_models_distribution(fitted: Callable[[str], Path]) -> None:
    checkpoint = checkpoints.load(fitted("t5"), translation())
    batch, _ = batch_of(checkpoint, translation(), 1)
    draws = 1000
    settings = Generation(do_sample=True, num_candidates=draws, temperature=2.0, max_new_tokens=1)
    first = _generation.generate(checkpoint.model, batch, settings, limit=1)[:, 1]
    with torch.no_grad():
        expected = (translation().forward(checkpoint.model, batch)[0, 0] / 2).softmax(-1)
    found = torch.bincount(first, minlength=len(expected)) / draws
    top = expected.topk(8).indices
    np.testing.assert_allclose(found[top], expected[top], atol=4 * np.sqrt(0.25 / draws))
    assert not torch.equal(first, _generation.generate(
        checkpoint.model, batch, settings.model_copy(update={"seed": 1}), limit=1)[:, 1])  # fmt: skip


def test_equal_texts_are_one_candidate_with_the_support_of_both() -> None:
    logs, lengths = np.log([0.2, 0.1, 0.1]), np.array([2, 2, 2])
    texts, support = _generation.weighed(["a", "b", "a"], logs, lengths, Generation(num_beams=3, num_candidates=3))
    sure = 0.2**0.5  # the geometric mean of the best text's token probabilities
    assert texts == ["a", "b"]
    assert support == pytest.approx([0.75 * sure, 0.25 * sure])


def test_answers_are_texts_with_score_and_alternatives() -> None:
    table = _generation.predictions_table(pa.chunked_array([[7]]), [(["a", "b"], [0.5, 0.25])])
    scores, layout = translation().align([table], pa.table({"text": ["x"]}))
    told = translation().answers(scores[0], pa.table({"text": ["x"]}), layout)
    assert told == {"prediction": ["a"], "score": [0.5], "alternatives": [[{"text": "b", "score": 0.25}]]}


# -- whole runs ----------------------------------------------------------------------------------------

SHORT = ["data.sources.all.num_rows=160", "training.batch_size=8", "evaluation.bootstrap_samples=100"]
FUSIONS = {"minimum_bayes_risk", "averaging", "weighted", "voting", "stacking", "greedy"}
ALONE: dict[str, set[str]] = {"translation": {"token_averaging"}, "summarization": set()}
"""Fusions that only one of the samples shows."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["translation", "summarization"])
def test_the_sample_runs_to_a_served_model_that_answers_as_in_training(name: str, tmp_path: Path) -> None:
    less = ["training.num_train_epochs=4", *(f"stages.{i}.training.num_train_epochs=1" for i in (1, 2))]
    few = ["problem.generation.num_beams=2", "problem.generation.num_candidates=2", "problem.max_target_length=16"]
    run = run_sample(name, tmp_path, [*SHORT, *less, *few])
    found = run.evaluation
    assert len(found["members"]) == 3
    assert {f["name"] for f in found["fusions"]} == FUSIONS | ALONE[name]
    assert {"bleu", "chrf", "rougeL", "meteor_exact_stem"} <= set(found["members"][0]["metrics"]["test"])
    assert (run.folder("report") / "report.html").stat().st_size > 10_000
    check_one_answer(run)
    for together in ALONE[name]:
        check_what_members_say_together(run, next(f for f in found["fusions"] if f["name"] == together))
    answer = run.served.predict([{"text": "two dogs find the old house."}, {"text": ""}])
    assert isinstance(answer["prediction"][0], str)
    assert answer["reason"][1] == "empty text"


def check_what_members_say_together(run: Run, entry: dict[str, Any]) -> None:
    """It is judged by the texts that its own predict step left, and costs what all members cost."""
    written = pq.read_table(run.folder(f"predict-{entry['name']}-test") / "predictions.parquet")
    best = [texts[0] for texts in written["texts"].to_pylist()]
    gold = run.test_rows()["translation"].to_pylist()
    assert entry["metrics"]["test"]["chrf"] == pytest.approx(sacrebleu.corpus_chrf(best, [gold]).score, abs=1e-6)
    members = run.evaluation["members"]
    best_member = next(m for m in members if m["name"] == run.evaluation["best_member"])
    cost = sum(m["inference_cost"] for m in members) / best_member["inference_cost"]
    assert entry["inference_cost_ratio"] == pytest.approx(cost)
