"""Compare the best models of several runs on the test rows that they share, with a paired test.

Rows are matched by what they say, not by their place: two runs may have read files of their own. A row counts
where both runs hold it and agree on its gold answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import DataError
from ftlib.files import read_json
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ftlib.ensembling import Scores
    from ftlib.targets.base import Target

RESAMPLES = 2000


@dataclass(frozen=True)
class Answers:
    """What one run's best model says of its test rows.

    Attributes:
        target: What is predicted, over the layout of the rows.
        keys: Each row's input and gold answer, as one string: equal for equal rows of any run.
        scores: Shape (num_units, num_outputs).
        references: Gold answers as `Target.encode` gives them.
    """

    target: Target
    keys: pa.Array
    scores: np.ndarray
    references: np.ndarray

    def take(self, rows: np.ndarray) -> Answers:
        """Return the answers to some rows, given by position."""
        import pyarrow as pa

        units = self.target.positions(rows)
        keys = self.keys.take(pa.array(rows))
        return Answers(self.target.take(rows), keys, self.scores[units], self.references[units])


@dataclass(frozen=True)
class Comparison:
    """One run against another.

    Attributes:
        num_rows: Test rows that both hold with the same gold answer.
        metric: What is compared.
        values: The two models' values on these rows.
        p_value: Of their being equally good; None where they share no metric or no row.
    """

    num_rows: int
    metric: str
    values: tuple[float, float]
    p_value: float


def read_answers(folders: Mapping[str, Path]) -> Answers:
    """Return the best model's answers on the test split, from a run's artifacts; no model is run.

    Args:
        folders: Step name -> its artifact's folder: split, evaluate, predict-<member>-test, fuse-<name>, and
            predict-<fusion>-test of a fusion whose members answer together.
    """
    from ftlib.ensembling import read_rows, read_scores

    evaluation = read_json(folders["evaluate"] / "evaluation.json")
    problem = Problem.model_validate(read_json(folders["split"] / "problem.json"))
    members = [member["name"] for member in evaluation["members"]]
    rows = read_rows(folders["split"] / "test.parquet")
    best = evaluation["best"]["name"]
    together = best not in members and f"predict-{best}-test" in folders
    read = [best] * len(members) if together else members
    found = read_scores([folders[f"predict-{name}-test"] for name in read], rows, problem)
    scores = _best(evaluation, members, found, folders)
    target = problem.target.over(found.layout)
    return Answers(target, _keys(rows, problem), scores, problem.references(rows, found.layout))


def _best(evaluation: Mapping[str, Any], members: list[str], found: Scores, folders: Mapping[str, Path]) -> np.ndarray:
    name = evaluation["best"]["name"]
    if name in members:
        chosen: np.ndarray = found.values[members.index(name)]
        return chosen
    method = next(f["method"] for f in evaluation["fusions"] if f["name"] == name)
    return Fusion.named(method["name"]).load(folders[f"fuse-{name}"])(found.values, found.layout)


def _keys(rows: pa.Table, problem: Problem) -> pa.Array:
    import pyarrow.compute as pc

    from ftlib.columns import as_text

    columns = [as_text(rows[name]) for name in (*problem.input_columns, problem.label_column)]
    return pc.binary_join_element_wise(*columns, "\x1f", null_handling="replace").combine_chunks()


def compare(one: Answers, other: Answers, metric: str, *, seed: int = 0) -> Comparison:
    """Compare two runs on the rows they share.

    Args:
        one: The run that `p_value` and the first value are for.
        other: The other run.
        metric: A metric of both targets.
        seed: For the resamples.

    Raises:
        DataError: If the two share no test row.
    """
    import numpy as np
    import pyarrow.compute as pc

    places = pc.index_in(one.keys, value_set=other.keys)
    shared = pc.is_valid(places).to_numpy(zero_copy_only=False)
    if not shared.any():
        raise DataError("the runs share no test row with the same gold answer, so no paired test is possible.")
    taken = pc.drop_null(places).to_numpy()
    return _paired(one.take(np.flatnonzero(shared)), other.take(taken), metric, seed)


def _paired(one: Answers, other: Answers, metric: str, seed: int) -> Comparison:
    """Test two models on the same rows: exact McNemar where rows are right or wrong, a paired bootstrap else."""
    from ftlib.evaluation.measures import measure, value_of
    from ftlib.evaluation.statistics import bootstrap, mcnemar, paired_bootstrap_p_value

    both, num_rows = (one, other), len(one.keys)
    first, second = (value_of(metric, a.scores, a.references, a.target) for a in both)
    if metric in one.target.counts_right_rows:
        correct = [a.target.row_right(a.scores, a.references) for a in both]
        return Comparison(num_rows, metric, (first, second), mcnemar(correct[0], correct[1]))
    measures = {str(i): measure(metric, a.scores, a.references, a.target) for i, a in enumerate(both)}
    drawn = bootstrap(measures, num_rows, RESAMPLES, seed=seed)
    p_value = paired_bootstrap_p_value(drawn["0"] - drawn["1"], first - second)
    return Comparison(num_rows, metric, (first, second), p_value)
