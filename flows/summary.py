"""What a run came to, as one JSON value: built from the artifacts, and kept; `flows.runs` finds it again.

Layout below the state folder::

    runs/<experiment>-<time>-<id>.json   one summary a run
    runs/latest/<experiment>             the file name of the newest one
    reports/<experiment>.html            the newest report, with the facts of its run
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib import state
from ftlib.artifacts import Artifact, KeyRecord, Store
from ftlib.files import read_json
from ftlib.params import Experiment

Summary = dict[str, Any]


# -- building ----------------------------------------------------------------------------------------------


def build(
    experiment: Experiment,
    *,
    steps: Sequence[Summary],
    records: Mapping[str, KeyRecord],
    evaluation: Mapping[str, Any],
    rejected: Mapping[str, int],
    facts: Mapping[str, Any],
) -> Summary:
    """Return the summary of a run.

    Args:
        experiment: What was run.
        steps: name, state, seconds and artifact of each step, in order.
        records: Step name -> the record of its key: what computing it cost, whenever that was.
        evaluation: evaluation.json.
        rejected: Reason -> rows left out by cleaning and splitting.
        facts: What the run itself knows: flow_run_id, mlflow_run_id, mlflow_run_ids (by step), seconds, source,
            overrides, model_uri, report.
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
        "metric": evaluation["metric"],
        "higher_is_better": evaluation["higher_is_better"],
        "problem": evaluation["problem"],
        "rows": evaluation["rows"],
        "rejected": dict(rejected),
        "steps": list(steps),
        "members": [_member(m, experiment, records, run_ids) for m in evaluation["members"]],
        "fusions": [_fusion(f, run_ids) for f in evaluation["fusions"]],
        "best": _only(evaluation["best"], "name", "kind", "metric", "validation", "test", "interval"),
        "best_member": evaluation["best_member"],
        "best_fusion": _best_fusion(evaluation),
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


def _best_fusion(evaluation: Mapping[str, Any]) -> str | None:
    """Return the fusion with the best validation score; of equal ones the cheaper."""
    sign = 1 if evaluation["higher_is_better"] else -1

    def rank(fusion: Mapping[str, Any]) -> tuple[float, float]:
        score = fusion["metrics"]["validation"].get(evaluation["metric"])
        return (sign * score if score is not None else float("-inf"), -(fusion.get("inference_cost_ratio") or 0))

    return max(evaluation["fusions"], key=rank, default={"name": None})["name"]


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


def report_facts(summary: Summary, links: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what a report says of its run, beside its results."""
    return {
        "seconds": summary["seconds"],
        "created": summary["created"],
        "steps": {s: sum(step["state"] == s for step in summary["steps"]) for s in ("computed", "cached")},
        "flow_run_id": summary["flow_run_id"],
        "mlflow_run_id": summary["mlflow_run_id"],
        "prefect_url": links.get("prefect"),
        "mlflow_url": links.get("mlflow"),
        "model_uri": summary["model_uri"],
        "members": {
            m["name"]: {"train_seconds": m["train_seconds"], "rows_per_second": m["rows_per_second"]}
            for m in summary["members"]
        },
    }


# -- keeping -----------------------------------------------------------------------------------------------


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
        found: Summary = read_json(_folder() / (_folder() / "latest" / name).read_text().strip())
    except (FileNotFoundError, ValueError):
        return None
    return found


def _folder() -> Path:
    return state.home() / "runs"


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(text, encoding="utf8")
    os.replace(draft, path)
