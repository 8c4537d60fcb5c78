"""Answers are measured as the official SQuAD scripts measure them."""

from __future__ import annotations

import collections
import re
import string

import numpy as np
import pyarrow as pa
import pytest

from ftlib.evaluation.measures import measure, value_of
from ftlib.targets.layout import Layout
from ftlib.targets.span import F1, Span, best_bias

WORDS = ["the", "a", "An", "Ann", "won", "U.S.", "1959", "in", "Bob's", "", "—", "café", "The"]


# The evaluation scripts of SQuAD 1.1 and 2.0, restated from the rules that the authors publish.


def normalize_answer(s: str) -> str:
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", s).split())


def compute_exact(gold: str, said: str) -> int:
    return int(normalize_answer(gold) == normalize_answer(said))


def compute_f1(gold: str, said: str) -> float:
    gold_tokens, said_tokens = normalize_answer(gold).split(), normalize_answer(said).split()
    common = collections.Counter(gold_tokens) & collections.Counter(said_tokens)
    num_same = sum(common.values())
    if len(gold_tokens) == 0 or len(said_tokens) == 0:
        return int(gold_tokens == said_tokens)
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(said_tokens), 1.0 * num_same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def f1_of_1(gold: str, said: str) -> float:
    """Version 1.1 has no rule for answers that are empty once normalised: they share no word."""
    return compute_f1(gold, said) if normalize_answer(gold) and normalize_answer(said) else 0


def official_1(golds: list[list[str]], said: list[str]) -> dict[str, float]:
    pairs = list(zip(golds, said, strict=True))
    exact = [max(compute_exact(gold, one) for gold in answers) for answers, one in pairs]
    f1 = [max(f1_of_1(gold, one) for gold in answers) for answers, one in pairs]
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}


def official_2(golds: list[list[str]], said: list[str]) -> dict[str, float]:
    exact, f1 = [], []
    for answers, one in zip(golds, said, strict=True):
        kept = [a for a in answers if normalize_answer(a)] or [""]
        exact.append(max(compute_exact(a, one) for a in kept))
        f1.append(max(compute_f1(a, one) for a in kept))
    has = np.array([bool(answers) for answers in golds])
    values = {"exact_match": np.array(exact), "f1": np.array(f1, float)}
    found = {name: value.mean() for name, value in values.items()}
    found |= {f"has_answer_{name}": value[has].mean() for name, value in values.items()}
    return found | {f"no_answer_{name}": value[~has].mean() for name, value in values.items()}


# ------------------------------------------------------------------------------------------------------


def phrase(random: np.random.Generator) -> str:
    return " ".join(random.choice(WORDS, random.integers(1, 4)))


def simulated(seed: int, num_rows: int = 80, *, no_answer: bool):
    """Random candidates with random support, and gold answers that overlap with them."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, num_rows)
    texts = [phrase(random) for _ in range(counts.sum())]
    golds = [[phrase(random) for _ in range(random.integers(0 if no_answer else 1, 4))] for _ in range(num_rows)]
    layout = Layout.of(counts, pa.table({"text": pa.array(texts)}))
    if no_answer:
        firsts = set(layout.splits[:-1].tolist())
        layout = Layout.of(
            counts, pa.table({"text": pa.array(["" if i in firsts else t for i, t in enumerate(texts)])})
        )
    target = Span(no_answer=no_answer).over(layout)
    column = pa.array([[{"text": text, "start": 0} for text in row] for row in golds])
    return target, random.random((counts.sum(), 2)), target.encode(column), golds


@pytest.mark.parametrize("seed", range(4))
def test_exact_match_and_f1_are_those_of_the_official_script_of_squad_1(seed):
    target, scores, references, golds = simulated(seed, no_answer=False)
    found = target.metrics(scores, references)
    expected = official_1(golds, target.decode(scores))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_exact_match_and_f1_are_those_of_the_official_script_of_squad_2(seed):
    target, scores, references, golds = simulated(seed, no_answer=True)
    found = target.metrics(scores, references)
    expected = official_2(golds, target.decode(scores))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("no_answer", [False, True])
def test_measures_of_resamples_are_the_metrics_of_the_rows_drawn(no_answer):
    target, scores, references, _ = simulated(5, no_answer=no_answer)
    drawn = np.random.default_rng(0).integers(0, 80, 80)
    counts = np.bincount(drawn, minlength=80)[None].astype(float)
    again = target.take(drawn).metrics(scores[target.positions(drawn)], references[target.positions(drawn)])
    assert set(target.metrics(scores, references)) == set(target.metric_names)
    for name, value in target.metrics(scores, references).items():
        assert value_of(name, scores, references, target) == pytest.approx(value)
        assert measure(name, scores, references, target)(counts)[0] == pytest.approx(again[name])
        assert target.metric(name, scores, references) == pytest.approx(value)


def test_the_log_loss_is_of_the_share_that_right_candidates_have():
    layout = Layout.of(np.array([3, 1]), pa.table({"text": ["Ann", "the Ann", "Bob", "Eve"]}))
    target = Span().over(layout)
    references = target.encode(pa.array([[{"text": "Ann"}], [{"text": "Bob"}]]))
    scores = np.array([[0.5, 0.4], [0.1, 1.0], [0.5, 0.2], [1.0, 1.0]])
    np.testing.assert_allclose(target.row_losses(scores, references), [-np.log(0.3 / 0.4), -np.log(1e-6)])
    assert target.row_right(scores, references).tolist() == [True, False]
    assert target.same(scores, scores[[1, 0, 2, 3]], references).tolist() == [True, True]  # "Ann" is "the Ann"
    np.testing.assert_allclose(target.confidence(scores), [0.2, 1.0])


def test_the_threshold_of_no_answer_is_the_best_one():
    random = np.random.default_rng(3)
    counts = random.integers(2, 5, 60)
    layout = Layout.of(counts)
    support, quality = random.random(counts.sum()), random.random(counts.sum()).round()

    def value(bias: float) -> float:
        biased = support.copy()
        biased[layout.splits[:-1]] *= np.exp(bias)
        return quality[layout.best(biased)].mean()

    assert value(best_bias(support, quality, layout)) == max(value(b) for b in np.linspace(-8, 8, 4001))
    assert best_bias(np.ones(4), np.ones(4), Layout.of(np.array([2, 2]))) == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"text": "Ann", "start": 9}], [{"text": "Ann", "start": 9}]),
        ([{"text": "Ann", "answer_start": 9}], [{"text": "Ann", "start": 9}]),
        ({"text": ["Ann"], "answer_start": [9]}, [{"text": "Ann", "start": 9}]),
        ({"text": "Ann", "answer_start": 9}, [{"text": "Ann", "start": 9}]),
        ('[{"text": "Ann", "start": 9}]', [{"text": "Ann", "start": 9}]),
        ([{"text": "Ann"}], [{"text": "Ann", "start": -1}]),
        ([{"text": "Ann", "start": None}, {"text": " ", "start": 0}], [{"text": "Ann", "start": -1}]),
        ([], []),
    ],
)
def test_answers_are_read_in_every_form(value, expected):
    answers, reasons = Span(no_answer=True).parse(_Column([value]))
    assert (answers.to_pylist(), reasons.to_pylist()) == ([expected], [None])


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "missing label"),
        ([], "no answer (no_answer: true allows such rows)"),
        ("Ann", "answers are not readable"),
        ({"text": ["Ann"], "answer_start": []}, "answers are not readable"),
        ([{"start": 3}], "answers are not readable"),
        (7, "answers are not readable"),
    ],
)
def test_answers_that_cannot_be_used_are_rejected_with_the_reason(value, line):
    answers, reasons = Span().parse(_Column([value]))
    assert answers.null_count == 1
    assert reasons[0].as_py().startswith(line)


class _Column(list):
    """Values of any kind, which one Arrow column could not hold."""

    def to_pylist(self) -> list:
        return list(self)


def test_rows_are_divided_by_whether_they_have_an_answer():
    column = pa.array(
        [[{"text": "Ann", "start": 1}], []], pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
    )
    assert Span(no_answer=True).strata_column(column).to_pylist() == ["answer", "no answer"]
    assert Span().strata_column(column) is None
    assert Span().gold(column).to_pylist() == ["Ann", ""]
    target = Span(no_answer=True).over(Layout.of(np.array([2, 1]), pa.table({"text": ["", "Ann", ""]})))
    assert target.strata(target.encode(column), 5).tolist() == [1, 0]
    assert target.encode(column)[:, F1].tolist() == [0, 1, 1]
