"""Extractive question answering: windows, places in characters, candidates across tokenizers, answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ftlib.data.clean import Cleaning, clean
from ftlib.data.encode import encode
from ftlib.data.originals import with_given
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.problems import _spans
from ftlib.problems._spans import AnswerPlaces, Window
from ftlib.problems.question_answering import QuestionAnswering
from ftlib.strategies.prompt_tuning import PromptTuning
from ftlib.targets.layout import Layout
from ftlib.training.batches import Rows
from tests import contracts
from tests.conftest import tiny_tokenizer
from tests.samples import check_one_answer, run_sample

LONG = "In 1959, Ann won the race in Oslo. " * 4 + "Bob lost it in Rome, and wept."
CHINESE = "王小明於一九五九年在北京獲勝。李華在羅馬輸了比賽。"


def rows_of(*rows: tuple) -> pa.Table:
    names = ("question", "context", "answers")
    return pa.Table.from_pylist([dict(zip(names, row, strict=False)) for row in rows])


def answer(context: str, text: str) -> list[dict]:
    return [{"text": text, "start": context.index(text)}]


def by_characters() -> PreTrainedTokenizerFast:
    """A tokenizer of Chinese: a character is a token, as in BERT's."""
    characters = sorted(set(CHINESE) | set("誰贏了在哪裡輸"))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


# -- rows ----------------------------------------------------------------------------------------------


def cleaned(context: str, *answers: dict, **settings) -> tuple[list, list]:
    rows = rows_of(("Who?", context, list(answers))).add_column(0, "row_id", pa.array([0]))
    rows = rows.append_column("split", pa.array(["all"]))
    keep = rows_of(("Who else?", "Eve.", [{"text": "Eve", "start": 0}])).add_column(0, "row_id", pa.array([1]))
    rows = pa.concat_tables([rows, keep.append_column("split", pa.array(["all"]))], promote_options="permissive")
    found = clean(rows, QuestionAnswering(), Cleaning(**settings))
    kept = [row for row in found.table.to_pylist() if row["row_id"] == 0]
    return (kept[0]["answers"] if kept else []), found.rejected["reason"].to_pylist()


@pytest.mark.parametrize(
    ("context", "given", "expected"),
    [
        ("In 1959, Ann won.", {"text": "Ann", "start": 9}, {"text": "Ann", "start": 9}),
        ("In 1959, Ann won.", {"text": " Ann ", "start": 8}, {"text": "Ann", "start": 9}),
        ("In 1959, Ann won.", {"text": "Ann", "start": 3}, {"text": "Ann", "start": 9}),
        ("In 1959, Ann won.", {"text": "Ann", "start": -1}, {"text": "Ann", "start": 9}),
        ("Ann  won.   Then Ann  lost.", {"text": "Ann", "start": 17}, {"text": "Ann", "start": 14}),
        ("<p>Ann &amp; Bob</p> won.", {"text": "Ann &amp; Bob", "start": 3}, {"text": "Ann & Bob", "start": 0}),
        ("Ann  of\tOslo won.", {"text": "Ann  of\tOslo", "start": 7}, {"text": "Ann of Oslo", "start": 0}),
    ],
)
def test_gold_answers_are_found_in_the_repaired_context(context, given, expected):
    assert cleaned(context, given) == ([expected], [])


@pytest.mark.parametrize(
    ("text", "start", "reason"),
    [
        ("Eve", 17, "misplaced answer: 'Eve' is not in the context at 17 or elsewhere"),
        ("Ann", 17, "misplaced answer: 'Ann' is not in the context at 17, but 2 times elsewhere"),
        ("Ann", None, "misplaced answer: 'Ann' is in the context 2 times"),
    ],
)
def test_an_answer_that_is_nowhere_or_in_several_places_rejects_the_row(text, start, reason):
    assert cleaned("Ann won, then Ann lost.", {"text": text, "start": start}) == ([], [reason])


# -- windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize(("max_length", "stride"), [(40, 8), (96, 16), (256, 0)])
def test_windows_are_those_that_transformers_makes(architecture, max_length, stride):
    tokenizer = tiny_tokenizer(architecture)
    tokenizer("a", padding="max_length", max_length=9, truncation=True)  # what a saved one may remember
    rows = rows_of(("Who won?", LONG), ("Where?", "In Oslo."))
    found = QuestionAnswering(max_length=max_length, stride=stride).encode(rows, tokenizer)
    expected = tokenizer(
        rows["question"].to_pylist(), rows["context"].to_pylist(), truncation="only_second", max_length=max_length,
        stride=stride, return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    assert found["input_ids"].to_pylist() == expected["input_ids"]
    assert found["row"].to_pylist() == expected["overflow_to_sample_mapping"]
    for i, offsets in enumerate(expected["offset_mapping"]):
        pairs = zip(offsets, expected.sequence_ids(i), strict=True)
        in_context = [(start, end) if part == 1 and end > start else (-1, -1) for (start, end), part in pairs]
        assert list(zip(found["char_starts"][i].as_py(), found["char_ends"][i].as_py(), strict=True)) == in_context
    assert max(map(len, found["input_ids"].to_pylist())) <= max_length


def test_a_question_that_is_too_long_is_cut_and_counted_and_any_row_fits():
    problem = QuestionAnswering(max_length=24, max_question_length=6, stride=500)
    found = problem.encode(rows_of(("why " * 30, LONG)), tiny_tokenizer())
    assert found["num_truncated"].to_pylist()[0] > 0
    assert set(found["num_truncated"].to_pylist()[1:]) == {0}
    assert max(map(len, found["input_ids"].to_pylist())) == 24


@pytest.mark.parametrize(
    ("tokenizer", "context", "text"),
    [
        (tiny_tokenizer("bert"), LONG, "Rome"),
        (tiny_tokenizer("roberta"), LONG, "Rome"),
        (by_characters(), CHINESE, "羅馬"),
        (by_characters(), CHINESE, "王小明"),
    ],
)
def test_labels_are_the_answers_tokens_in_windows_that_hold_it_and_0_in_others(tokenizer, context, text):
    problem = QuestionAnswering(max_length=24, stride=6, max_question_length=6)
    rows = rows_of(("誰贏了", context, answer(context, text))).add_column(0, "row_id", pa.array([4]))
    found, _ = encode(rows, problem, tokenizer)
    spans = [
        context[starts[first] : ends[last]] if (first, last) != (0, 0) else None
        for (first, last), starts, ends in zip(
            *(found[name].to_pylist() for name in ("labels", "char_starts", "char_ends")), strict=True
        )
    ]
    assert text in spans
    assert set(spans) <= {text, None}
    assert found["context"].to_pylist() == [context, *[None] * (len(found) - 1)]


# -- models --------------------------------------------------------------------------------------------


def checkpoint_of(tiny_model, problem: QuestionAnswering, architecture: str = "bert") -> Checkpoint:
    torch.manual_seed(1)
    return checkpoints.load(tiny_model(architecture), problem)


def test_logits_stand_at_their_tokens_when_virtual_tokens_are_inserted(tiny_model):
    problem = QuestionAnswering(max_length=96)
    checkpoint = checkpoint_of(tiny_model, problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    batch = Rows.from_table(rows, checkpoint.tokenizer, problem).batch(np.arange(4))
    adapted = PromptTuning(num_virtual_tokens=3).adapt(checkpoint.model, problem)
    found = problem.forward(adapted.eval(), batch)
    assert found.shape == (*batch["input_ids"].shape, 2)
    virtual = adapted.virtual_tokens
    from ftlib.models.virtual_tokens import detach

    detach(adapted)
    ids, at = batch["input_ids"], virtual.position
    by_hand = torch.cat((ids[:, :at], torch.tensor(virtual.ids).expand(len(ids), -1), ids[:, at:]), 1)
    mask, kinds = (torch.cat((batch[n][:, :at], torch.full((len(ids), 3), value), batch[n][:, at:]), 1)
                   for n, value in (("attention_mask", 1), ("token_type_ids", 0)))  # fmt: skip
    outputs = adapted(input_ids=by_hand, attention_mask=mask, token_type_ids=kinds)
    expected = torch.stack((outputs.start_logits, outputs.end_logits), -1)
    torch.testing.assert_close(found, torch.cat((expected[:, :at], expected[:, at + 3 :]), 1))


def test_the_loss_reads_the_context_and_the_first_token_only_and_padding_on_either_side_alike():
    problem = QuestionAnswering()
    logits = torch.randn(2, 5, 2)
    batch = {
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        "char_starts": torch.tensor([[-1, -1, 0, 4, -1], [-1, -1, 0, -1, -1]]),
        "labels": torch.tensor([[2, 3], [0, 0]]),
    }
    expected = [
        -torch.log_softmax(logits[0, [0, 2, 3], 0], 0)[1], -torch.log_softmax(logits[0, [0, 2, 3], 1], 0)[2],
        *(-torch.log_softmax(logits[1, [0, 2], k], 0)[0] for k in (0, 1)),
    ]  # fmt: skip
    torch.testing.assert_close(problem.loss(logits, batch), torch.stack(expected).mean())
    left = {name: value.roll(1, 1) if name != "labels" else value for name, value in batch.items()}
    left["char_starts"][0], left["attention_mask"][0] = batch["char_starts"][0], batch["attention_mask"][0]
    moved = logits.clone()
    moved[1] = logits[1].roll(1, 0)
    torch.testing.assert_close(problem.loss(moved, left), problem.loss(logits, batch))


def test_a_row_of_one_window_has_the_models_own_probabilities(tiny_model):
    problem = QuestionAnswering(no_answer=True, max_length=96)
    checkpoint = checkpoint_of(tiny_model, problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    found = _spans.read(problem.predict(checkpoint, rows))
    batch = Rows.from_table(rows, checkpoint.tokenizer, problem).batch(np.arange(len(rows)))
    with torch.inference_mode():
        logits = problem.forward(checkpoint.model, batch).numpy()
    for i, places in enumerate(found):
        starts = np.array(rows["char_starts"][i].as_py())
        inside = np.flatnonzero(starts >= 0)
        shares = np.exp(logits[i, [0, *inside]].astype(float))
        shares /= shares.sum(0)
        np.testing.assert_allclose(places.none, shares[0], atol=1e-5)
        np.testing.assert_allclose(places.at(starts[inside], starts[inside] + 1)[:, 0], shares[1:, 0], atol=1e-5)


def test_windows_of_a_row_count_by_their_odds_against_not_in_here():
    one = Window(np.array([0, 4]), np.array([3, 7]), np.log([[1.0, 3.0], [2.0, 1.0]]))
    two = Window(np.array([4, 8]), np.array([7, 9]), np.log([[9.0, 9.0], [5.0, 6.0]]))
    found = AnswerPlaces.of([one, two], no_answer=True)
    first = np.array([1, 2, 5, 1])  # the place that both have is taken from the first of equals
    np.testing.assert_allclose([*found.first, found.none[0]], first / first.sum())
    np.testing.assert_allclose(AnswerPlaces.of([one, two], no_answer=False).first, first[:3] / 8)
    biased = AnswerPlaces.of([one, two], no_answer=True, bias=2 * np.log(4))
    np.testing.assert_allclose(biased.none[0], 4 / 12)


# -- fusing --------------------------------------------------------------------------------------------


def places(context: str, tokens: list[str], first: list[float], last: list[float]) -> AnswerPlaces:
    starts = np.array([context.index(token) for token in tokens])
    ends = starts + [len(token) for token in tokens]
    return AnswerPlaces(starts, ends, np.array(first), np.array(last), np.zeros(2))


def aligned(context: str, *members: AnswerPlaces):
    predictions = [_spans.table([0], [member]) for member in members]
    return QuestionAnswering().align(predictions, pa.table({"context": [context]}))


def test_models_with_different_tokenizers_agree_on_characters():
    context = "Anna-Lena won."
    words = places(context, ["Anna-Lena", "won"], [0.9, 0.1], [0.8, 0.2])
    pieces = places(context, ["Anna", "-", "Lena", "won"], [0.3, 0.1, 0.5, 0.1], [0.1, 0.1, 0.7, 0.1])
    scores, layout = aligned(context, words, pieces)
    texts = layout.units["text"].to_pylist()
    at = texts.index("Lena")
    np.testing.assert_allclose(scores[:, at], [[0.9, 0.8], [0.5, 0.7]], atol=1e-6)
    target = QuestionAnswering().target.over(layout)
    assert target.decode(scores[0]) == ["Anna-Lena"]  # of what its tokens cannot tell apart, its own
    assert target.decode(scores[1]) == ["Lena"]
    assert target.decode(scores.mean(0)) == ["Lena"]
    whole = texts.index("Anna-Lena")
    np.testing.assert_allclose(scores.mean(0)[whole], [0.6, 0.75], atol=1e-6)


def test_candidates_end_after_they_begin_are_short_enough_and_never_missing():
    context = "Anna-Lena won."
    crossed = places(context, ["Anna", "Lena"], [0.0, 1.0], [1.0, 0.0])
    _, layout = aligned(context, crossed)
    assert (layout.units["end"].to_numpy() > layout.units["start"].to_numpy()).all()
    found = _spans.candidates([crossed], number=5, max_length=4, no_answer=True)
    assert found[0].tolist() == [-1, -1]
    assert ((found[1:, 1] - found[1:, 0]) <= 4).all()
    empty = AnswerPlaces(np.array([], int), np.array([], int), np.array([]), np.array([]), np.zeros(2))
    assert _spans.candidates([empty], number=5, max_length=4, no_answer=False).tolist() == [[-1, -1]]


def test_a_teachers_places_reach_the_students_tokens_and_the_rest_is_not_in_here():
    teacher = AnswerPlaces(
        np.array([0, 5, 10]), np.array([4, 9, 13]), np.array([0.1, 0.6, 0.3]), np.array([0.2, 0.2, 0.6]), np.zeros(2)
    )
    starts, ends = np.array([-1, -1, 0, 5, 7, -1]), np.array([-1, -1, 4, 7, 9, -1])  # the window lacks the last word
    found = np.exp(_spans.taught([teacher, teacher], starts, ends))
    np.testing.assert_allclose(found[:, 0], [0.3, 0, 0.1, 0.6, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], [0.6, 0, 0.2, 0, 0.2, 0], atol=1e-6)


def test_how_sure_of_no_answer_a_model_must_be_is_tuned_and_kept(tiny_model, tmp_path):
    problem = QuestionAnswering(no_answer=True, max_length=96)
    checkpoint = checkpoint_of(tiny_model, problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    tuned = problem.tune(checkpoint, rows)
    assert QuestionAnswering().tune(checkpoint, rows) == {}
    before = problem.measure(checkpoint, rows)["f1"]
    after = problem.measure(Checkpoint(checkpoint.model, checkpoint.tokenizer, {"tuned": tuned}), rows)["f1"]
    assert after >= before
    forced = Checkpoint(checkpoint.model, checkpoint.tokenizer, {"tuned": {"no_answer_bias": 60.0}})
    scores, layout = problem.align([problem.predict(forced, rows)], rows)
    assert set(problem.target.over(layout).decode(scores[0])) == {""}


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text", "said", "place"),
    [
        (CHINESE, CHINESE, "羅馬", "羅馬"),
        ("  王小明  在  羅馬  輸了。", "王小明 在 羅馬 輸了。", "羅馬", "羅馬"),
        ("<p>Ann <b>Lee</b> won.</p>", "Ann Lee won.", "Ann Lee", "Ann <b>Lee"),
        ("In  1959, Ann\u00a0\u00a0won.", "In 1959, Ann won.", "1959", "1959"),
    ],
)
def test_answers_tell_places_in_the_text_that_was_sent(given, text, said, place):
    rows = with_given(pa.table({"question": ["?"], "context": [text]}), pa.table({"context": [given]}), ["context"])
    start = text.index(said)
    units = pa.table({"start": [-1, start], "end": [-1, start + len(said)], "text": ["", said]})
    layout = Layout.of(np.array([2]), units)
    problem = QuestionAnswering(no_answer=True, num_answers=2)
    told = problem.answers(np.array([[0.1, 0.5], [0.9, 0.5]]), rows, layout)
    assert told["prediction"] == [said]
    assert given[told["start"][0] : told["end"][0]] == place
    assert told["confidence"][0] == pytest.approx(0.45)
    assert told["answers"][0][1] == {"text": "", "start": None, "end": None, "score": pytest.approx(0.05)}


@pytest.mark.slow
def test_the_sample_runs_to_a_served_model_that_answers_as_in_training(tmp_path):
    run = run_sample(
        "question_answering",
        tmp_path,
        ["data.sources.all.num_rows=160", "training.num_train_epochs=1", "evaluation.bootstrap_samples=100"],
    )
    found = run.evaluation
    assert [m["name"] for m in found["members"]] == ["full", "lora", "prompt", "distilled"]
    assert {f["name"] for f in found["fusions"]} == {"averaging", "weighted", "stacking", "voting", "greedy"}
    assert {"f1", "exact_match", "no_answer_f1", "has_answer_exact_match"} <= set(
        found["members"][0]["metrics"]["test"]
    )
    assert (run.folder("report") / "report.html").stat().st_size > 10_000
    check_one_answer(run)
    context = "  It has  52,117   inhabitants.  It lies on the river Dove."
    told = run.served.predict([{"question": "How many people live there?", "context": context}]).iloc[0]
    for one in told["answers"]:
        if one["start"] is not None:
            assert " ".join(context[one["start"] : one["end"]].split()) == one["text"]
    assert run.served.predict([{"question": "", "context": context}])["reason"][0] == "empty question"
