"""Several columns of a source become one column of lists, as choices are."""

from __future__ import annotations

import pytest

from ftlib.data.collect import check_columns, collect
from ftlib.data.sources.base import Source
from ftlib.errors import DataError
from ftlib.params.loading import load_experiment

PARAMS = {
    "name": "swag",
    "base_model": "nowhere",
    "problem": "multiple_choice",
    "data": {
        "sources": {"all": "rows.csv"},
        "columns": {"text": "start", "choices": ["ending0", "ending1"], "answer": "label"},
    },
    "stages": [{"name": "full", "strategy": "full"}],
}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("start,ending0,ending1,label\nShe opens,the door.,the sky.,0\nHe eats,,soup.,1\n")
    return Source.model_validate(str(path))


def test_columns_given_as_a_list_are_gathered_row_by_row(rows):
    columns = load_experiment(PARAMS).source_columns()
    assert columns == {"text": "start", "choices": ("ending0", "ending1"), "answer": "label"}
    check_columns({"all": rows}, columns)
    found = collect({"all": rows}, columns).table
    assert found.column_names == ["row_id", "split", "text", "choices", "answer"]
    assert found["choices"].to_pylist() == [["the door.", "the sky."], ["soup."]]


def test_one_of_them_that_is_not_there_is_named_with_the_near_ones(rows):
    for ask in (check_columns, collect):
        with pytest.raises(DataError, match=r"ending2.*ending"):
            ask({"all": rows}, {"text": "start", "choices": ("ending0", "ending2"), "answer": "label"})
