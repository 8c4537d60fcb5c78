"""`ftlib compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ftlib.evaluation.comparison import Answers


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="An experiment's name (its newest run), a run's id, or a --json file.",
            show_default=False,
        ),
    ],
) -> None:
    """Put runs side by side, with paired tests.

    Shows their figures, the settings that differ, and whether the difference could be chance on the test rows
    that both have.
    """
    from flows import show, summary
    from ftlib.errors import ParamsError

    if len(runs) < 2:
        raise ParamsError(f"compare {runs[0]}: expected two runs or more. `ftlib compare RUN RUN` compares them.")
    found = [summary.load(run) for run in runs]
    out = show.console()
    out.print(show.side_by_side(found))
    differing = show.settings_that_differ(found)
    if differing is not None:
        out.print()
        out.print(differing)
    out.print()
    for line in _tests(found):
        out.print(line, soft_wrap=True)


def _tests(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Test every later run against the first one."""
    from ftlib.errors import FtlibError

    answers: list[Answers | str] = []
    for one in summaries:
        try:
            answers.append(_answers(one))
        except FtlibError as error:
            answers.append(str(error))
    return [_test(summaries, answers, i) for i in range(1, len(summaries))]


def _test(summaries: Sequence[dict[str, Any]], answers: Sequence[Answers | str], i: int) -> str:
    from flows.show import figure, p
    from ftlib.errors import FtlibError
    from ftlib.evaluation.comparison import compare

    names = f"{_title(summaries[i])} against {_title(summaries[0])}"
    one, other = answers[i], answers[0]
    if isinstance(one, str) or isinstance(other, str):
        return f"{names}: no paired test: {one if isinstance(one, str) else other}"
    try:
        found = compare(one, other, summaries[0]["metric"])
    except FtlibError as error:
        return f"{names}: no paired test: {error}"
    values = f"{figure(found.values[0])} against {figure(found.values[1])} {found.metric.replace('_', ' ')}"
    sign = "" if found.p_value < 0.001 else "= "
    return f"{names}: {values} on the {found.num_rows:,} test rows they share, p {sign}{p(found.p_value)}."


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['name']} ({summary['best']['name']})"


def _answers(summary: dict[str, Any]) -> Answers:
    from ftlib import state
    from ftlib.errors import ArtifactError
    from ftlib.evaluation.comparison import read_answers

    store = state.store()
    folders: dict[str, Path] = {}
    for step in summary["steps"]:
        if step["name"].startswith(("split", "evaluate", "fuse-", "predict-")):
            problem = store.problem(step["artifact"])
            if problem:
                raise ArtifactError(f"artifact of {step['name']} of {summary['name']} {problem}; run it again.")
            folders[step["name"]] = store.open(step["artifact"])
    return read_answers(folders)
