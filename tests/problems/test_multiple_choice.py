"""Multiple choice: any number of choices a row, one number for each, softmax within the row."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.base import Source
from ftlib.errors import ArtifactError, DataError
from ftlib.evaluation.measures import value_of
from ftlib.fusion.base import Fusion
from ftlib.models import checkpoints
from ftlib.prediction import predict
from ftlib.problems.multiple_choice import NOWHERE, MultipleChoice
from ftlib.targets.choice import Choice
from ftlib.targets.layout import Layout
from ftlib.training.batches import Rows
from tests import contracts
from tests.conftest import ARCHITECTURES
from tests.samples import check_one_answer, run_sample

PROBLEM = MultipleChoice(max_length=64)


def read(answer, choices, **fields):
    values = [answer] if not isinstance(answer, list) else answer
    rows = pa.table({"text": ["Q"], "choices": pa.array([choices]), "answer": pa.array(values)})
    texts, reasons = MultipleChoice(**fields).read_labels(rows)
    return texts[0].as_py(), reasons[0].as_py()


# -- rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(0, "ash"), (2, "7"), (1.0, "oak"), ("oak", "oak"), (" oak ", "oak"), ("B", "oak"), ("c", "7"), ("1", "oak")],
)
def test_an_answer_is_a_position_a_letter_or_the_choice(answer, expected):
    assert read(answer, ["ash", "oak", "7"]) == (expected, None)


def test_a_choice_written_like_a_number_goes_before_a_position():
    assert read("2", ["2", "3", "4"]) == ("2", None)
    assert read(2, ["2", "3", "4"]) == ("4", None)


def test_answers_may_count_from_one():
    assert read(1, ["ash", "oak"], count_from=1) == ("ash", None)
    assert read(0, ["ash", "oak"], count_from=1)[1] == "unknown answer '0': none of the 2 choices"


def test_choices_may_have_labels_that_the_answer_names():
    labelled = {"text": ["ash", "oak"], "label": ["1", "2"]}
    assert read("2", labelled) == ("oak", None)
    assert read("1", json.dumps(labelled)) == ("ash", None)
    assert read("oak", json.dumps(["ash", "oak"])) == ("oak", None)


@pytest.mark.parametrize(
    ("answer", "choices", "reason"),
    [
        (None, ["a", "b"], "missing answer"),
        (" ", ["a", "b"], "missing answer"),
        ("elm", ["a", "b"], "unknown answer 'elm': none of the 2 choices"),
        ("D", ["a", "b"], "unknown answer 'D': none of the 2 choices"),
        (-1, ["a", "b"], "unknown answer '-1': none of the 2 choices"),
        (0.5, ["a", "b"], "unknown answer '0.5': none of the 2 choices"),
        (True, ["a", "b"], "unknown answer 'True': none of the 2 choices"),
        (0, ["same", "same"], "ambiguous answer: 'same' is several of the choices"),
        (0, ["a"], "only one choice, expected at least 2"),
        (0, [], "unreadable choices: not a list of texts"),
        (0, ["a", ""], "an empty choice"),
        (0, "a, b", "unreadable choices: not a list of texts"),
        ("A", {"text": ["a", "b"], "label": ["A"]}, "choices and their labels are not equally many"),
    ],
)
def test_an_answer_or_choices_of_no_use_are_a_reason(answer, choices, reason):
    assert read(answer, choices) == (None, reason)
    rows = pa.table({"text": ["Q"], "choices": pa.array([choices])})
    complaint = PROBLEM.check_inputs(rows)[0].as_py()
    assert complaint == (reason if "choice" in reason.split(":")[0] and "answer" not in reason else None)


# -- encoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_holds_what_the_tokenizer_makes_of_its_text_with_every_choice(architecture, tiny_model):
    tokenizer = checkpoints.load_tokenizer(tiny_model(architecture))
    rows = contracts.raw_rows(PROBLEM)
    encoded = PROBLEM.encode(rows, tokenizer)
    for row, line in zip(rows.to_pylist(), encoded.to_pylist(), strict=True):
        expected = [tokenizer(row["text"], choice)["input_ids"] for choice in row["choices"]]
        assert line["input_ids"] == [token for ids in expected for token in ids]
        assert line["choice_lengths"] == [len(ids) for ids in expected]
    assert PROBLEM.encode(rows.slice(0, 0), tokenizer).schema == encoded.schema


def test_rows_encode_alike_alone_and_together(tiny_model):
    tokenizer = checkpoints.load_tokenizer(tiny_model("bert"))
    problem, rows = MultipleChoice(max_length=12), contracts.raw_rows(PROBLEM)
    together = problem.encode(rows, tokenizer)
    alone = [problem.encode(rows.slice(i, 1), tokenizer) for i in range(len(rows))]
    assert pa.concat_tables(alone).to_pylist() == together.to_pylist()
    assert max(length for row in together["choice_lengths"].to_pylist() for length in row) == 12
    assert sum(together["num_truncated"].to_pylist()) > 0


# -- the model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_each_choice_read_alone_by_plain_transformers(architecture, tiny_model):
    checkpoint = checkpoints.load(tiny_model(architecture), PROBLEM)
    rows = contracts.labelled_rows(PROBLEM)
    table = predict(checkpoint, contracts.encoded_rows(PROBLEM, checkpoint.tokenizer), PROBLEM).table
    for row, found in zip(rows.to_pylist(), table["logits"].to_pylist(), strict=True):
        with torch.inference_mode():
            expected = [
                float(checkpoint.model(**checkpoint.tokenizer(row["text"], c, return_tensors="pt")).logits)
                for c in row["choices"]
            ]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_bert_for_multiple_choice_with_these_weights_gives_these_logits(tiny_model):
    from transformers import BertForMultipleChoice

    checkpoint = checkpoints.load(tiny_model("bert"), PROBLEM)
    other = BertForMultipleChoice(checkpoint.model.config).eval()
    other.load_state_dict(checkpoint.model.state_dict())
    text, choices = "A man plays", ["a guitar.", "the weather.", "an email."]
    pairs = checkpoint.tokenizer([text] * 3, choices, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = other(**{name: values[None] for name, values in pairs.items()}).logits[0]
    rows = pa.table({"row_id": [0], "text": [text], "choices": [choices], "answer": [choices[1]]})
    encoded = PROBLEM.encode_labels(rows, PROBLEM.encode(rows, checkpoint.tokenizer), checkpoint.tokenizer)
    assert encoded["labels"].to_pylist() == [1]
    found = predict(checkpoint, encoded.append_column("row_id", rows["row_id"]), PROBLEM).table["logits"][0].as_py()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_loss_is_the_cross_entropy_within_each_row_whatever_the_padding(side, tiny_model):
    checkpoint = checkpoints.load(tiny_model("bert"), PROBLEM)
    checkpoint.tokenizer.padding_side = side
    encoded = contracts.encoded_rows(PROBLEM, checkpoint.tokenizer)
    batch = Rows.from_table(encoded, checkpoint.tokenizer, PROBLEM).batch(np.arange(len(encoded)))
    with torch.inference_mode():
        logits = PROBLEM.forward(checkpoint.model, batch)
        loss = PROBLEM.loss(logits, batch)
    alone = predict(checkpoint, encoded, PROBLEM).table["logits"].to_pylist()
    parts = [
        torch.logsumexp(torch.tensor(row), 0) - row[label]
        for row, label in zip(alone, encoded["labels"].to_pylist(), strict=True)
    ]
    assert float(loss) == pytest.approx(float(torch.stack(parts).mean()), abs=1e-5)
    assert (logits == NOWHERE).sum() == logits.numel() - sum(map(len, alone))


def test_a_student_learns_the_mean_of_its_teachers_probabilities(tiny_model):
    tokenizer = checkpoints.load_tokenizer(tiny_model("bert"))
    encoded = contracts.encoded_rows(PROBLEM, tokenizer)
    random = np.random.default_rng(1)
    counts = [len(lengths) for lengths in encoded["choice_lengths"].to_pylist()]
    tables = [
        pa.table({"logits": pa.array([random.normal(size=n).astype(np.float32) for n in counts])}) for _ in range(2)
    ]
    taught = PROBLEM.teach(encoded, tables)
    softmax = [[torch.softmax(torch.tensor(row), 0) for row in t["logits"].to_pylist()] for t in tables]
    for row, (one, two) in enumerate(zip(*softmax, strict=True)):
        mine = torch.softmax(torch.tensor(taught["teacher_logits"][row].as_py()), 0)
        np.testing.assert_allclose(mine, (one + two) / 2, atol=1e-6)
    batch = Rows.from_table(taught, tokenizer, PROBLEM).batch(np.arange(len(taught)))
    assert float(PROBLEM.distillation_loss(batch["teacher_logits"], batch, 2.0)) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(PROBLEM.distillation_loss(batch["teacher_logits"] * 0, batch, 2.0))


# -- the target ----------------------------------------------------------------------------------------


def simulated(num_rows=400, num_choices=None, noise=(0.7, 0.9, 1.2), seed=0):
    """Return (target, scores of members, references) of choices that members see through noise."""
    random = np.random.default_rng(seed)
    counts = np.full(num_rows, num_choices) if num_choices else random.integers(2, 6, num_rows)
    layout = Layout.of(counts, pa.table({"text": [f"choice {i}" for i in range(counts.sum())]}))
    target = Choice().over(layout)
    references = target.at_positions(random.integers(0, counts))
    logits = [3 * references[:, 0] + 2 * n * random.normal(size=layout.num_units) for n in noise]
    return target, np.stack([target.scores(one) for one in logits]), references


def test_metrics_are_scikit_learns():
    target, scores, references = simulated(num_choices=4)
    gold, table = references.reshape(-1, 4).argmax(1), scores[0].reshape(-1, 4)
    found = target.metrics(scores[0], references)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, table.argmax(1)))
    assert found["log_loss"] == pytest.approx(log_loss(gold, table, labels=range(4)))
    sure, right = table.max(1), table.argmax(1) == gold
    binned = np.clip(np.ceil(sure * 15) - 1, 0, 14).astype(int)  # fifteen bins of equal width: Guo et al. (2017)
    gaps = [abs(right[binned == b].sum() - sure[binned == b].sum()) for b in range(15)]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / len(gold))


@pytest.mark.parametrize("metric", Choice().metric_names)
def test_a_measure_is_the_metric_of_the_rows_drawn(metric):
    target, scores, references = simulated(80)
    assert value_of(metric, scores[0], references, target) == pytest.approx(
        target.metrics(scores[0], references)[metric]
    )
    counts = np.random.default_rng(2).multinomial(80, np.full(80, 1 / 80), size=3).astype(float)
    measured = target.measure(metric, scores[0], references)(counts)
    for row, value in zip(counts, measured, strict=True):
        drawn = np.repeat(np.arange(80), row.astype(int))
        units = target.positions(drawn)
        assert value == pytest.approx(target.take(drawn).metrics(scores[0][units], references[units])[metric])


def test_answers_are_decoded_by_their_texts_and_sure_by_their_share():
    layout = Layout.of(np.array([2, 3]), pa.table({"text": ["no", "yes", "ash", "oak", "elm"]}))
    target = Choice().over(layout)
    scores = np.array([[0.2], [0.6], [0.1], [0.1], [0.3]])
    assert target.decode(scores) == ["yes", "elm"]
    np.testing.assert_allclose(target.confidence(scores), [0.75, 0.6])
    np.testing.assert_array_equal(target.encode(pa.array(["no", "elm"]))[:, 0], [1, 0, 0, 0, 1])
    with pytest.raises(DataError, match="1 rows have an answer that is not one of their choices"):
        target.encode(pa.array(["no", "yes"]))
    assert Choice().over(None).decode(np.zeros((0, 1))) == []


def test_rows_without_any_support_share_it_evenly():
    target = Choice().over(Layout.of(np.array([2, 4])))
    np.testing.assert_allclose(target.probabilities(np.zeros((6, 1))), [0.5, 0.5, 0.25, 0.25, 0.25, 0.25])


METHODS = ("averaging", "weighted", "voting", "greedy", "stacking")


@pytest.mark.parametrize("name", METHODS)
def test_every_fusion_combines_choices(name, tmp_path):
    target, scores, references = simulated()
    rest = simulated(400, seed=1)
    plugin = Fusion.named(name)()
    combiner = plugin.fit(scores, references, target, seed=1)
    fused = combiner(rest[1], rest[0].layout)
    assert fused.shape == (rest[0].layout.num_units, 1)
    assert np.isfinite(fused).all()
    found = rest[0].metrics(fused, rest[2])
    alone = [rest[0].metrics(member, rest[2])["accuracy"] for member in rest[1]]
    assert found["accuracy"] >= np.mean(alone)
    combiner.save(tmp_path)
    again = type(plugin).load(tmp_path)
    rows = np.array([5, 0, 33])
    units = rest[0].positions(rows)
    np.testing.assert_array_equal(again(rest[1][:, units], rest[0].layout.take(rows)), fused[units])


def test_predictions_of_other_choices_are_refused():
    rows = pa.table({"text": ["Q"], "choices": [["a", "b"]]})
    table = pa.table({"row_id": [0], "logits": pa.array([[0.1, 0.2, 0.3]], pa.list_(pa.float32()))})
    with pytest.raises(ArtifactError, match="other numbers of logits"):
        PROBLEM.align([table], rows)
    broken = pa.table({"row_id": [0], "logits": pa.array([[0.1, float("nan")]], pa.list_(pa.float32()))})
    with pytest.raises(ArtifactError, match="not finite"):
        PROBLEM.align([broken], rows)


# -- the sample ----------------------------------------------------------------------------------------


def test_sample_questions_are_the_same_for_a_seed_and_mostly_usable():
    source = Source.named("sample_quiz")(num_rows=400, seed=3)
    columns = {name: name for name in ("text", "choices", "answer")}
    rows = collect({"all": source}, columns).table
    assert rows.equals(collect({"all": source}, columns).table)
    cleaned = clean(rows, MultipleChoice(), Cleaning())
    assert 0.85 * 400 < len(cleaned.table) < 400
    assert {"missing answer", "unknown answer", "an empty choice"} <= set(cleaned.summary["rejected"])
    assert source.fingerprint() != Source.named("sample_quiz")(num_rows=400, seed=4).fingerprint()


@pytest.mark.slow
def test_the_sample_runs_to_a_served_model_that_answers_as_in_training(tmp_path):
    run = run_sample(
        "multiple_choice",
        tmp_path,
        ["data.sources.all.num_rows=160", "training.num_train_epochs=1", "evaluation.bootstrap_samples=100"],
    )
    found = run.evaluation
    assert [m["name"] for m in found["members"]] == ["full", "roberta", "lora", "distilled"]
    assert {f["name"] for f in found["fusions"]} == {"averaging", "weighted", "stacking", "voting", "greedy"}
    assert set(found["members"][0]["metrics"]["test"]) == {"accuracy", "log_loss", "calibration_error"}
    assert (run.folder("report") / "report.html").stat().st_size > 10_000
    check_one_answer(run)
    answer = run.served.predict(
        [{"text": "Name a fruit.", "choices": ["a saw", "a plum"]}, {"text": "?", "choices": []}]
    )
    assert answer["prediction"][0] in ("a saw", "a plum")
    assert sum(answer["scores"][0]) == pytest.approx(1)
    assert answer["reason"][1] == "unreadable choices: not a list of texts"
