"""What every problem keeps: from its examples to a client's answers, on a tiny model of a family that it names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ftlib import compatibility
from ftlib.errors import DataError, ParamsError, UnsupportedError
from ftlib.evaluation.assessment import assess
from ftlib.evaluation.measures import measure, value_of
from ftlib.fusion.base import Fusion
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.families import FAMILIES
from ftlib.prediction import predict
from ftlib.problems.base import Problem
from ftlib.targets.base import Target
from ftlib.targets.layout import Layout
from ftlib.training.stage import set_seed
from tests import contracts

NAMES = Problem.available()
MATRIX = compatibility.fusions()
every_problem = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Case:
    """A problem with two untrained members, and what they say of its examples."""

    problem: Problem
    rows: pa.Table
    encoded: pa.Table
    checkpoint: Checkpoint
    predictions: tuple[pa.Table, pa.Table]
    scores: np.ndarray
    layout: Layout | None
    references: np.ndarray

    @property
    def target(self) -> Target:
        return self.problem.target.over(self.layout)


@pytest.fixture(scope="session")
def cases(tiny_model: Callable[..., Any]) -> Callable[[str], Case]:
    """Return a function that gives a problem's case; each is made once a session."""
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            made[name] = make_case(Problem.named(name)(), tiny_model)
        return made[name]

    return case


def make_case(problem: Problem, tiny_model: Callable[..., Any]) -> Case:
    problem = contracts.bound(problem).model_copy(update={"max_length": 64})
    folder, rows = contracts.start_model(problem, tiny_model), contracts.labelled_rows(problem)
    members = [member(problem, folder, seed) for seed in (1, 2)]
    encoded = contracts.encoded_rows(problem, members[0].tokenizer, None)
    tables = [in_order(predict(one, encoded, problem).table, rows) for one in members]
    scores, layout = problem.align(tables, rows)
    gold = problem.references(rows, layout)
    return Case(problem, rows, encoded, members[0], (tables[0], tables[1]), scores, layout, gold)


def member(problem: Problem, folder: Any, seed: int) -> Checkpoint:
    """Return an untrained model, its weights moved a little so that members differ."""
    import torch

    set_seed(seed)
    checkpoint = checkpoints.load(folder, problem)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            if parameter.ndim > 1:
                parameter += 0.05 * parameter.std() * torch.randn_like(parameter)
    return checkpoint


def in_order(predictions: pa.Table, rows: pa.Table) -> pa.Table:
    places = {row: i for i, row in enumerate(predictions["row_id"].to_pylist())}
    return predictions.take(pa.array([places[row] for row in rows["row_id"].to_pylist()]))


def random_scores(case: Case, seed: int = 0) -> np.ndarray:
    """Return scores such as a model of the target could give."""
    random = np.random.default_rng(seed)
    shape = case.scores.shape[1:]
    if case.target.unit_kind == "single_label":
        return random.dirichlet(np.ones(shape[1]), shape[0])
    return random.normal(size=shape) if case.target.unit_kind == "value" else random.uniform(0.01, 0.99, shape)


def gold_scores(case: Case) -> np.ndarray | None:
    """Return the scores of a model that is always right; None where no such scores are among the units' own."""
    kind, gold = case.target.unit_kind, case.references
    if kind == "single_label":
        return np.eye(case.target.num_outputs)[gold] * 0.98 + 0.02 / case.target.num_outputs
    if kind == "value":
        return gold.astype(float)[:, None]
    if kind == "multi_label":
        return gold * 0.98 + 0.01
    if kind == "candidate":
        return np.repeat(gold[:, :1] * 0.98 + 0.01, case.target.num_outputs, axis=1)
    return None


# -- examples and description --------------------------------------------------------------------------


@every_problem
def test_examples_are_valid_enough_to_overfit_and_two_a_label(name: str):
    problem = contracts.bound(Problem.named(name)())
    rows = contracts.labelled_rows(problem)  # asserts that no label is rejected
    assert len(rows) >= 8
    assert problem.check_inputs(rows.select(list(problem.input_columns))).null_count == len(rows)
    inputs = [json.dumps([str(row[c]) for c in problem.input_columns]) for row in problem.examples()]
    assert len(set(inputs)) == len(inputs)
    if problem.target.labels and problem.target.unit_kind == "single_label" and problem.target.layout is None:
        labels = Counter(str(row[problem.label_column]) for row in problem.examples())
        assert min(labels.values()) >= (2 if problem.target.kind == "single_label" else 1)


@every_problem
def test_a_bound_problem_survives_json(name: str):
    problem = contracts.bound(Problem.named(name)())
    assert Problem.model_validate(json.loads(json.dumps(problem.model_dump(mode="json")))) == problem


@every_problem
def test_the_card_shows_a_row_the_loss_the_metric_and_a_source(name: str):
    card = Problem.named(name).card()
    for part in ("row:", "loss:", "metric", "``{"):
        assert part in card.lower(), f"{name}'s card says nothing of {part!r}"


@every_problem
def test_a_problem_names_families_of_base_models(name: str):
    assert Problem.named(name).families
    assert set(Problem.named(name).families) <= set(FAMILIES)


@every_problem
def test_the_main_metric_and_the_proper_loss_are_metrics_and_can_choose_the_best_weights(name: str, cases):
    case = cases(name)
    target = case.target
    assert target.metric_names[0] == target.main_metric
    assert target.proper_loss in target.metric_names
    assert not target.higher_is_better(target.proper_loss)
    measured = case.problem.measure(case.checkpoint, case.encoded)
    assert case.problem.validation_metric in measured
    assert "loss" in measured
    assert all(np.isfinite(value) for value in measured.values())


# -- encoding ------------------------------------------------------------------------------------------


@every_problem
def test_rows_encode_alike_alone_and_together(name: str, cases):
    case = cases(name)
    tokenizer, inputs = case.checkpoint.tokenizer, case.rows.select(list(case.problem.input_columns))
    together = case.problem.encode(inputs, tokenizer)
    assert case.problem.encode(inputs, tokenizer).equals(together)
    alone = [shifted(case.problem.encode(inputs.slice(i, 1), tokenizer), i) for i in range(len(inputs))]
    assert pa.concat_tables(alone).combine_chunks().equals(together.combine_chunks())


def shifted(encoded: pa.Table, row: int) -> pa.Table:
    """Return the windows of one row, counted from the place that the row has among others."""
    if "row" not in encoded.column_names:
        return encoded
    place = encoded.column_names.index("row")
    return encoded.set_column(place, encoded.field("row"), pa.array([row] * len(encoded), pa.int64()))


@every_problem
def test_no_rows_encode_to_no_rows_of_the_same_schema(name: str, cases):
    case = cases(name)
    inputs = case.rows.select(list(case.problem.input_columns))
    encoded = case.problem.encode(inputs, case.checkpoint.tokenizer)
    none = case.problem.encode(inputs.slice(0, 0), case.checkpoint.tokenizer)
    assert len(none) == 0
    assert none.schema.equals(encoded.schema)


# -- from predictions to answers -----------------------------------------------------------------------


@every_problem
def test_predictions_have_one_line_a_row_whatever_the_windows(name: str, cases):
    case = cases(name)
    for table in case.predictions:
        assert table.column_names[0] == "row_id"
        assert table["row_id"].to_pylist() == case.rows["row_id"].to_pylist()


@every_problem
def test_rows_are_predicted_alike_in_any_order(name: str, cases):
    case = cases(name)
    row_ids = case.encoded["row_id"].to_numpy()
    backwards = case.encoded.take(pa.array(np.argsort(-row_ids, kind="stable")))  # a row's windows stay in order
    table = in_order(predict(case.checkpoint, backwards, case.problem).table, case.rows)
    scores, layout = case.problem.align([table], case.rows)
    expected, expected_layout = case.problem.align([case.predictions[0]], case.rows)
    assert (layout is None) == (expected_layout is None)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@every_problem
def test_members_are_aligned_to_the_same_units(name: str, cases):
    case = cases(name)
    assert case.scores.shape[0] == 2
    assert np.isfinite(case.scores).all()
    num_units = case.layout.num_units if case.layout else len(case.rows)
    assert case.scores.shape[1] == num_units
    assert case.scores.shape[2] == case.target.num_outputs
    assert len(case.references) == num_units
    assert case.target.num_rows(case.references) == len(case.rows)
    if case.layout and case.layout.units is not None:
        assert len(case.layout.units) == num_units
    if case.target.unit_kind == "single_label":
        np.testing.assert_allclose(case.scores.sum(-1), 1, atol=1e-6)
    elif case.target.unit_kind != "value":
        assert (case.scores >= 0).all()


@every_problem
def test_copies_of_a_member_are_scored_alike_and_the_order_of_members_is_theirs(name: str, cases):
    case = cases(name)
    one, other = case.predictions
    same, _ = case.problem.align([one, one], case.rows)
    np.testing.assert_array_equal(same[0], same[1])
    turned, layout = case.problem.align([other, one], case.rows)
    if case.layout is None or case.layout.units is None or case.layout.units.equals(layout.units):
        np.testing.assert_allclose(turned[::-1], case.scores, atol=1e-12)
    for scores, units in ((case.scores, case.layout), (turned[::-1], layout)):
        target = case.problem.target.over(units)
        decoded = [target.decode(member) for member in scores]
        assert [str(d) for d in decoded] == [str(case.target.decode(member)) for member in case.scores]


@every_problem
def test_every_row_has_an_answer_that_json_can_say(name: str, cases):
    case = cases(name)
    inputs = case.rows.select(list(case.problem.input_columns))
    answers = case.problem.answers(case.scores.mean(0), inputs, case.layout)
    assert "prediction" in answers
    for column, values in answers.items():
        assert len(values) == len(case.rows), column
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in answers.items()}
    json.dumps(plain, allow_nan=False)
    pa.array(case.target.decode(case.scores.mean(0)), case.target.answer_type())
    sure = case.target.confidence(case.scores.mean(0))
    if sure is not None:
        assert sure.shape == (len(case.rows),)
        assert ((sure >= 0) & (sure <= 1 + 1e-9)).all()


@every_problem
def test_gold_answers_are_shown_in_the_form_of_predictions(name: str, cases):
    case = cases(name)
    shown = case.target.gold(case.problem.gold(case.rows))
    assert len(shown) == len(case.rows)


# -- fusions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", Fusion.available())
@every_problem
def test_every_fusion_combines_the_members_or_has_refused(name: str, method: str, cases, tmp_path):
    case, plugin = cases(name), Fusion.named(method)()
    if (name, method) in MATRIX.refusals:
        with pytest.raises(UnsupportedError, match=method):
            plugin.check(case.problem.target)
        return
    plugin.check(case.problem.target)
    try:
        combiner = plugin.fit(case.scores, case.references, case.target, seed=0)
    except DataError:  # untrained members may support nothing that is right
        return
    fused = combiner(case.scores, case.layout)
    assert fused.shape == case.scores.shape[1:]
    assert np.isfinite(fused).all()
    assert len(case.target.decode(fused)) == len(case.rows)
    assert case.target.metrics(fused, case.references)
    combiner.save(tmp_path)
    np.testing.assert_array_equal(type(plugin).load(tmp_path)(case.scores, case.layout), fused)
    alone, units = case.target.take(np.array([3])), case.target.positions(np.array([3]))
    np.testing.assert_allclose(combiner(case.scores[:, units], alone.layout), fused[units], rtol=1e-9, atol=1e-12)


# -- metrics -------------------------------------------------------------------------------------------


@every_problem
def test_a_model_that_is_always_right_is_measured_as_the_best_there_is(name: str, cases):
    case = cases(name)
    gold = gold_scores(case)
    if gold is None:
        return
    target, main = case.target, case.target.main_metric
    found = target.metrics(gold, case.references)[main]
    if target.unit_kind != "candidate":
        assert found == pytest.approx(1.0 if target.higher_is_better(main) else 0.0)
        assert target.row_right(gold, case.references).all()
        return
    for seed in range(5):  # the gold answer need not be among the candidates: then the best of them is
        other = target.metrics(random_scores(case, seed), case.references)[main]
        assert found >= other - 1e-9 if target.higher_is_better(main) else found <= other + 1e-9


def known_metrics(case: Case) -> list[str]:
    """Return the metrics that this machine can compute: one that it cannot says so, and `metrics` leaves it out."""
    found, known = case.target.metrics(random_scores(case), case.references), []
    for metric in case.target.metric_names:
        try:
            measure(metric, random_scores(case), case.references, case.target)
        except ParamsError:
            assert metric not in found
        else:
            known.append(metric)
    return known


@every_problem
def test_the_fast_measures_are_the_metrics(name: str, cases):
    case = cases(name)
    for scores in (random_scores(case), case.scores.mean(0)):
        metrics = case.target.metrics(scores, case.references)
        assert set(metrics) <= set(case.target.metric_names)
        for metric in known_metrics(case):
            fast = value_of(metric, scores, case.references, case.target)
            assert fast == pytest.approx(metrics.get(metric, np.nan), nan_ok=True, abs=1e-9), metric
            alone = case.target.metric(metric, scores, case.references)
            assert metrics.get(metric) == (None if alone is None else pytest.approx(alone))


@every_problem
def test_a_resample_is_measured_as_its_rows_are(name: str, cases):
    case = cases(name)
    scores, num_rows = random_scores(case), len(case.rows)
    drawn = np.sort(np.random.default_rng(3).integers(0, num_rows, num_rows))
    units, target = case.target.positions(drawn), case.target.take(drawn)
    counts = np.bincount(drawn, minlength=num_rows)[None].astype(float)
    metrics = target.metrics(scores[units], case.references[units])
    for metric in known_metrics(case):
        fast = measure(metric, scores, case.references, case.target)(counts)[0]
        assert fast == pytest.approx(metrics.get(metric, np.nan), nan_ok=True, abs=1e-9), metric


@every_problem
def test_the_bootstrap_is_finite_and_holds_the_value(name: str, cases):
    case = cases(name)
    found = assess(case.scores.mean(0), case.references, case.target, num_samples=50)
    assert found.metrics
    assert next(iter(found.metrics)) == case.target.main_metric
    for bounds in found.intervals.values():
        assert np.isfinite(bounds).all()
        assert bounds[0] <= bounds[1]


@every_problem
def test_rows_have_losses_verdicts_and_strata(name: str, cases):
    case = cases(name)
    target, scores, num_rows = case.target, case.scores.mean(0), len(case.rows)
    losses = target.row_losses(scores, case.references)
    assert losses.shape == (num_rows,)
    assert np.isfinite(losses).all()
    assert target.row_right(scores, case.references).shape == (num_rows,)
    same = target.same(case.scores[0], case.scores[1], case.references)
    assert same.shape == (num_rows,)
    assert target.same(scores, scores, case.references).all()
    assert target.strata(case.references, 3).shape == (num_rows,)
    assert isinstance(target.per_label(scores, case.references), dict)


@every_problem
def test_some_rows_are_measured_without_the_others(name: str, cases):
    """A split, a slice or a fold is a problem's case of its own."""
    case = cases(name)
    chosen = np.array([5, 1, 2])
    rows = case.rows.take(pa.array(chosen))
    alone, layout = case.problem.align([t.take(pa.array(chosen)) for t in case.predictions], rows)
    part, units = case.target.take(chosen), case.target.positions(chosen)
    np.testing.assert_allclose(alone, case.scores[:, units], atol=1e-12)
    references = case.problem.references(rows, layout)
    np.testing.assert_allclose(references, case.references[units], atol=1e-12)
    assert str(part.decode(alone[0])) == str(case.problem.target.over(layout).decode(alone[0]))
    expected = [case.target.decode(case.scores[0])[i] for i in chosen]
    assert str(part.decode(alone[0])) == str(expected)


@every_problem
def test_training_measures_what_evaluation_does(name: str, cases):
    """The metrics of encoded rows, as training watches them, are those of the split."""
    case = cases(name)
    measured = case.problem.measure(case.checkpoint, case.encoded)
    scores, layout = case.problem.align([case.predictions[0]], case.rows)
    references = case.problem.references(case.rows, layout)
    split = case.problem.target.over(layout).metrics(scores[0], references)
    shared = measured.keys() & split.keys()
    assert case.problem.validation_metric in {"loss", *shared}
    for metric in shared:
        assert measured[metric] == pytest.approx(split[metric], abs=1e-4), metric


@every_problem
def test_rows_that_become_several_windows_are_predicted_once(name: str, cases):
    case = cases(name)
    problem = case.problem.model_copy(update={"max_length": 24})
    encoded = contracts.encoded_rows(problem, case.checkpoint.tokenizer, None)
    if len(encoded) == len(case.rows):
        return  # it cuts what is too long
    table = predict(case.checkpoint, encoded, problem).table
    assert sorted(table["row_id"].to_pylist()) == case.rows["row_id"].to_pylist()
    scores, layout = problem.align([in_order(table, case.rows)], case.rows)
    assert problem.target.over(layout).metrics(scores[0], problem.references(case.rows, layout))
