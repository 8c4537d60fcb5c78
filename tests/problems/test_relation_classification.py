"""Relation classification: entities are read in every form, marked, and never lost when a text is cut."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.base import Source
from ftlib.models import checkpoints
from ftlib.problems import _marked_pairs
from ftlib.problems._marked_pairs import Entity, Pair, read_pair
from ftlib.problems.relation_classification import RelationClassification
from ftlib.targets.single_label import SingleLabel
from tests import contracts
from tests.conftest import ARCHITECTURES
from tests.samples import check_one_answer, run_sample

TEXT = "Bill was born in Seattle, not in Boston."
PROBLEM = RelationClassification(max_length=64)


def table(*rows: tuple) -> pa.Table:
    """Return rows of text, head and tail (objects as JSON, so that a column has one type)."""
    written = [[v if isinstance(v, str) or v is None else json.dumps(v) for v in row] for row in rows]
    return pa.table(dict(zip(("text", "head", "tail"), map(list, zip(*written, strict=True)), strict=True)))


def spelled(problem, rows, tokenizer):
    return [tokenizer.decode(ids) for ids in problem.encode(rows, tokenizer)["input_ids"].to_pylist()]


# -- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        [0, 4],
        "[0, 4]",
        {"start": 0, "end": 4},
        '{"start": 0, "end": 4}',
        "Bill",
        {"start": "0", "end": "4"},
        [0.0, 4.0],
    ],
)
def test_an_entity_is_read_in_every_form(head):
    assert read_pair(TEXT, head, [17, 24]) == Pair(TEXT, Entity(0, 4), Entity(17, 24))


def test_an_entity_may_have_a_type():
    pair = read_pair(TEXT, {"start": 0, "end": 4, "type": "person"}, "Seattle", typed=False)
    assert pair == Pair(TEXT, Entity(0, 4, "person"), Entity(17, 24))


def test_tags_in_the_text_mark_the_entities():
    tagged = "<e2>Bill</e2> was born in <e1>Seattle</e1>, not in Boston."
    assert read_pair(tagged, tagged, tagged) == Pair(TEXT, Entity(17, 24), Entity(0, 4))


@pytest.mark.parametrize(
    ("head", "tail", "reason"),
    [
        ([30, 99], [0, 4], "misplaced head: 30 to 99 of 40 characters"),
        ([-1, 4], [17, 24], "misplaced head: -1 to 4 of 40 characters"),
        ([4, 0], [17, 24], "misplaced head: 4 to 0 of 40 characters"),
        ([4, 4], [17, 24], "head is empty"),
        ([4, 5], [17, 24], "head is empty"),
        ([0, 4], "", "tail is empty"),
        ([0, 20], [17, 24], "head and tail overlap"),
        ([0, 4], [0, 4], "head and tail overlap"),
        ([0, 4], "Paris", "misplaced tail: 'Paris' is not in the text"),
        ("in", [17, 24], "misplaced head: 'in' is in the text 2 times"),
        ([0], [17, 24], "unreadable head: not [start, end], not an object with start and end, no words"),
        ([0, 4], {"from": 1}, "unreadable tail: not [start, end], not an object with start and end, no words"),
        ([0, True], [17, 24], "unreadable head: not [start, end], not an object with start and end, no words"),
    ],
)
def test_an_entity_of_no_use_is_a_reason(head, tail, reason):
    assert read_pair(TEXT, head, tail) == reason
    assert PROBLEM.check_inputs(table((TEXT, head, tail))).to_pylist() == [reason]


def test_tags_that_do_not_match_are_a_reason():
    assert "unreadable tags" in read_pair("<e1>Bill</e1> was <e2>born", "", "")


def test_typed_markers_need_types():
    problem = RelationClassification(markers="typed")
    rows = table((TEXT, {"start": 0, "end": 4, "type": "person"}, [17, 24]), (TEXT, [0, 4], [17, 24]))
    assert problem.check_inputs(rows).to_pylist() == [
        "tail has no type, which markers: typed needs",
        "head has no type, which markers: typed needs",
    ]


# -- after a repair ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "head", "tail"),
    [
        ("  Bill  was born\tin <b>Seattle</b>.", "Bill", "Seattle"),
        ("<p>Müller &amp; S&ouml;hne</p> bought &quot;Bill&quot;", "Müller &amp; S&ouml;hne", "Bill"),
        ("The cafÃ© of Bill is in Orl\u00e9ans\u200b .", "cafÃ©", "Orl\u00e9ans"),
        ("Bill met\r\n\r\nBill Junior", "Bill Junior", "met"),
    ],
)
def test_entities_follow_a_text_that_cleaning_repairs(text, head, tail):
    spans = [[text.rindex(words), text.rindex(words) + len(words)] for words in (head, tail)]
    rows = pa.table({"row_id": [0], "split": ["all"], "text": [text], "head": [spans[0]], "tail": [spans[1]]})
    kept = clean(rows.append_column("label", pa.array(["x"])), PROBLEM, Cleaning()).table.to_pylist()[0]
    from ftlib.data.normalize import normalize

    for name, words in (("head", head), ("tail", tail)):
        span = json.loads(kept[name])
        assert kept["text"][span["start"] : span["end"]] == normalize(pa.array([words]), Cleaning())[0].as_py()


def test_tagged_texts_pass_through_cleaning_that_takes_tags_for_markup():
    tagged = "The  <e1>engine</e1> &amp; its <e2>parts</e2>"
    for cleaning in (Cleaning(), Cleaning(strip_html=False)):
        rows = pa.table({"row_id": [0], "split": ["all"], "text": [tagged], "head": [tagged], "tail": [tagged]})
        kept = clean(rows.append_column("label", pa.array(["x"])), PROBLEM, cleaning).table.to_pylist()[0]
        found = [json.loads(kept[name]) for name in ("head", "tail")]
        assert [kept["text"][s["start"] : s["end"]] for s in found] == ["engine", "parts"]
        assert "<e" not in kept["text"]


# -- encoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markers", "expected"),
    [
        ("punctuation", "@ bill @ was born in # seattle #, not in boston."),
        ("typed", "@ * person * bill @ was born in # ^ city ^ seattle #, not in boston."),
        ("brackets", "[e1] bill [/e1] was born in [e2] seattle [/e2], not in boston."),
    ],
)
def test_the_model_reads_marked_entities(markers, expected, untrained):
    tokenizer = untrained("bert")
    rows = table((TEXT, {"start": 0, "end": 4, "type": "person"}, {"start": 17, "end": 24, "type": "city"}))
    ids = RelationClassification(markers=markers, max_length=64).encode(rows, tokenizer)["input_ids"][0].as_py()
    assert ids == tokenizer(expected)["input_ids"]


def test_the_tail_may_come_first(untrained):
    tokenizer = untrained("bert")
    ids = PROBLEM.encode(table((TEXT, "Seattle", "Bill")), tokenizer)["input_ids"][0].as_py()
    assert ids == tokenizer("# bill # was born in @ seattle @, not in boston.")["input_ids"]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Return a function that gives the tokenizer of an untrained model: it knows every sign."""
    done = {}

    def tokenizer(family):
        if family not in done:
            folder = tmp_path_factory.mktemp(family)
            checkpoints.fetch(f"random:{family}", folder)
            done[family] = checkpoints.load_tokenizer(folder)
        return done[family]

    return tokenizer


FAR = " and then a long time passed".join(["It began with Bill", *[""] * 20, " until Seattle came", *[""] * 9])


@pytest.mark.parametrize(
    ("family", "max_length"),
    [("bert", 16), ("bert", 24), ("bert", 40), ("bert", 80), ("roberta", 24), ("roberta", 40), ("roberta", 80)],
)
def test_a_long_text_keeps_both_entities_and_what_is_near_them(family, max_length, untrained):
    tokenizer, problem = untrained(family), RelationClassification(max_length=max_length)
    near = "a long time passed. " * 20 + "Bill met the mayor of Seattle. " + "and more. " * 30
    rows = table((FAR, "Bill", "Seattle"), (near, "Bill", "Seattle"), ("He saw Bill in Seattle", "Bill", "Seattle"))
    encoded = problem.encode(rows, tokenizer)
    whole = RelationClassification(max_length=512).encode(rows, tokenizer)
    for i, row in enumerate(encoded.to_pylist()):
        assert len(row["input_ids"]) <= max_length
        assert row["num_truncated"] == len(whole["input_ids"][i].as_py()) - len(row["input_ids"])
        text = tokenizer.decode(row["input_ids"]).lower().replace(" ", "")
        assert "@bill@" in text
        assert "#seattle#" in text
    if max_length >= 24:
        near_ids = encoded["input_ids"][1].as_py()
        assert len(near_ids) >= max_length - 8  # the room is used
        assert "@bill@metthemayorof#seattle#" in tokenizer.decode(near_ids).lower().replace(" ", "")


def test_entities_too_long_for_the_model_keep_their_marks(untrained):
    tokenizer, problem = untrained("bert"), RelationClassification(max_length=16)
    long = "the " * 30
    rows = table((f"{long}firm met {long}bank", [0, len(long) + 4], [len(long) + 9, 2 * len(long) + 13]))
    text = spelled(problem, rows, tokenizer)[0]
    assert text.count("@") == 2
    assert text.count("#") == 2
    assert len(problem.encode(rows, tokenizer)["input_ids"][0].as_py()) <= 16


def test_scripts_without_spaces_are_cut_between_characters(untrained):
    text = "山" * 60 + "田中" + "川" * 40 + "大阪" + "海" * 60
    pair = read_pair(text, "田中", "大阪")
    found = _marked_pairs.window(pair, (("@ ", " @"), ("# ", " #")), lambda t: len(t) <= 80)
    assert 75 <= len(found) <= 80
    assert "@ 田中 @" in found
    assert "# 大阪 #" in found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_encode_alike_alone_and_together(architecture, tiny_model):
    tokenizer = checkpoints.load_tokenizer(tiny_model(architecture))
    problem, rows = RelationClassification(max_length=18), contracts.raw_rows(PROBLEM)
    together = problem.encode(rows, tokenizer)
    alone = [problem.encode(rows.slice(i, 1), tokenizer) for i in range(len(rows))]
    assert pa.concat_tables(alone).to_pylist() == together.to_pylist()
    assert problem.encode(rows.slice(0, 0), tokenizer).schema == together.schema


# -- labels --------------------------------------------------------------------------------------------


def test_labels_are_as_in_text_classification():
    problem = RelationClassification(labels=("none", "Cause-Effect(e1,e2)"))
    assert problem.target == SingleLabel(("none", "Cause-Effect(e1,e2)"))
    assert problem.bind(("none",)) == problem
    with pytest.raises(ValidationError, match="'a' alone leaves nothing to learn"):
        RelationClassification(labels=("a",))


# -- the sample ----------------------------------------------------------------------------------------


def test_sample_news_are_the_same_for_a_seed_and_their_marks_survive_cleaning():
    source = Source.named("sample_relations")(num_rows=500, seed=3)
    columns = {name: name for name in ("text", "head", "tail", "label")}
    rows = collect({"all": source}, columns).table
    assert rows.equals(collect({"all": source}, columns).table)
    cleaned = clean(rows, PROBLEM, Cleaning())
    assert 0.85 * 500 < len(cleaned.table) < 500
    assert {"misplaced head", "head and tail overlap", "head is empty"} <= set(cleaned.summary["rejected"])
    came = {row["row_id"]: row for row in rows.to_pylist()}
    changed = 0
    for row in cleaned.table.to_pylist():
        before = came[row["row_id"]]
        changed += row["text"] != before["text"]
        for name in ("head", "tail"):
            span = json.loads(row[name])
            assert row["text"][span["start"] : span["end"]] == before["text"][slice(*before[name])]
    assert changed > 10


@pytest.mark.slow
def test_the_sample_runs_to_a_served_model_that_answers_as_in_training(tmp_path):
    run = run_sample(
        "relation_classification",
        tmp_path,
        ["data.sources.all.num_rows=200", "training.num_train_epochs=1", "evaluation.bootstrap_samples=100"],
    )
    found = run.evaluation
    assert [m["name"] for m in found["members"]] == ["full", "roberta", "lora", "distilled"]
    assert {f["name"] for f in found["fusions"]} == {"averaging", "weighted", "stacking", "voting", "greedy"}
    check_one_answer(run)
    text = "<p>Mara Lind joined  Norvik in May.</p>"
    answers = run.served.predict(
        [
            {"text": text, "head": "[3, 12]", "tail": "[21, 27]"},
            {"text": "Mara Lind joined Norvik in May.", "head": "Mara Lind", "tail": "Norvik"},
            {"text": text, "head": "[3, 12]", "tail": "[21, 99]"},
        ]
    )
    assert answers["prediction"][0] == answers["prediction"][1]
    assert answers["confidence"][0] == pytest.approx(answers["confidence"][1])
    assert answers["reason"][2].startswith("misplaced tail: 21 to 99")
