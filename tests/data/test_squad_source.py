"""SQuAD's JSON, and the sample of questions."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from ftlib.data.clean import Cleaning, clean
from ftlib.data.collect import collect
from ftlib.data.sources.sample_questions import SampleQuestions
from ftlib.data.sources.squad import Squad
from ftlib.data.split import Splitting, split
from ftlib.errors import DataError
from ftlib.problems.question_answering import QuestionAnswering

COLUMNS = {"question": "question", "context": "context", "answers": "answers", "group": "title"}
TEXT = "In 1959, Ann won. Bob lost in 1960."


def article(title: str | None, *questions: dict, context: str = TEXT) -> dict:
    return {**({"title": title} if title else {}), "paragraphs": [{"context": context, "qas": list(questions)}]}


def question(asked: str, *answers: tuple[str, int], **more) -> dict:
    return {"id": asked, "question": asked, "answers": [{"text": t, "answer_start": s} for t, s in answers], **more}


@pytest.fixture
def write(tmp_path):
    def give(*articles, name: str = "train.json") -> Squad:
        (tmp_path / name).write_text(json.dumps({"version": "1.1", "data": list(articles)}), encoding="utf8")
        return Squad(path=str(tmp_path / name))

    return give


def test_each_question_is_a_row_with_its_context_answers_and_article(write):
    source = write(article("Race", question("Who won?", ("Ann", 9), ("Ann", 9)), question("When?", ("1959", 3))))
    assert source.columns() == ["question", "context", "answers", "title", "id"]
    assert source.read(COLUMNS).to_pylist() == [
        {"question": "Who won?", "context": TEXT, "answers": [{"text": "Ann", "start": 9}] * 2, "group": "Race"},
        {"question": "When?", "context": TEXT, "answers": [{"text": "1959", "start": 3}], "group": "Race"},
    ]


def test_questions_of_version_2_that_cannot_be_answered_have_no_answers(write):
    impossible = question("Who fell?", ("Bob", 18), is_impossible=True, plausible_answers=[])
    rows = write(article(None, impossible, question("Who ran?"))).read(COLUMNS).to_pylist()
    assert [(row["answers"], row["group"]) for row in rows] == [([], "article 1")] * 2


def test_questions_with_something_missing_are_rejected_by_cleaning_with_the_reason(write):
    broken = article(
        "Race", {"id": 1, "question": None, "answers": []}, {"question": "Who?"}, question("When?", ("1959", 3))
    )
    table = collect({"all": write(broken)}, COLUMNS).table
    cleaned = clean(table, QuestionAnswering(), Cleaning(max_rejected_ratio=1))
    assert cleaned.rejected["reason"].to_pylist() == ["empty question", "missing label"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"question": "Who?"}]', "is not in the form of SQuAD"),
        ('{"data": {"a": 1}}', "expected an object with `data`, a list of articles"),
        ('{"data": [1]}', "article 1 is no object"),
        ('{"data": []}', "holds no question"),
        ('{"data": [', "line 1 is not valid JSON"),
    ],
)
def test_a_file_of_another_form_is_refused_in_a_line(content, line, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=line):
        Squad(path=str(tmp_path / "x.json")).read(COLUMNS)


def test_columns_are_told_without_reading_all_and_wrong_forms_are_refused_at_once(tmp_path):
    (tmp_path / "x.json").write_text('[{"question": "Who?"}]')
    with pytest.raises(DataError, match="is not in the form of SQuAD"):
        Squad(path=str(tmp_path / "x.json")).columns()


def test_no_article_is_in_two_splits(write):
    articles = [
        article(f"T{i}", *(question(f"Who {i} {k}?", ("Ann", 9)) for k in range(4)), context=f"{TEXT} {i}")
        for i in range(12)
    ]
    table = collect({"all": write(*articles)}, COLUMNS).table
    problem = QuestionAnswering()
    tables = split(clean(table, problem, Cleaning()).table, problem, Splitting(group_column="title"), seed=1).tables
    groups = [set(part["group"].to_pylist()) for part in tables.values()]
    assert set.union(*groups) == {f"T{i}" for i in range(12)}
    assert sum(map(len, groups)) == 12


def test_the_sample_holds_every_defect_and_what_cleaning_keeps_is_right():
    table = collect({"all": SampleQuestions(num_rows=600, no_answer_ratio=0.2)}, COLUMNS).table
    cleaned = clean(table, QuestionAnswering(no_answer=True), Cleaning())
    assert set(cleaned.summary["rejected"]) == {"duplicate", "misplaced answer", "empty question"}
    assert cleaned.summary["repaired"]["html"]
    assert cleaned.summary["repaired"]["whitespace"]
    given = dict(zip(table["row_id"].to_pylist(), table["answers"].to_pylist(), strict=True))
    moved = 0
    for row in cleaned.table.to_pylist():
        for answer in row["answers"]:
            assert row["context"][answer["start"] :].startswith(answer["text"])
            moved += given[row["row_id"]][0]["start"] != answer["start"]
    assert moved > 10
    assert 0.1 < cleaned.table["answers"].to_pylist().count([]) / len(cleaned.table) < 0.3


def test_equal_seeds_write_equal_questions():
    one, same, other = (SampleQuestions(num_rows=40, seed=seed) for seed in (1, 1, 2))
    assert one.read(COLUMNS).equals(same.read(COLUMNS))
    assert not one.read(COLUMNS).equals(other.read(COLUMNS))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_answers_in_records_and_lists_of_records_pass_collecting(tmp_path):
    path = tmp_path / "hub.parquet"
    import pyarrow.parquet as pq

    hub = pa.array([{"text": ["Ann"], "answer_start": [9]}, {"text": [], "answer_start": []}],
                   pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]))  # fmt: skip
    pq.write_table(pa.table({"question": ["Who won?", "Who ran?"], "context": [TEXT, TEXT], "answers": hub}), path)
    from ftlib.data.sources.parquet import Parquet

    table = collect({"all": Parquet(path=str(path))}, {k: k for k in ("question", "context", "answers")}).table
    cleaned = clean(table, QuestionAnswering(no_answer=True), Cleaning())
    assert cleaned.table["answers"].to_pylist() == [[{"text": "Ann", "start": 9}], []]
