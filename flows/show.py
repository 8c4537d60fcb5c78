"""What `ftlib` prints, from plain values: the leaderboard, plans, cards. Knows rich, and no other part."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 150
"""Columns where the output is no terminal: tables in logs and pipes must not wrap."""


@cache
def console(*, stderr: bool = False) -> Console:
    """Return the console for results, or for what goes on meanwhile."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else WIDTH)


def table(*columns: str, numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """Return an empty table in the house style; `numbers` are set flush right."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    return made


# -- the leaderboard -----------------------------------------------------------------------------------


def leaderboard(summary: Mapping[str, Any]) -> Table:
    """Return members and fusions, best on validation first, the best marked.

    Args:
        summary: What ``ftlib run --json`` writes.
    """
    metric = summary["metric"]
    numbers = ("validation", "test", "interval", "gain", "p", "trainable", "training", "cost")
    board = table("", "", "", *numbers, numbers=numbers)
    board.title = Text.assemble((summary["name"], "bold"), (f"  {metric.replace('_', ' ')}", "dim"))
    for rows in (summary["members"], summary["fusions"]):
        if board.row_count and rows:
            board.add_row()
        for row in sorted(rows, key=lambda row: _rank(row, summary)):
            best = row["name"] == summary["best"]["name"]
            board.add_row("★" if best else "", *_cells(row, metric), style="bold green" if best else None)
    return board


def _cells(row: Mapping[str, Any], metric: str) -> list[str]:
    """Return one row of the leaderboard after its mark; a member has no gain, a fusion no training."""
    method, gain, cost = row.get("method"), row.get("gain"), row.get("inference_cost_ratio")
    return [
        row["name"],
        row["strategy"] if "strategy" in row else f"fusion: {method['name'] if method else row['name']}",
        figure(row["metrics"]["validation"].get(metric)),
        figure(row["metrics"]["test"].get(metric)),
        between(row.get("interval")),
        "" if gain is None else f"{gain:+.4f}",
        p(row.get("p_value_against_best_member")),
        count(row.get("num_trainable_parameters")),
        seconds(row.get("train_seconds")),
        "" if cost is None else f"{cost:.2g}x",
    ]


def _rank(row: Mapping[str, Any], summary: Mapping[str, Any]) -> float:
    value = row["metrics"]["validation"].get(summary["metric"])
    if value is None:
        return float("inf")
    return float(-value if summary.get("higher_is_better", True) else value)


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sentences below the leaderboard: how to read it, what was computed, what was left out."""
    best = summary["best"]
    kind = "a fusion" if any(f["name"] == best["name"] for f in summary["fusions"]) else "a single member"
    yield f"★ {best['name']}, {kind}: chosen on validation, measured once on test."
    if best.get("reason"):
        yield best["reason"]
    if summary["fusions"] and summary.get("best_member"):
        yield f"gain, p and cost to serve: against the best member, {summary['best_member']}."
    yield from base_model(summary.get("base_model"))
    for one in summary.get("slices") or ():
        if one["gap"] < 0:
            figures = f"{figure(one['metric'])}, elsewhere {figure(one['rest'])}, p {p(one['p_adjusted'])}"
            yield f"Behind where {one['column']} is {one['value']}: {figures}."
    steps = summary["steps"]
    computed = [s for s in steps if s["state"] == "computed"]
    if computed:
        took = f" in {seconds(summary.get('seconds'))}" if summary.get("seconds") else ""
        yield f"{len(computed)} of {len(steps)} steps computed{took}, {len(steps) - len(computed)} cached."
    else:
        yield f"All {len(steps)} steps were done already; nothing was computed."
    if summary.get("model_uri"):
        yield f"Model  {summary['model_uri']}"


def base_model(choice: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the sentence on the base model, where it was chosen."""
    if choice:
        best, rounds = choice["candidates"][0], len(choice["rounds"])
        told = {choice["measure"]: figure(best["score"])} if choice["measure"] else {}
        told |= {f"validation {choice['metric']} in round {rounds}": figure(best["rounds"][-1])} if rounds else {}
        listed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
        yield f"Base model {choice['chosen']}, chosen of {len(choice['candidates'])}: {listed}."


def rejected(summary: Mapping[str, Any]) -> str:
    """Return in one line how many rows were left out, and why."""
    reasons = sorted(summary.get("rejected", {}).items(), key=lambda item: -item[1])
    if not reasons:
        return "No row was rejected."
    listed = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in reasons[:8])
    others = f" and {len(reasons) - 8} other reasons" if len(reasons) > 8 else ""
    return f"Rejected {sum(number for _, number in reasons):,} rows: {listed}{others}."


def metrics(values: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> Table:
    """Return metrics with their intervals, the main one first and bold."""
    rows = table("metric", "value", "interval", numbers=("value", "interval"))
    for i, (name, value) in enumerate(values.items()):
        rows.add_row(
            name.replace("_", " "), figure(value), between(intervals.get(name)), style="bold" if i == 0 else None
        )
    return rows


# -- figures -------------------------------------------------------------------------------------------


def figure(value: float | None) -> str:
    """Return a metric with four decimals."""
    return "" if value is None else f"{value:.4f}"


def between(interval: Sequence[float] | None) -> str:
    """Return an interval."""
    return f"{interval[0]:.3f} – {interval[1]:.3f}" if interval else ""


def p(value: float | None) -> str:
    """Return a p-value."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """Return a count in three digits: 22.7M."""
    if value is None:
        return ""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"


def size(num_bytes: float) -> str:
    """Return a size in bytes: 12.3 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def seconds(value: float | None) -> str:
    """Return a duration: 0.4 s, 12.3 s, 2 min 05 s, 1 h 02 min."""
    if value is None:
        return ""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


# -- plans ---------------------------------------------------------------------------------------------

_STATES = {"done": ("done", "green"), "todo": ("to do", "yellow"), "waiting": ("waits", "dim")}


def plan_table(planned: Sequence[Any]) -> Table:
    """Return a plan: each step, whether it is done, and what makes it so.

    Args:
        planned: `ftlib.planning.PlannedStep` values.
    """
    steps = table("step", "", "why, or what it took")
    for step in planned:
        word, style = _STATES[step.state]
        steps.add_row(
            step.name,
            Text(word, style=style),
            Text(step.reason or _recorded(step.record), style="" if step.reason else "dim"),
        )
    return steps


def _recorded(record: Any) -> str:
    took = record.metrics.get("seconds") if record else None
    return f"{seconds(took)} on {record.created[:16].replace('T', ' ')}" if took is not None else ""


# -- what there is -------------------------------------------------------------------------------------


def catalogue(title: str, entries: Sequence[tuple[str, str]]) -> Table:
    """Return names with a line on each."""
    listed = table(title, "")
    listed.columns[0].no_wrap = True
    listed.columns[0].min_width = 28
    for name, line in entries:
        listed.add_row(Text(name, style="cyan"), line)
    return listed


def compatibility(matrix: Any, width: int) -> Iterator[RenderableType]:
    """Yield which plugins go with which problem: tables that fit the width, then the reasons of refusal by number.

    Args:
        matrix: An `ftlib.compatibility.Matrix`.
        width: Of the terminal.
    """
    reasons = matrix.reasons()
    numbers = {reason: i + 1 for i, reason in enumerate(reasons)}
    first = max(len(name) for name in ("problem", *matrix.problems)) + 2
    for i, names in enumerate(_fitting(matrix, width - first)):
        if i:
            yield Text()
        part = table(f"{matrix.kind}\nproblem", *(_broken(name) for name in names))
        part.columns[0].no_wrap = True
        for problem in matrix.problems:
            refused = [numbers.get(matrix.reason(problem, name)) for name in names]
            part.add_row(Text(problem, style="cyan"), *(_verdict(matrix.does, number) for number in refused))
        yield part
    yield Text("\nWhy they refuse:" if reasons else "\nNone refuses.")
    notes = Table.grid(padding=(0, 1, 0, 0))
    for reason, number in numbers.items():
        notes.add_row(Text(f"{number:>3}", style="yellow"), reason)
    if reasons:
        yield notes


def _verdict(does: str, number: int | None) -> Text:
    return Text(does, style="green") if number is None else Text(f"refuses {number}", style="yellow")


def _broken(name: str) -> str:
    """Return a name over several lines, so that its column is narrow."""
    return name.replace("_", "_\n")


def _fitting(matrix: Any, width: int) -> Iterator[list[str]]:
    """Yield the names whose columns fit the width together, as many at once as go."""
    narrowest = max(len(matrix.does), len("refuses 9"))
    names: list[str] = []
    taken = 0
    for name in matrix.names:
        needed = max(narrowest, *map(len, _broken(name).splitlines())) + 2
        if names and taken + needed > width:
            yield names
            names, taken = [], 0
        names.append(name)
        taken += needed
    yield names


def _reflowed(text: str) -> str:
    """Return a docstring with its paragraphs unbroken, to fit any terminal; lists and examples stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        p if any(line[:1] in " -*`" for line in p.splitlines()) else " ".join(p.split()) for p in paragraphs
    )


def card(title: str, text: str, parameters: Sequence[tuple[str, str, str, str]]) -> Group:
    """Return a card: what it is, then its parameters as (key, type, default, description)."""
    parts: list[RenderableType] = [Text(title, style="bold cyan"), Text(), Text(_reflowed(text))]
    if parameters:
        rows = table("parameter", "default", "what it is")
        for key, kind, default, description in parameters:
            told = Text(description)
            told.append(f"\n{kind[:1].upper()}{kind[1:]}.", style="dim")
            rows.add_row(Text(key, style="cyan"), default, told)
        parts += [Text(), rows]
    else:
        parts += [Text(), Text("It takes no parameters.", style="dim")]
    return Group(*parts)


# -- the machine ---------------------------------------------------------------------------------------

_FOUND = {"fine": Text("✓", style="green"), "note": Text("!", style="yellow"), "broken": Text("✗", style="red")}


def checkup_table(findings: Sequence[Any]) -> Table:
    """Return what `ftlib doctor` found: `flows.checkup.Finding` values."""
    found = table("", "", "")
    found.show_header = False
    for finding in findings:
        told = Text(finding.found)
        if finding.remedy:
            told.append(f"\n{finding.remedy}", style="yellow" if finding.state == "note" else "red")
        found.add_row(_FOUND[finding.state], finding.what, told)
    return found


# -- runs side by side -----------------------------------------------------------------------------------


def side_by_side(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return a column a run: its best model, every figure of that on test, and what the run cost."""
    headings = _headings(summaries)
    rows = table("", *headings, numbers=headings)
    rows.add_row("best", *(s["best"]["name"] for s in summaries))
    rows.add_row("interval", *(between(s["best"].get("interval")) for s in summaries), end_section=True)
    measured = [_best_row(s)["metrics"]["test"] for s in summaries]
    main = [s["metric"] for s in summaries]
    for metric in dict.fromkeys((*main, *sorted({name for m in measured for name in m}))):
        style = "bold" if metric in main else None
        rows.add_row(f"test {metric.replace('_', ' ')}", *(figure(m.get(metric)) for m in measured), style=style)
    rows.add_row("members", *(str(len(s["members"])) for s in summaries))
    rows.add_row("training", *(seconds(sum(m.get("train_seconds") or 0 for m in s["members"])) for s in summaries))
    rows.add_row("run", *((s.get("created") or "")[:16].replace("T", " ") for s in summaries))
    return rows


def _headings(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [s["name"] for s in summaries]
    return [name if names.count(name) == 1 else f"{name} {names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _best_row(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    rows: list[Mapping[str, Any]] = [*summary["members"], *summary["fusions"]]
    return next(row for row in rows if row["name"] == summary["best"]["name"])


def settings_that_differ(summaries: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the parameters in which the runs differ, a column a run; None where they are alike."""
    flat = [dict(_flattened((s.get("params") or {}).get("experiment", {}))) for s in summaries]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    differing = [key for key in keys if len({repr(settings.get(key)) for settings in flat}) > 1]
    if not differing:
        return None
    rows = table("setting", *_headings(summaries))
    for key in differing:
        rows.add_row(key, *("" if key not in settings else str(settings[key]) for settings in flat))
    return rows


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flattened(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            named = item.get("name", i) if isinstance(item, Mapping) else i
            yield from _flattened(item, f"{path}.{named}")
    else:
        yield path, value
