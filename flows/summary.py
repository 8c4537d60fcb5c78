"""What a run came to, as one JSON value: built from the artifacts, kept, and found again.

Layout below the state folder::

    runs/<experiment>-<time>-<id>.json   one summary a run
    runs/latest/<experiment>             the file name of the newest one
    reports/<experiment>.html            the newest report, with the facts of its run
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib import state
from ftlib.artifacts import Artifact, KeyRecord, Store
from ftlib.errors import ParamsError, unknown
from ftlib.files import read_json
from ftlib.params.experiment import Experiment

Summary = dict[str, Any]

BEST = ("name", "kind", "metric", "validation", "test", "interval", "leader", "reason")
"""What is told of the chosen model: see `ftlib.evaluation.choosing.Choice`, too."""


# -- building ----------------------------------------------------------------------------------------------


def build(
    experiment: Experiment,
    *,
    steps: Sequence[Summary],
    records: Mapping[str, KeyRecord],
    evaluation: Mapping[str, Any],
    transfer: Mapping[str, Any] | None,
    base_model: Mapping[str, Any] | None,
    rejected: Mapping[str, int],
    facts: Mapping[str, Any],
) -> Summary:
    """Return the summary of a run.

    Args:
        experiment: What was run.
        steps: name, state, seconds and artifact of each step, in order.
        records: Step name -> the record of its key: what computing it cost, whenever that was.
        evaluation: evaluation.json.
        transfer: transfer.json, where there are several tasks.
        base_model: What `base_choice` gave.
        rejected: Reason -> rows left out by cleaning and splitting.
        facts: What the run itself knows: flow_run_id, mlflow_run_id, mlflow_run_ids (by step), seconds, source,
            overrides, model_uri, report, energy_kwh, carbon_kg.
    """
    run_ids = facts.get("mlflow_run_ids", {})
    return {
        "name": experiment.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "flow_run_id": facts.get("flow_run_id"),
        "mlflow_run_id": facts.get("mlflow_run_id"),
        "seconds": round(facts["seconds"], 3),
        "report": facts.get("report"),
        "model_uri": facts.get("model_uri"),
        "energy_kwh": facts.get("energy_kwh"),
        "carbon_kg": facts.get("carbon_kg"),
        "metric": evaluation["metric"],
        "higher_is_better": evaluation["higher_is_better"],
        "problem": evaluation["problem"],
        "rows": evaluation["rows"],
        "rejected": dict(rejected),
        "steps": list(steps),
        "members": [_member(m, experiment, records, run_ids) for m in evaluation["members"]],
        "fusions": [_fusion(f, run_ids) for f in evaluation["fusions"]],
        "best": _only(evaluation["best"], *BEST),
        "best_member": evaluation["best_member"],
        "best_fusion": evaluation["best_fusion"],
        "transfer": transfer,
        "base_model": base_model,
        "slices": [entry for entry in evaluation.get("slices") or () if entry["is_named"]],
        "params": {
            "source": facts.get("source"),
            "overrides": list(facts.get("overrides", ())),
            "experiment": experiment.model_dump(mode="json"),
        },
    }


def _member(
    entry: Mapping[str, Any], experiment: Experiment, records: Mapping[str, KeyRecord], run_ids: Mapping[str, str]
) -> Summary:
    trained = records.get(f"train-{entry['name']}")
    cost = trained.metrics if trained else {}
    return {
        "name": entry["name"],
        "strategy": experiment.stage(entry["name"]).strategy.name,
        "num_trainable_parameters": cost.get("num_trainable_parameters"),
        "train_seconds": cost.get("train_seconds", cost.get("seconds")),
        "rows_per_second": cost.get("rows_per_second"),
        "mlflow_run_id": run_ids.get(f"train-{entry['name']}"),
        **_only(entry, "metrics", "interval", "num_parameters", "inference_cost"),
    }


def _fusion(entry: Mapping[str, Any], run_ids: Mapping[str, str]) -> Summary:
    kept = ("name", "method", "metrics", "interval", "weights", "members_used", "gain", "gain_interval")
    tests = ("p_value_against_best_member", "p_value_against_greedy", "inference_cost_ratio")
    return {**_only(entry, *kept, *tests), "mlflow_run_id": run_ids.get(f"fuse-{entry['name']}")}


def _only(entry: Mapping[str, Any], *names: str) -> Summary:
    return {name: entry.get(name) for name in names}


def base_choice(
    store: Store, artifacts: Mapping[str, Artifact], records: Mapping[str, KeyRecord]
) -> dict[str, Any] | None:
    """Return choice.json with the seconds that each candidate took, where the base model was chosen."""
    if "choose" not in artifacts:
        return None
    found = read_json(store.open(artifacts["choose"]) / "choice.json")
    lines = [{**line, "seconds": _spent(line["place"] + 1, records)} for line in found["candidates"]]
    return {**found, "candidates": lines}


def _spent(number: int, records: Mapping[str, KeyRecord]) -> float:
    steps = ("score-candidate", *(f"trial-{r}" for r in range(1, len(records))))
    found = [records[name].metrics["seconds"] for step in steps if (name := f"{step}-{number}") in records]
    return round(sum(found), 3)


def rejected_rows(store: Store, artifacts: Mapping[str, Artifact]) -> dict[str, int]:
    """Return reason -> rows that cleaning and splitting left out."""
    counts: dict[str, int] = {}
    for step, file, key in (("clean", "cleaning.json", "rejected"), ("split", "splits.json", "leaks")):
        if step in artifacts:
            found = read_json(store.open(artifacts[step]) / file).get(key, {})
            counts |= {reason: count for reason, count in found.items() if isinstance(count, int) and count}
    return counts


# -- the report --------------------------------------------------------------------------------------------


def report_path(name: str) -> Path:
    """Return where the newest report of an experiment is."""
    return state.home() / "reports" / f"{name}.html"


def write_report(name: str, html: str, facts: Mapping[str, Any]) -> Path:
    """Write the report with the facts of this run in it."""
    from ftlib.report import with_run

    path = report_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, with_run(html, dict(facts)))
    return path


def report_facts(summary: Summary, *, run_name: str, flow_run_url: str | None, mlflow_run_url: str | None) -> Summary:
    """Return what a report says of its run, beside its results."""
    told = ("train_seconds", "rows_per_second", "num_trainable_parameters", "mlflow_run_id")
    return {
        "run": run_name,
        "flow_run_url": flow_run_url,
        "mlflow_run_url": mlflow_run_url,
        "members": {m["name"]: _only(m, *told) for m in summary["members"]},
        **_only(summary, "created", "seconds", "steps"),
        **({"energy_kwh": summary["energy_kwh"], "co2_kg": summary["carbon_kg"]} if summary["energy_kwh"] else {}),
    }


# -- keeping and finding -----------------------------------------------------------------------------------


def write(summary: Summary) -> Path:
    """Keep a summary, and make it the newest of its experiment."""
    created = datetime.fromisoformat(summary["created"])
    suffix = str(summary["flow_run_id"] or uuid.uuid4().hex)[-8:]
    path = _folder() / f"{summary['name']}-{created:%Y%m%d-%H%M%S}-{suffix}.json"
    (_folder() / "latest").mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(summary, indent=1, ensure_ascii=False))
    _replace(_folder() / "latest" / summary["name"], path.name)
    return path


def latest(name: str) -> Summary | None:
    """Return the newest summary of an experiment."""
    try:
        return _read(_folder() / (_folder() / "latest" / name).read_text().strip())
    except OSError:
        return None


def load(run: str) -> Summary:
    """Return a run's summary.

    Args:
        run: An experiment's name (its newest run), a flow run id or its beginning, or a summary's file.

    Raises:
        ParamsError: If there is no such run; the message holds the near names.
    """
    found = latest(run) if "/" not in run else None
    if found is not None:
        return found
    path = Path(run) if Path(run).is_file() else next(iter(_matching(run)), None)
    if path is None:
        raise ParamsError(unknown("run", run, _names(), remedy="A flow run's id or a summary's file will do, too."))
    found = _read(path)
    if found is None:
        raise ParamsError(f"{path}: is not the summary of a run; expected what `ftlib run --json FILE` writes.")
    return found


def _matching(run: str) -> list[Path]:
    """Return the summaries whose file is called so, or whose flow run id begins so, newest first."""
    files = sorted(_folder().glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    named = [f for f in files if run in (f.name, f.stem)]
    if named or len(run) < 6:
        return named
    return [f for f in files if str((_read(f) or {}).get("flow_run_id") or "").startswith(run)]


def _read(path: Path) -> Summary | None:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"name", "steps", "members", "best"} <= found.keys() else None


def _names() -> list[str]:
    return [path.name for path in (_folder() / "latest").glob("*") if not path.name.startswith(".")]


def _folder() -> Path:
    return state.home() / "runs"


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(text, encoding="utf8")
    os.replace(draft, path)


# -- nothing to do -----------------------------------------------------------------------------------------


def of_finished(experiment: Experiment) -> Summary | None:
    """Return the newest run's summary, its steps all cached, where a run would compute and register nothing.

    That is: every step's artifact is there, and the experiment's newest run gave the same ones, with the same
    registration and tracking, MLflow told of it, and its report still there.
    """
    from flows import graph
    from ftlib.planning import plan

    started = time.perf_counter()
    last = latest(experiment.name)
    if last is None or last.get("mlflow_run_id") is None or not Path(last.get("report") or "").is_file():
        return None
    planned = plan(graph.steps(experiment), state.store(), scope=experiment.name)
    artifacts = {p.name: p.record.digest for p in planned if p.state == "done" and p.record}
    before = {step["name"]: step["artifact"] for step in last["steps"]}
    if len(artifacts) < len(planned) or artifacts != before or not _told_alike(last, experiment):
        return None
    done = [{"name": n, "state": "cached", "seconds": 0.0, "artifact": digest} for n, digest in artifacts.items()]
    return {**last, "steps": done, "seconds": round(time.perf_counter() - started, 3)}


def _told_alike(last: Summary, experiment: Experiment) -> bool:
    before, now = last["params"]["experiment"], experiment.model_dump(mode="json")
    return all(before.get(section) == now[section] for section in ("registration", "tracking"))
