from __future__ import annotations

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlib.errors import DataError, ParamsError
from ftlib.targets.base import Target
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

UNKNOWN = "unknown label '{}'"
MISSING = "missing label"
NUMBER = "label is not a number: '{}'"
STRANGE = ["nan", "inf", "-Infinity", "1e999", "3,8", "five", "0x1", "1_0", "٣"]


def read(target: Target, values: object, kind: pa.DataType | None = None) -> list[object]:
    """What parsing gives for each row: its label, or the reason as a string after '!'."""
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
    labels, reasons = target.parse(array)
    assert len(labels) == len(reasons) == len(array)
    pairs = list(zip(labels.to_pylist(), reasons.to_pylist(), strict=True))
    assert all((label is None) != (reason is None) for label, reason in pairs)
    return [f"!{reason}" if reason else label for label, reason in pairs]


# -- one label -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", " b \n", "", None, "  "], None, ["a", "b", f"!{MISSING}", f"!{MISSING}", f"!{MISSING}"]),
        ([0, 1, None], pa.int64(), ["0", "1", f"!{MISSING}"]),
        ([0, 255], pa.uint8(), ["0", "255"]),
        ([1.0, 2.0, None], pa.float64(), ["1", "2", f"!{MISSING}"]),
        ([1.5, float("nan"), float("inf"), -2.0], pa.float64(), ["1.5", f"!{MISSING}", f"!{MISSING}", "-2"]),
        ([2.3, 1e20], pa.float32(), ["2.3", "1e+20"]),
        ([1.0, 2.5], pa.float16(), ["1", "2.5"]),
        ([decimal.Decimal("1.00"), decimal.Decimal("2.50")], None, ["1", "2.5"]),
        ([True, False, None], None, ["true", "false", f"!{MISSING}"]),
        (["a", "b"], pa.large_string(), ["a", "b"]),
        (["a", "b"], pa.string_view(), ["a", "b"]),
        ([None, None], pa.null(), [f"!{MISSING}", f"!{MISSING}"]),
        ([b"a"], pa.binary(), ["a"]),
        ([["a"], None], None, ["!label is a list, expected one label (multi_label: true takes lists)", f"!{MISSING}"]),
        ([{"x": 1}], None, ["!label is an object, expected a name or an id"]),
    ],
)
def test_labels_of_any_type_become_names(values, kind, expected):
    assert read(SingleLabel(), values, kind) == expected


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        (("neg", "pos"), ["pos", " neg", "Pos"], ["pos", "neg", "!" + UNKNOWN.format("Pos")]),
        (("neg", "pos"), [0, 1, 2, -1], ["neg", "pos", "!" + UNKNOWN.format(2), "!" + UNKNOWN.format(-1)]),
        (("neg", "pos"), [1.0, float("nan"), 0.5], ["pos", f"!{MISSING}", "!" + UNKNOWN.format(0.5)]),
        (("neg", "pos"), ["0", "1", "1.0", ""], ["neg", "pos", "pos", f"!{MISSING}"]),
        (("neg", "pos"), [True, False], ["!" + UNKNOWN.format("true"), "!" + UNKNOWN.format("false")]),
        (("1", "2", "3"), [1, 3, 0], ["1", "3", "!" + UNKNOWN.format(0)]),
        (("1", "2", "3"), [1.0, 3.0], ["1", "3"]),
        (("1.0", "2.0"), [1, 2], ["1.0", "2.0"]),
        (("01", "02"), [1, 2], ["01", "02"]),
        (("False", "True"), [True, False], ["True", "False"]),
        (("false", "true"), ["True", "FALSE"], ["true", "false"]),
        (("0", "1"), [True, False], ["1", "0"]),
        (("a", "b"), ["x" * 50], ["!" + UNKNOWN.format("x" * 37 + "...")]),
        (("a", "b"), ["9" * 5000], ["!" + UNKNOWN.format("9" * 37 + "...")]),
    ],
)
def test_labels_given_as_names_or_ids_become_the_known_names(labels, values, expected):
    assert read(SingleLabel(labels), values) == expected


def test_ids_with_gaps_mean_the_same_before_and_after_the_labels_are_learned():
    column = pa.array([1, 5, 3, 1])
    names, _ = SingleLabel().parse(column)
    target = SingleLabel(SingleLabel().learn(names))
    assert target.labels == ("1", "3", "5")
    assert read(target, column) == names.to_pylist() == ["1", "5", "3", "1"]


def test_a_pandas_column_of_ids_with_gaps_reads_as_integers():
    frame = pd.DataFrame({"label": pd.Series([1, None, 0])})
    assert frame["label"].dtype == float
    assert read(SingleLabel(), pa.Table.from_pandas(frame)["label"]) == ["1", f"!{MISSING}", "0"]


def test_a_pandas_category_reads_as_its_names():
    frame = pd.DataFrame({"label": pd.Categorical(["b", "a", None])})
    assert read(SingleLabel(), pa.Table.from_pandas(frame)["label"]) == ["b", "a", f"!{MISSING}"]


def test_bytes_that_are_not_text_are_refused():
    with pytest.raises(DataError, match="labels of type binary cannot be read"):
        SingleLabel().parse(pa.array([b"\xff"]))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        ([], ()),
    ],
)
def test_learned_labels_are_sorted_numbers_as_numbers(column, expected):
    assert SingleLabel().learn(pa.array(column, pa.string())) == expected


# -- several labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([["b", "a", "b"], [], None, ["c", None]], None, [["a", "b"], [], f"!{MISSING}", f"!{MISSING}"]),
        (["b, a", "a;b", "a|b|", " a "], None, [["a", "b"], ["a", "b"], ["a", "b"], ["a"]]),
        (["", None, ",", "[]"], None, [f"!{MISSING}"] * 3 + [[]]),
        (["['b', 'a']", '["a"]', "[1, 2]", "[ ]"], None, [["a", "b"], ["a"], ["1", "2"], []]),
        ([[2, 1], [10]], None, [["1", "2"], ["10"]]),
        ([[1.0, 2.0]], None, [["1", "2"]]),
        ([1, None], pa.int64(), [["1"], f"!{MISSING}"]),
        ([["a", "b"], ["b", "a"]], pa.list_(pa.string(), 2), [["a", "b"], ["a", "b"]]),
        ([["a"]], pa.large_list(pa.large_string()), [["a"]]),
        ([[], []], pa.list_(pa.null()), [[], []]),
        ([None], pa.null(), [f"!{MISSING}"]),
    ],
)
def test_several_labels_are_read_from_lists_and_from_text(values, kind, expected):
    assert read(MultiLabel(), values, kind) == expected


def test_several_labels_come_in_the_order_of_the_known_names():
    target = MultiLabel(("joy", "anger", "fear"))
    assert read(target, [["fear", "joy"], ["2", "0"], []]) == [["joy", "fear"], ["joy", "fear"], []]
    assert read(target, [[2, 0], [3]]) == [["joy", "fear"], "!" + UNKNOWN.format(3)]


def test_a_row_with_one_unknown_label_is_rejected_whole_and_names_the_first():
    assert read(MultiLabel(("a", "b")), [["x", "a", "y"], ["a"]]) == ["!" + UNKNOWN.format("x"), ["a"]]


def test_slices_and_chunks_of_lists_read_as_the_whole():
    whole = pa.array([["a"], None, ["b", "a"], [], ["c"], ["b"]])
    for start in range(len(whole)):
        assert read(MultiLabel(), whole.slice(start)) == read(MultiLabel(), whole)[start:]
    assert read(MultiLabel(), pa.chunked_array([whole.slice(0, 2), whole.slice(2)])) == read(MultiLabel(), whole)


def test_a_list_of_dictionary_encoded_names_is_read():
    values = pa.array(["b", "a", "b"]).dictionary_encode()
    assert read(MultiLabel(), pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)) == [["a", "b"], ["b"]]


# -- numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int32(), [1.0, f"!{MISSING}"]),
        ([3.8, float("nan"), float("inf"), -1e300], None, [3.8, f"!{MISSING}", f"!{NUMBER.format('inf')}",
                                                           f"!{NUMBER.format('-1e+300')}"]),
        (["3.8", " 4\t", "+1.5", "-.5", "1e3", "2."], None, [3.8, 4.0, 1.5, -0.5, 1000.0, 2.0]),
        (STRANGE, None, [f"!{NUMBER.format(text)}" for text in STRANGE]),
        (["9" * 30 + "," + "9" * 30], None, [f"!{NUMBER.format('9' * 30 + ',' + '9' * 6 + '...')}"]),
        (["", None, " "], None, [f"!{MISSING}"] * 3),
        ([True, None], None, [f"!{NUMBER.format('true')}", f"!{MISSING}"]),
        ([[1.5], None], None, [f"!{NUMBER.format('1.5')}", f"!{MISSING}"]),
        ([decimal.Decimal("2.50")], None, [2.5]),
        ([None], pa.null(), [f"!{MISSING}"]),
    ],
)  # fmt: skip
def test_numbers_are_read_from_numbers_and_from_text(values, kind, expected):
    assert read(Value(), values, kind) == expected


def test_numbers_have_no_labels_to_learn():
    assert Value().learn(pa.array([1.0, 2.0])) == ()


# -- laws ----------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
single_columns = st.one_of(
    st.lists(st.none() | texts, max_size=12).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=12).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.none() | st.floats(), max_size=12).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.floats(width=32), max_size=12).map(lambda v: pa.array(v, pa.float32())),
    st.lists(st.none() | st.booleans(), max_size=12).map(lambda v: pa.array(v, pa.bool_())),
)
list_columns = st.lists(st.none() | st.lists(st.none() | texts, max_size=4), max_size=12).map(
    lambda v: pa.array(v, pa.list_(pa.string()))
)
columns = st.one_of(single_columns, list_columns)
known = st.lists(texts.map(str.strip).filter(bool), min_size=1, max_size=5, unique=True).map(tuple)
targets = st.one_of(
    st.just(SingleLabel()), known.map(SingleLabel), st.just(MultiLabel()), known.map(MultiLabel), st.just(Value())
)


@given(targets, columns)
def test_parsing_keeps_every_row_with_a_label_or_a_reason(target: Target, column: pa.Array):
    read(target, column)


@given(targets, columns, st.integers(0, 12))
def test_parsing_does_not_see_chunks(target: Target, column: pa.Array, cut: int):
    chunked = pa.chunked_array([column.slice(0, cut), column.slice(cut)], column.type)
    assert read(target, chunked) == read(target, column)


@given(st.sampled_from([SingleLabel, MultiLabel, Value]), columns)
def test_canonical_labels_read_as_themselves_once_learned(kind: type[Target], column: pa.Array):
    canonical, _ = kind().parse(column)
    target = Value() if kind is Value else kind(kind().learn(canonical))
    again, reasons = target.parse(canonical)
    assert again.drop_null() == canonical.drop_null()
    assert reasons.drop_null().to_pylist() == [MISSING] * canonical.null_count


@given(st.sampled_from([SingleLabel, MultiLabel]), columns)
def test_the_source_reads_the_same_with_the_labels_it_taught(kind: type[Target], column: pa.Array):
    canonical, reasons = kind().parse(column)
    learned = kind().learn(canonical)
    if learned:
        again, again_reasons = kind(learned).parse(column)
        assert (again.to_pylist(), again_reasons.to_pylist()) == _reordered(canonical, reasons, learned)


def _reordered(canonical: pa.Array, reasons: pa.Array, learned: tuple[str, ...]) -> tuple[list, list]:
    rows = [sorted(row, key=learned.index) if isinstance(row, list) else row for row in canonical.to_pylist()]
    return rows, reasons.to_pylist()


@given(known, st.data())
def test_names_survive_encoding_and_decoding(labels: tuple[str, ...], data: st.DataObject):
    answers = data.draw(st.lists(st.sampled_from(labels), max_size=8))
    target = SingleLabel(labels)
    ids = target.encode(pa.array(answers, pa.string()))
    assert ids.dtype == np.int64
    assert target.decode(np.eye(len(labels))[ids]) == answers


@given(known, st.data())
def test_sets_of_names_survive_encoding_and_decoding(labels: tuple[str, ...], data: st.DataObject):
    answers = data.draw(st.lists(st.sets(st.sampled_from(labels)), max_size=8))
    target = MultiLabel(labels)
    hot = target.encode(pa.array([list(row) for row in answers], pa.list_(pa.string())))
    assert hot.dtype == np.float32
    assert hot.shape == (len(answers), len(labels))
    assert [set(row) for row in target.decode(hot)] == answers
    assert (target.predicted(hot) == hot).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
def test_numbers_survive_encoding_and_decoding(values: list[float]):
    encoded = Value().encode(pa.array(values, pa.float64()))
    assert encoded.dtype == np.float32
    assert Value().decode(encoded[:, None]) == values


# -- refusals ------------------------------------------------------------------------------------------


def test_encoding_an_unknown_label_names_the_near_ones():
    with pytest.raises(DataError, match=r"1 of 2 labels: unknown label 'bilign'. Did you mean 'billing'"):
        SingleLabel(("billing", "bug")).encode(pa.array(["bug", "bilign"]))
    with pytest.raises(DataError, match="unknown label 'bilign'"):
        MultiLabel(("billing", "bug")).encode(pa.array([["bug", "bilign"]]))


@pytest.mark.parametrize(
    ("target", "column"),
    [
        (SingleLabel(("a", "b")), pa.array(["a", None])),
        (MultiLabel(("a", "b")), pa.array([["a"], None])),
        (Value(), pa.array([1.0, None])),
    ],
)
def test_encoding_a_missing_label_is_refused(target: Target, column: pa.Array):
    with pytest.raises(DataError, match="1 of 2 labels are missing"):
        target.encode(column)


@pytest.mark.parametrize("labels", [("a", "a"), ("",), (" a",), ("a\n",)])
def test_labels_that_nothing_could_match_are_refused(labels: tuple[str, ...]):
    with pytest.raises(ParamsError, match="labels: "):
        SingleLabel(labels)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float):
    with pytest.raises(ParamsError, match="threshold: "):
        MultiLabel(("a", "b"), threshold)
