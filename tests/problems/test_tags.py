"""Tags: reading schemes, spans, legal decoding, and scores against seqeval and conlleval."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn

from ftlib.errors import DataError
from ftlib.evaluation.measures import check_metric, measure, value_of
from ftlib.targets.layout import Layout
from ftlib.targets.tag_reading import as_lists
from ftlib.targets.tag_spans import best_legal, spans, tag_set
from ftlib.targets.tags import OF_SPANS, OF_WORDS, Tags

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-ORG", "I-ORG")
POS = ("ADJ", "NOUN", "PUNCT", "VERB")

rows_of_tags = st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=9), min_size=1, max_size=8)


def ids_of(rows: list[list[str]], labels: tuple[str, ...] = LABELS) -> np.ndarray:
    return np.array([labels.index(tag) for row in rows for tag in row], dtype=np.int64)


def layout_of(rows: list[list[str]]) -> Layout:
    return Layout.of(np.array([len(row) for row in rows]))


def scores_of(ids: np.ndarray, size: int, sure: float = 0.9) -> np.ndarray:
    scores = np.full((len(ids), size), (1 - sure) / (size - 1))
    scores[np.arange(len(ids)), ids] = sure
    return scores


def found(rows: list[list[str]]) -> set[tuple[int, int, str]]:
    """The spans by our reading: first and last word among all words, and type."""
    tags = tag_set(LABELS, False)
    read = spans(ids_of(rows), layout_of(rows).splits, tags)
    return {(a, b, tags.types[k]) for a, b, k in zip(read.first, read.last, read.type, strict=True)}


# -- conlleval, re-stated from the shared task's Perl script -------------------------------------------


def conlleval_spans(rows: list[list[str]]) -> set[tuple[int, int, str]]:
    """The chunks that conlleval counts, from its subs endOfChunk and startOfChunk; a border is a tag O."""
    result, place = set(), 0
    for row in rows:
        start = None
        before = ("O", "")
        for i, tag in enumerate([*row, "O"]):
            mark, _, kind = tag.partition("-")
            if start is not None and end_of_chunk(before, (mark, kind)):
                result.add((place + start, place + i - 1, before[1]))
                start = None
            if start_of_chunk(before, (mark, kind)):
                start = i
            before = (mark, kind)
        place += len(row)
    return result


def end_of_chunk(before: tuple[str, str], now: tuple[str, str]) -> bool:
    pairs = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}
    return (before[0], now[0]) in pairs or (before[0] not in ("O", ".") and before[1] != now[1])


def start_of_chunk(before: tuple[str, str], now: tuple[str, str]) -> bool:
    pairs = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}
    return (before[0], now[0]) in pairs or (now[0] not in ("O", ".") and before[1] != now[1])


def conlleval(gold: list[list[str]], given: list[list[str]]) -> dict[str, float]:
    """Precision, recall and F1 of all chunks, as the script prints them: 0 where there is nothing to divide by."""
    right, wanted = conlleval_spans(given), conlleval_spans(gold)
    hits = len(right & wanted)
    precision = hits / len(right) if right else 0.0
    recall = hits / len(wanted) if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


# -- spans and scores ----------------------------------------------------------------------------------


@given(rows_of_tags)
def test_spans_are_those_of_conlleval_and_seqeval_for_legal_and_illegal_sequences(rows):
    assert found(rows) == conlleval_spans(rows)
    ends = np.cumsum([0, *(len(row) for row in rows)])
    theirs = {(ends[i] + a, ends[i] + b, kind) for i, row in enumerate(rows) for kind, a, b in seqeval_spans(row)}
    assert found(rows) == theirs


def seqeval_spans(row: list[str]) -> list[tuple[str, int, int]]:
    from seqeval.metrics.sequence_labeling import get_entities

    return get_entities(row)


@given(st.data())
def test_every_score_is_seqeval_s_and_conlleval_s_on_the_same_output(data):
    gold = data.draw(rows_of_tags)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    given_scores = random.dirichlet(np.full(len(LABELS), 0.3), sum(map(len, gold)))
    right = random.random(len(given_scores)) < 0.5
    given_scores[right] = scores_of(ids_of(gold)[right], len(LABELS))
    target = Tags(LABELS).over(layout_of(gold))
    given = target.decode(given_scores)
    metrics = target.metrics(given_scores, ids_of(gold))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("precision", "recall", "f1"):
            theirs = getattr(seqeval, f"{name}_score")
            assert metrics[name] == pytest.approx(theirs(gold, given)), name
            assert metrics[name] == pytest.approx(conlleval(gold, given)[name]), name
            if found(gold) or found(given):
                assert metrics[f"{name}_macro"] == pytest.approx(theirs(gold, given, average="macro")), name
        if found(gold):
            assert metrics["f1_weighted"] == pytest.approx(seqeval.f1_score(gold, given, average="weighted"))
    assert metrics["accuracy"] == pytest.approx(seqeval.accuracy_score(gold, given))
    assert metrics["log_loss"] == pytest.approx(
        sklearn.log_loss(ids_of(gold), given_scores, labels=range(len(LABELS))), rel=1e-6
    )


@given(rows_of_tags, rows_of_tags)
def test_the_report_by_type_is_seqeval_s(gold, other):
    given = [[*row[: len(want)], *(["O"] * (len(want) - len(row)))] for want, row in zip(gold, itertools.cycle(other))]
    target = Tags(LABELS).over(layout_of(gold))
    scores = scores_of(ids_of(given), len(LABELS))
    given = target.decode(scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = seqeval.classification_report(gold, given, output_dict=True) if found(gold) | found(given) else {}
    for kind, ours in target.per_label(scores, ids_of(gold)).items():
        if kind in theirs:
            assert ours == pytest.approx({name.replace("f1-score", "f1"): v for name, v in theirs[kind].items()})
        else:
            assert ours["support"] == ours["f1"] == 0


def test_plain_tags_are_scored_word_by_word_as_scikit_learn_does():
    random = np.random.default_rng(0)
    counts = random.integers(1, 9, 40)
    target = Tags(POS).over(Layout.of(counts))
    assert target.is_plain
    gold = random.integers(0, len(POS), counts.sum())
    scores = random.dirichlet(np.ones(len(POS)), counts.sum())
    metrics = target.metrics(scores, gold)
    assert target.metric_names[0] == target.main_metric == "accuracy"
    assert set(metrics) == set(OF_WORDS)
    assert metrics["accuracy"] == pytest.approx(sklearn.accuracy_score(gold, scores.argmax(1)))
    for average in ("macro", "weighted"):
        expected = sklearn.f1_score(gold, scores.argmax(1), average=average)
        assert metrics[f"f1_{average}"] == pytest.approx(expected)
    assert [row["support"] for row in target.per_label(scores, gold).values()] == np.bincount(gold).tolist()


def test_a_metric_of_resamples_is_that_of_the_rows_drawn():
    random = np.random.default_rng(1)
    counts = random.integers(1, 12, 30)
    target = Tags(LABELS).over(Layout.of(counts))
    gold = random.integers(0, len(LABELS), counts.sum())
    scores = random.dirichlet(np.full(len(LABELS), 0.4), counts.sum())
    drawn = np.sort(random.integers(0, 30, 30))
    units = target.positions(drawn)
    alone = target.take(drawn).metrics(scores[units], gold[units])
    times = np.bincount(drawn, minlength=30).astype(float)[None]
    for name in OF_SPANS:
        assert measure(name, scores, gold, target)(times)[0] == pytest.approx(alone[name]), name
        assert value_of(name, scores, gold, target) == pytest.approx(target.metrics(scores, gold)[name])


def test_metrics_are_known_before_the_labels_are():
    for name in OF_SPANS:
        check_metric(name, Tags())
    assert Tags().main_metric == "f1"


# -- decoding ------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_the_answer_is_the_most_probable_of_all_legal_sequences(seed):
    random = np.random.default_rng(seed)
    labels = ("O", "B-A", "I-A", "B-C", "I-C")
    counts = random.integers(1, 5, 3)
    layout = Layout.of(counts)
    scores = random.dirichlet(np.full(5, 0.5), layout.num_units)
    found_ids = best_legal(scores, layout.splits, tag_set(labels, False))
    for row in range(3):
        mine = scores[layout.positions(np.array([row]))]
        legal = [s for s in itertools.product(range(5), repeat=len(mine)) if is_legal([labels[i] for i in s])]
        best = max(legal, key=lambda s: sum(np.log(mine[i, tag]) for i, tag in enumerate(s)))
        assert found_ids[layout.positions(np.array([row]))].tolist() == list(best)


def is_legal(row: list[str]) -> bool:
    return all(not tag.startswith("I-") or before[1:] == tag[1:] for before, tag in itertools.pairwise(["O", *row]))


def test_no_illegal_sequence_comes_out_whatever_rows_come_together():
    random = np.random.default_rng(2)
    counts = random.integers(0, 30, 60)
    layout = Layout.of(counts)
    scores = random.dirichlet(np.full(len(LABELS), 0.3), layout.num_units)
    target = Tags(LABELS).over(layout)
    together = target.decode(scores)
    assert all(is_legal(row) for row in together)
    for row in range(60):
        alone = target.take(np.array([row]))
        assert alone.decode(scores[target.positions(np.array([row]))]) == together[row : row + 1]


def test_impossible_tags_everywhere_still_leave_a_legal_answer():
    scores = np.zeros((3, 5))
    scores[:, 2] = 1
    target = Tags(("O", "B-A", "I-A", "B-C", "I-C")).over(Layout.of(np.array([3])))
    assert target.decode(scores) == [["B-A", "I-A", "I-A"]]


def test_a_long_document_and_many_rows_are_decoded_in_a_moment():
    import time

    random = np.random.default_rng(3)
    layout = Layout.of(np.array([4000, *[20] * 1500]))
    scores = random.dirichlet(np.full(13, 0.5), layout.num_units)
    labels = ("O", *(f"{mark}-{kind}" for kind in "abcdef" for mark in "BI"))
    started = time.perf_counter()
    Tags(labels).over(layout).predicted(scores)
    assert time.perf_counter() - started < 10  # about a third of a second on a free core


# -- rows ----------------------------------------------------------------------------------------------


def test_rows_are_right_alike_and_sure_as_wholes():
    rows = [["B-PER", "I-PER", "O"], ["O"], []]
    target = Tags(LABELS).over(layout_of(rows))
    gold = ids_of(rows)
    scores = scores_of(gold, len(LABELS), 0.7)
    scores[3] = scores_of(np.array([1]), len(LABELS), 0.4)[0]
    assert target.row_right(scores, gold).tolist() == [True, False, True]
    assert target.same(scores, scores_of(gold, len(LABELS)), gold).tolist() == [True, False, True]
    np.testing.assert_allclose(target.confidence(scores), [0.7, 0.4, 1])
    np.testing.assert_allclose(target.row_losses(scores, gold), [-3 * np.log(0.7), -np.log(0.1), 0])
    assert target.decode(scores) == [["B-PER", "I-PER", "O"], ["B-LOC"], []]


def test_strata_are_the_rarest_type_of_each_row():
    rows = [["B-LOC", "B-PER"], ["B-LOC"], ["O"], ["B-LOC", "I-LOC"]]
    target = Tags(LABELS).over(layout_of(rows))
    assert target.strata(ids_of(rows), 3).tolist() == [1, 0, 3, 0]
    assert target.strata_column(pa.chunked_array([pa.array(rows)])).to_pylist() == [
        ["LOC", "PER"], ["LOC"], [], ["LOC"]]  # fmt: skip
    assert Tags().strata_column(pa.array([["NOUN", "VERB", "NOUN"]])).to_pylist() == [["NOUN", "VERB"]]


def test_tags_without_their_rows_are_refused():
    with pytest.raises(ValueError, match="over the layout of its rows"):
        Tags(LABELS).decode(np.ones((2, len(LABELS))))


# -- reading -------------------------------------------------------------------------------------------

BIO = ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-ORG", "I-ORG", "I-ORG"]
WRITTEN = {
    "bio": BIO,
    "iob1": ["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-ORG", "I-ORG", "I-ORG"],
    "bioes": ["B-PER", "E-PER", "S-PER", "O", "S-LOC", "B-ORG", "I-ORG", "E-ORG"],
    "bilou": ["B-PER", "L-PER", "U-PER", "O", "U-LOC", "B-ORG", "I-ORG", "L-ORG"],
}


def parsed(column: list, **fields) -> tuple[list, list]:
    tags, reasons = Tags(**fields).parse(pa.array(column))
    return tags.to_pylist(), reasons.to_pylist()


@pytest.mark.parametrize("scheme", WRITTEN)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("illegal", ["repair", "reject"])
def test_every_scheme_is_read_into_bio_told_or_found_out(scheme: str, told: bool, illegal: str):
    name = {"bilou": "bioes"}.get(scheme, scheme) if told else "auto"
    assert parsed([WRITTEN[scheme]], scheme=name, illegal_tags=illegal) == ([BIO], [None])


@given(st.lists(st.sampled_from(["PER", "LOC", None]), min_size=1, max_size=6), st.data())
def test_spans_written_in_any_scheme_come_back(kinds, data):
    lengths = [data.draw(st.integers(1, 4)) for _ in kinds]
    written: dict[str, list[str]] = {"bio": [], "iob1": [], "bioes": []}
    last = None
    for kind, length in zip(kinds, lengths, strict=True):
        inside = [f"I-{kind}"] * (length - 1)
        if kind is None:
            names = {scheme: ["O"] * length for scheme in written}
        else:
            end = [f"S-{kind}"] if length == 1 else [f"B-{kind}", *inside[1:], f"E-{kind}"]
            first = f"B-{kind}" if last == kind else f"I-{kind}"
            names = {"bio": [f"B-{kind}", *inside], "iob1": [first, *inside], "bioes": end}
        last = kind
        for scheme in written:
            written[scheme] += names[scheme]
    for scheme, row in written.items():
        for illegal in ("repair", "reject"):
            assert parsed([row], scheme=scheme, illegal_tags=illegal) == ([written["bio"]], [None])


@given(rows_of_tags)
def test_repaired_rows_hold_the_spans_that_conlleval_reads(rows):
    repaired, reasons = parsed(rows, scheme="bio")
    assert reasons == [None] * len(rows)
    assert all(is_legal(row) for row in repaired)
    assert conlleval_spans(repaired) == conlleval_spans(rows)


@given(rows_of_tags)
def test_where_asked_for_a_row_is_rejected_exactly_if_it_is_illegal(rows):
    tags, reasons = parsed(rows, scheme="bio", illegal_tags="reject")
    assert [reason is None for reason in reasons] == [is_legal(row) for row in rows] == [t is not None for t in tags]


@pytest.mark.parametrize(
    ("scheme", "row", "reason"),
    [
        ("bio", ["O", "I-PER"], "misplaced tag 'I-PER' after 'O', word 2, the last one"),
        ("bio", ["I-PER", "O"], "misplaced tag 'I-PER' after the beginning, word 1"),
        ("bio", ["B-LOC", "I-PER", "O"], "misplaced tag 'I-PER' after 'B-LOC', word 2"),
        ("bioes", ["B-PER", "O"], "misplaced tag 'O' after 'B-PER', word 2, the last one"),
        ("bioes", ["O", "B-PER"], "misplaced tag 'B-PER' after 'O', word 2, the last one"),
        ("bioes", ["S-PER", "E-PER", "O"], "misplaced tag 'E-PER' after 'S-PER', word 2"),
    ],
)
def test_a_tag_that_cannot_stand_where_it_is_is_named(scheme: str, row: list, reason: str):
    assert parsed([row], scheme=scheme, illegal_tags="reject") == ([None], [reason])


def test_a_repair_is_told(caplog):
    parsed([["O", "I-PER"], ["O", "O"], ["B-PER", "O"]], scheme="bio")
    assert "1 rows have tags that cannot follow each other" in caplog.text


def test_unknown_missing_and_misspelt_tags_have_reasons():
    column = [["B-PER", "PER"], None, ["O", None], ["B-DOG"], ["O", "I-PER"]]
    tags, reasons = parsed(column, labels=("O", "B-PER"), scheme="bio")
    assert reasons == [
        "unknown tag 'PER': expected O, or B-, I-... and a type",
        "missing tags",
        "missing tag",
        "unknown label 'B-DOG'",
        None,
    ]
    assert tags == [None, None, None, None, ["O", "B-PER"]]


def test_tags_with_no_marks_are_plain_and_one_slip_makes_none_of_them_so():
    assert parsed([["NOUN", "VERB", "I-beam"]]) == ([["NOUN", "VERB", "I-beam"]], [None])
    assert parsed([["B-PER", "I-PER", "O", "per"], ["B-PER"]])[1][0].startswith("unknown tag 'per'")


def test_ids_are_positions_in_the_labels_and_text_is_split():
    labels = ("O", "B-PER", "I-PER")
    assert parsed([[1, 2, 0]], labels=labels) == ([["B-PER", "I-PER", "O"]], [None])
    assert parsed([["1", "2", "0"]], labels=labels) == ([["B-PER", "I-PER", "O"]], [None])
    assert parsed([[3]], labels=labels)[1] == ["unknown tag '3': expected O, or B-, I-... and a type"]
    assert parsed(["B-PER I-PER  O"]) == ([["B-PER", "I-PER", "O"]], [None])
    assert parsed([[0, 2]], labels=POS) == ([["ADJ", "PUNCT"]], [None])


def test_what_holds_no_lists_is_refused():
    with pytest.raises(DataError, match="tags of type double cannot be read; expected a list of tags a row"):
        as_lists(pa.array([1.5]))
    with pytest.raises(DataError, match="expected a list of tags a row"):
        as_lists(pa.array([[["O"]]]))


def test_labels_learned_hold_both_marks_of_each_type_and_o_first():
    found = Tags().learn(pa.array([["I-PER", "O"], ["B-LOC"]]))
    assert found == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert Tags().learn(pa.array([["VERB", "NOUN"]])) == ("NOUN", "VERB")
    assert Tags(scheme="plain").learn(pa.array([["B-x", "O"]])) == ("B-x", "O")
