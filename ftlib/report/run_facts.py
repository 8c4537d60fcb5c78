"""What belongs to one run and not to the result: how long it took, where it is recorded. Filled in afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.report import words
from ftlib.report.page import environment

BEGIN, END = "<!--run-->", "<!--/run-->"


def with_run(html: str, facts: Mapping[str, Any]) -> str:
    """Return a report with the facts of a run in its footer; facts of an earlier run are replaced.

    Args:
        html: What `render` gave.
        facts: Any of "run" (its name), "created", "seconds", "flow_run_url", "mlflow_run_url",
            "steps" (each with "name", "state", "seconds"), "members" (name -> any of "train_seconds",
            "rows_per_second", "num_trainable_parameters", "mlflow_run_id"), "energy_kwh", "co2_kg".

    Returns:
        The report; unchanged where it has no place for the facts.
    """
    head, begin, rest = html.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        return html
    block = (
        environment()
        .get_template("run")
        .render(
            name=facts.get("run"),
            sentence=_sentence(facts),
            steps=[{key: step.get(key) for key in ("name", "state", "seconds")} for step in facts.get("steps") or ()],
            links=_links(facts),
            members=_members(facts),
        )
    )
    return f"{head}{BEGIN}{block if facts else ''}{END}{tail}"


def _sentence(facts: Mapping[str, Any]) -> str:
    """Return when the run was, how long it took and what it used, as far as that is known."""
    states = [step.get("state") for step in facts.get("steps") or ()]
    computed, cached = states.count("computed"), states.count("cached")
    seconds, used = facts.get("seconds"), facts.get("energy_kwh")
    carbon = f" and {words.mass(facts['co2_kg'])} of CO₂" if facts.get("co2_kg") is not None else ""
    parts = [
        str(facts["created"]) if facts.get("created") else "",
        f"{words.duration(seconds)} in all" if seconds is not None else "",
        f"{words.counted(computed, 'step')} computed, {words.count(cached)} cached" if states else "",
        f"about {words.energy(used)}{carbon}" if used is not None else "",
    ]
    told = "; ".join(filter(None, parts))
    return f"{told}." if told else ""


def _links(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = (("Prefect run", facts.get("flow_run_url")), ("MLflow run", facts.get("mlflow_run_url")))
    return [(label, str(url)) for label, url in named if _is_web(url)]


def _members(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "seconds": given.get("train_seconds"),
            "speed": given.get("rows_per_second"),
            "trained": given.get("num_trainable_parameters"),
            "url": _member_url(facts.get("mlflow_run_url"), given.get("mlflow_run_id")),
        }
        for name, given in (facts.get("members") or {}).items()
    ]


def _member_url(parent: Any, run_id: Any) -> str | None:
    """Return a child run's page: beside its parent's, .../runs/<id>, in the same view."""
    if not run_id or not _is_web(parent) or "/runs/" not in str(parent):
        return None
    runs, _, own = str(parent).rpartition("/runs/")
    _, mark, view = own.partition("?")
    return f"{runs}/runs/{run_id}{mark}{view}"


def _is_web(url: Any) -> bool:
    return isinstance(url, str) and url.startswith(("http://", "https://"))
