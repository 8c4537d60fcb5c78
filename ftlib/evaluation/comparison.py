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
from ftlib.files import read_json, read_table
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RESAMPLES = 2000


@dataclass(frozen=True)
class Answers:
    """What one run's best model says of its test rows.

    Attributes:
        problem: With its labels.
        keys: Each row's texts and gold answer, as one string: equal for equal rows of any run.
        scores: Shape (num_rows, num_outputs).
        references: Gold answers as `Target.encode` gives them.
    """

    problem: Problem
    keys: pa.Array
    scores: np.ndarray
    references: np.ndarray


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
        folders: Step name -> its artifact's folder: split, evaluate, predict-<member>-test, fuse-<name>.
    """
    from ftlib.ensembling import read_references, read_scores, rows_at

    evaluation = read_json(folders["evaluate"] / "evaluation.json")
    problem = Problem.model_validate(read_json(folders["split"] / "problem.json"))
    members = [member["name"] for member in evaluation["members"]]
    found = read_scores([folders[f"predict-{name}-test"] for name in members], problem)
    references = read_references(folders["split"] / "test.parquet", problem)
    order = rows_at(references.row_ids, found.row_ids, "the predictions")
    scores = _best(evaluation, members, found.values[:, order], folders)
    return Answers(problem, _keys(folders["split"] / "test.parquet", problem), scores, references.values)


def _best(
    evaluation: Mapping[str, Any], members: list[str], scores: np.ndarray, folders: Mapping[str, Path]
) -> np.ndarray:
    name = evaluation["best"]["name"]
    if name in members:
        chosen: np.ndarray = scores[members.index(name)]
        return chosen
    method = next(f["method"] for f in evaluation["fusions"] if f["name"] == name)
    return Fusion.named(method["name"]).load(folders[f"fuse-{name}"])(scores)


def _keys(path: Path, problem: Problem) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(path, columns=[*problem.text_columns, problem.label_column])
    label = table[problem.label_column]
    if pa.types.is_list(label.type):
        label = pa.chunked_array([pa.array([", ".join(sorted(names)) for names in label.to_pylist()], pa.string())])
    columns = [table[name].cast(pa.string()) for name in problem.text_columns]
    return pc.binary_join_element_wise(
        *columns, label.cast(pa.string()), "\x1f", null_handling="replace"
    ).combine_chunks()


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
    import pyarrow.compute as pc

    places = pc.index_in(one.keys, value_set=other.keys)
    shared = pc.is_valid(places).to_numpy(zero_copy_only=False)
    if not shared.any():
        raise DataError("the runs share no test row with the same gold answer, so no paired test is possible.")
    taken = pc.drop_null(places).to_numpy()
    rows = [(one.scores[shared], one.references[shared], one), (other.scores[taken], other.references[taken], other)]
    return _paired(rows, metric, int(shared.sum()), seed)


def _paired(rows: list[tuple[np.ndarray, np.ndarray, Answers]], metric: str, num_rows: int, seed: int) -> Comparison:
    """Test two models on the same rows: exact McNemar for accuracy, a paired bootstrap for anything else."""
    from ftlib.evaluation.measures import measure, right, value_of
    from ftlib.evaluation.statistics import bootstrap, mcnemar, paired_bootstrap_p_value

    first, second = (value_of(metric, s, r, a.problem.target) for s, r, a in rows)
    if metric == "accuracy":
        correct = [right(a.problem.target.predicted(s), r) for s, r, a in rows]
        return Comparison(num_rows, metric, (first, second), mcnemar(correct[0], correct[1]))
    measures = {str(i): measure(metric, s, r, a.problem.target) for i, (s, r, a) in enumerate(rows)}
    drawn = bootstrap(measures, num_rows, RESAMPLES, seed=seed)
    p_value = paired_bootstrap_p_value(drawn["0"] - drawn["1"], first - second)
    return Comparison(num_rows, metric, (first, second), p_value)
