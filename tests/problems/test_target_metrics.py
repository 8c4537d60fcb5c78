from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftlib.errors import CheckpointError, ParamsError
from ftlib.targets import metrics
from ftlib.targets.base import Target
from ftlib.targets.multi_label import MultiLabel
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.value import Value

LABELS = ("a", "b", "c", "d")


def rows(target: Target, num_rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and references that agree more often than chance."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, target.num_outputs))
    if isinstance(target, SingleLabel):
        references = rng.integers(target.num_outputs, size=num_rows)
        logits[np.arange(num_rows), references] += 1
        return target.scores(logits), references
    if isinstance(target, MultiLabel):
        return target.scores(logits), (logits + rng.normal(size=logits.shape) > 0.3).astype(np.float32)
    return logits, (logits[:, 0] + rng.normal(size=num_rows)).astype(np.float32)


TARGETS = [SingleLabel(LABELS), SingleLabel(("no", "yes")), MultiLabel(LABELS), MultiLabel(("only",)), Value()]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.kind}-{t.num_outputs}")


def test_metrics_of_one_label_are_scikit_learns():
    target = SingleLabel(LABELS)
    scores, gold = rows(target)
    answers = scores.argmax(axis=1)
    assert target.metrics(scores, gold) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(gold, answers),
            "precision_macro": sk.precision_score(gold, answers, average="macro"),
            "recall_macro": sk.recall_score(gold, answers, average="macro"),
            "f1_macro": sk.f1_score(gold, answers, average="macro"),
            "f1_micro": sk.f1_score(gold, answers, average="micro"),
            "f1_weighted": sk.f1_score(gold, answers, average="weighted"),
            "mcc": sk.matthews_corrcoef(gold, answers),
            "roc_auc": sk.roc_auc_score(gold, scores, multi_class="ovr", average="macro"),
            "log_loss": sk.log_loss(gold, scores),
            "calibration_error": reference_calibration_error(scores.max(axis=1), answers == gold),
        }
    )


def test_two_labels_have_the_second_ones_metrics_too():
    target = SingleLabel(("no", "yes"))
    scores, gold = rows(target)
    answers = scores.argmax(axis=1)
    measured = target.metrics(scores, gold)
    assert measured["f1"] == pytest.approx(sk.f1_score(gold, answers))
    assert measured["precision"] == pytest.approx(sk.precision_score(gold, answers))
    assert measured["recall"] == pytest.approx(sk.recall_score(gold, answers))
    assert measured["roc_auc"] == pytest.approx(sk.roc_auc_score(gold, scores[:, 1]))
    assert "f1" not in SingleLabel(LABELS).metric_names


def test_metrics_of_several_labels_are_scikit_learns():
    target = MultiLabel(LABELS)
    scores, gold = rows(target)
    answers = (scores >= 0.5).astype(int)
    assert target.metrics(scores, gold) == pytest.approx(
        {
            "f1_micro": sk.f1_score(gold, answers, average="micro"),
            "f1_macro": sk.f1_score(gold, answers, average="macro"),
            "precision_micro": sk.precision_score(gold, answers, average="micro"),
            "recall_micro": sk.recall_score(gold, answers, average="micro"),
            "precision_macro": sk.precision_score(gold, answers, average="macro"),
            "recall_macro": sk.recall_score(gold, answers, average="macro"),
            "accuracy": sk.accuracy_score(gold, answers),
            "hamming_loss": sk.hamming_loss(gold, answers),
            "roc_auc_macro": sk.roc_auc_score(gold, scores, average="macro"),
            "log_loss": np.mean([sk.log_loss(gold[:, i], scores[:, i]) for i in range(len(LABELS))]),
            "calibration_error": reference_calibration_error(scores.ravel(), gold.ravel() == 1),
        }
    )


def test_a_lone_label_is_measured_by_itself_not_with_its_absence():
    target = MultiLabel(("only",))
    scores, gold = rows(target)
    measured = target.metrics(scores, gold)
    for average in ("micro", "macro"):
        assert measured[f"f1_{average}"] == pytest.approx(sk.f1_score(gold[:, 0], scores[:, 0] >= 0.5))
        assert measured[f"recall_{average}"] == pytest.approx(sk.recall_score(gold[:, 0], scores[:, 0] >= 0.5))


def test_metrics_of_numbers_are_scikit_learns_and_scipys():
    target = Value()
    scores, gold = rows(target)
    answers = scores[:, 0]
    assert target.metrics(scores, gold) == pytest.approx(
        {
            "rmse": math.sqrt(sk.mean_squared_error(gold, answers)),
            "mae": sk.mean_absolute_error(gold, answers),
            "pearson": stats.pearsonr(gold, answers)[0],
            "spearman": stats.spearmanr(gold, answers)[0],
            "r2": sk.r2_score(gold, answers),
        }
    )


# -- calibration ---------------------------------------------------------------------------------------


def reference_calibration_error(confidences: np.ndarray, hits: np.ndarray, num_bins: int = 15) -> float:
    """Equation 3 of Guo et al. (2017), bin by bin."""
    error = 0.0
    for i in range(num_bins):
        inside = (confidences > i / num_bins) & (confidences <= (i + 1) / num_bins)
        if inside.any():
            error += inside.sum() / len(confidences) * abs(hits[inside].mean() - confidences[inside].mean())
    return error


def test_calibration_error_by_hand():
    scores = np.array([[0.9, 0.1], [0.88, 0.12], [0.2, 0.8], [0.55, 0.45]])
    gold = np.array([0, 1, 1, 1])
    # Of 15 bins: 0.9 and 0.88 are in (13/15, 14/15], one right; 0.8 in (11/15, 12/15], right; 0.55 alone, wrong.
    expected = (2 * abs(0.5 - 0.89) + 1 * abs(1 - 0.8) + 1 * abs(0 - 0.55)) / 4
    assert SingleLabel(("a", "b")).metrics(scores, gold)["calibration_error"] == pytest.approx(expected)


def test_calibration_error_of_several_labels_by_hand():
    scores = np.array([[0.9, 0.1], [0.88, 0.3]])
    gold = np.array([[1.0, 0.0], [0.0, 0.0]])
    expected = (2 * abs(0.5 - 0.89) + 1 * abs(0 - 0.1) + 1 * abs(0 - 0.3)) / 4
    assert MultiLabel(("a", "b")).metrics(scores, gold)["calibration_error"] == pytest.approx(expected)


def test_every_confidence_is_in_one_bin_edges_below_included():
    edges = np.linspace(0, 1, 16)
    bins = metrics.bins(edges, np.ones(16))
    assert [count for _, _, count in bins] == [2] + [1] * 14  # 0 and 1/15 share the first
    assert [confidence for confidence, _, _ in bins[1:]] == pytest.approx(edges[2:])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_bins_hold_every_row_once(pairs: list[tuple[float, bool]]):
    confidences, hits = (np.array(column, float) for column in zip(*pairs, strict=True))
    bins = metrics.bins(confidences, hits)
    assert sum(count for _, _, count in bins) == len(pairs)
    assert sum(share * count for _, share, count in bins) == pytest.approx(hits.sum())
    assert sum(mean * count for mean, _, count in bins) == pytest.approx(confidences.sum())


# -- what is undefined ---------------------------------------------------------------------------------


def test_one_class_in_the_references_leaves_out_what_needs_two():
    scores, _ = rows(SingleLabel(LABELS))
    measured = SingleLabel(LABELS).metrics(scores, np.zeros(len(scores), int))
    assert set(SingleLabel(LABELS).metric_names) - set(measured) == {"mcc", "roc_auc"}


def test_a_label_without_rows_is_left_out_of_the_mean_area():
    target = SingleLabel(("a", "b", "c"))
    scores, gold = rows(target)
    present = gold < 2
    scores, gold = scores[present], gold[present]
    expected = np.mean([sk.roc_auc_score(gold == label, scores[:, label]) for label in (0, 1)])
    assert target.metrics(scores, gold)["roc_auc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "references", "left_out"),
    [
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], {"pearson", "spearman", "r2"}),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], {"pearson", "spearman"}),
        ([2.0], [1.0], {"pearson", "spearman", "r2"}),
    ],
)
def test_constant_numbers_leave_out_correlations(scores: list[float], references: list[float], left_out: set[str]):
    measured = Value().metrics(np.array(scores)[:, None], np.array(references, np.float32))
    assert set(Value().metric_names) - set(measured) == left_out


@each_target
def test_metrics_are_finite_floats_however_few_the_rows(target: Target):
    scores, gold = rows(target)
    for num_rows in range(6):
        measured = target.metrics(scores[:num_rows], gold[:num_rows])
        assert all(type(value) is float and math.isfinite(value) for value in measured.values())
        assert bool(measured) == bool(num_rows)


@each_target
def test_certain_scores_and_float32_ones_are_measured_without_warnings(target: Target):
    scores, gold = rows(target)
    target.metrics(scores.round(), gold)
    measured, again = target.metrics(scores.astype(np.float32), gold), target.metrics(scores, gold)
    assert measured == pytest.approx(again, abs=1e-5)


@each_target
def test_perfect_answers_get_perfect_metrics(target: Target):
    _, gold = rows(target)
    perfect = np.eye(target.num_outputs)[gold] if isinstance(target, SingleLabel) else gold.reshape(len(gold), -1)
    for name, value in target.metrics(perfect, gold).items():
        assert value == pytest.approx(1.0 if target.higher_is_better(name) else 0.0, abs=1e-9), name


@each_target
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_diverged_model_is_named_as_such(target: Target, broken: float):
    scores, gold = rows(target)
    scores[:3] = broken
    with pytest.raises(CheckpointError, match=r"3 of 60 rows with NaN or infinity.*Lower learning_rate"):
        target.metrics(scores, gold)


# -- names ---------------------------------------------------------------------------------------------


@each_target
def test_one_metric_alone_equals_the_same_among_all(target: Target):
    scores, gold = rows(target)
    measured = target.metrics(scores, gold)
    assert {name: target.metric(name, scores, gold) for name in target.metric_names} == measured
    assert target.metric_names[0] == target.main_metric


@each_target
def test_losses_and_errors_are_better_lower(target: Target):
    lower = {name for name in target.metric_names if not target.higher_is_better(name)}
    assert lower == {n for n in target.metric_names if n.endswith(("loss", "error")) or n in ("rmse", "mae")}


def test_an_unknown_metric_is_answered_with_the_near_ones():
    with pytest.raises(ParamsError, match=r"unknown metric 'acuracy'. Did you mean 'accuracy'"):
        SingleLabel(LABELS).higher_is_better("acuracy")
    with pytest.raises(ParamsError, match=r"unknown metric 'rsme'. Did you mean 'rmse'"):
        Value().metric("rsme", *rows(Value()))


# -- per label -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS[:4], ids=lambda t: f"{t.kind}-{t.num_outputs}")
def test_each_labels_figures_are_scikit_learns(target: Target):
    scores, gold = rows(target)
    answers = target.predicted(scores)
    measured = target.per_label(scores, gold)
    assert list(measured) == list(target.labels)
    for i, label in enumerate(target.labels):
        is_gold, is_answer = (gold[:, i], answers[:, i]) if gold.ndim == 2 else (gold == i, answers == i)
        assert measured[label] == pytest.approx(
            {
                "precision": sk.precision_score(is_gold, is_answer),
                "recall": sk.recall_score(is_gold, is_answer),
                "f1": sk.f1_score(is_gold, is_answer),
                "support": is_gold.sum(),
            }
        )


def test_a_label_that_never_occurs_has_zeros_and_no_support():
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    measured = SingleLabel(("a", "b", "c")).per_label(scores, np.array([0, 1]))
    assert measured["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}
    assert Value().per_label(np.array([[1.0]]), np.array([1.0])) == {}
