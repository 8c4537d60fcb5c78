"""What a person sees of a run in the Prefect UI beside its graph: progress, leaderboard, report, links.

Showing is never worth a run: whatever goes wrong here is logged, and the run goes on without.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import TaskRunContext

from flows.show import count, figure, p, seconds
from ftlib import progress
from ftlib.progress import Progress

PROGRESS_SECONDS = 3.0
"""How often a progress bar moves; a step that is done sooner has none."""

PLOTS = 6
"""How many of the report's plots are shown."""

logger = logging.getLogger(__name__)


@dataclass
class _Bar:
    """The progress artifact of one step."""

    started: float
    shown: float
    artifact_id: UUID | None = None


class Board:
    """The artifacts of one flow run.

    Args:
        client: The run's API client.
        flow_run_id: The run.
        experiment: The experiment's name: artifacts of one experiment have a history under one key.
    """

    def __init__(self, client: SyncPrefectClient, flow_run_id: UUID, experiment: str) -> None:
        self._client = client
        self._flow_run_id = flow_run_id
        self._experiment = experiment
        self._bars: dict[str, _Bar] = {}

    # -- progress ----------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show the progress of every long step while the context is open."""
        with progress.listen(self.move):
            yield

    def move(self, event: Progress) -> None:
        """Show how far a step is, at most every few seconds."""
        now = time.monotonic()
        bar = self._bars.setdefault(event.step, _Bar(started=now, shown=now))
        finished = event.done >= event.total
        if now - bar.shown < PROGRESS_SECONDS and not (finished and bar.artifact_id):
            return
        bar.shown = now
        ratio = min(event.done / event.total, 1.0) if event.total else 0.0
        self._try(lambda: self._show(bar, event, round(100 * ratio, 1), now - bar.started))

    def _show(self, bar: _Bar, event: Progress, percent: float, elapsed: float) -> None:
        told = _told(event, percent, elapsed)
        if bar.artifact_id is None:
            task = TaskRunContext.get()
            task_run_id = task.task_run.id if task else None
            bar.artifact_id = self._create("progress", f"{event.step}-progress", percent, told, task_run_id=task_run_id)
        else:
            self._client.update_artifact(bar.artifact_id, ArtifactUpdate(data=percent, description=told))

    # -- results -----------------------------------------------------------------------------------

    def leaderboard(self, summary: Mapping[str, Any]) -> None:
        """Show members and fusions as a table, best first."""
        best = summary["best"]
        told = (
            f"**{best['name']}** is best on validation: {figure(best['test'])} {summary['metric'].replace('_', ' ')} "
            f"on test, {_interval(best)}. The choice is made on validation; test is read once."
        )
        rows = json.dumps(leaderboard_rows(summary))
        self._try(lambda: self._create("table", "leaderboard", rows, told))

    def report(self, summary: Mapping[str, Any], html: str) -> None:
        """Show where the report is, the run in figures, and the report's main plots."""
        text = "\n\n".join([_headline(summary), *plots_of(html)])
        self._try(lambda: self._create("markdown", "report", text, "The report's figures and main plots."))

    def link(self, name: str, url: str, text: str, *, task_run_id: UUID | None = None) -> None:
        """Show a link on the run's page, or on a task run's.

        Args:
            name: What the artifact is called, beside the experiment's name.
            url: Where it goes.
            text: What it says.
            task_run_id: Whose page it belongs on; the run's unless given.
        """
        self._try(lambda: self._create("markdown", name, f"[{text}]({url})", text, task_run_id=task_run_id))

    # -- the API -----------------------------------------------------------------------------------

    def _create(self, kind: str, name: str, data: Any, told: str, *, task_run_id: UUID | None = None) -> UUID:
        request = ArtifactCreate(
            type=kind,
            key=key(self._experiment, name),
            description=told,
            data=data,
            flow_run_id=self._flow_run_id,
            task_run_id=task_run_id,
        )
        return self._client.create_artifact(request).id

    def _try(self, show: Callable[[], object]) -> None:
        try:
            show()
        except Exception as error:  # a server that is gone or slow must not stop training
            logger.warning("Prefect does not show an artifact: %s", error)


def key(*parts: str) -> str:
    """Return an artifact's key: lower case letters, digits and dashes are all that Prefect takes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _told(event: Progress, percent: float, elapsed: float) -> str:
    left = elapsed * (100 - percent) / percent if percent else None
    figures = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.metrics.items()]
    parts = [f"{event.step}: {event.done:,.0f} of {event.total:,.0f} {event.unit}", *figures]
    return " · ".join([*parts, f"{seconds(left)} left"] if left is not None and percent < 100 else parts)


# -- the leaderboard ---------------------------------------------------------------------------------------


def leaderboard_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the leaderboard as rows of text, best on validation first."""
    metric = summary["metric"]
    sign = -1 if summary.get("higher_is_better", True) else 1
    entries = [*summary["members"], *summary["fusions"]]

    def rank(entry: Mapping[str, Any]) -> float:
        value = entry["metrics"]["validation"].get(metric)
        return float("inf") if value is None else sign * value

    return [_row(entry, metric, summary["best"]["name"]) for entry in sorted(entries, key=rank)]


def _row(entry: Mapping[str, Any], metric: str, best: str) -> dict[str, Any]:
    method = entry.get("method")
    kind = entry["strategy"] if "strategy" in entry else f"fusion: {method['name'] if method else entry['name']}"
    cost = entry.get("inference_cost_ratio")
    gain = entry.get("gain")
    return {
        "name": f"★ {entry['name']}" if entry["name"] == best else entry["name"],
        "kind": kind,
        "validation": figure(entry["metrics"]["validation"].get(metric)),
        "test": figure(entry["metrics"]["test"].get(metric)),
        "interval": _interval(entry),
        "gain": "" if gain is None else f"{gain:+.4f}",
        "p": p(entry.get("p_value_against_best_member")),
        "trainable": count(entry.get("num_trainable_parameters")),
        "training": seconds(entry.get("train_seconds")),
        "cost": "" if cost is None else f"{cost:.2g}x",
    }


def _interval(entry: Mapping[str, Any]) -> str:
    interval = entry.get("interval")
    return f"{interval[0]:.3f} – {interval[1]:.3f}" if interval else ""


# -- the report's plots ------------------------------------------------------------------------------------


def _headline(summary: Mapping[str, Any]) -> str:
    computed = sum(step["state"] == "computed" for step in summary["steps"])
    lines = [
        f"# {summary['name']}",
        f"`{summary['report']}`",
        f"{computed} of {len(summary['steps'])} steps computed, {len(summary['steps']) - computed} cached, "
        f"in {seconds(summary['seconds'])}.",
    ]
    if summary.get("model_uri"):
        lines.append(f"Model: `{summary['model_uri']}`")
    return "\n\n".join(lines)


def plots_of(html: str, most: int = PLOTS) -> list[str]:
    """Return the first plots of a report as Markdown images that need nothing from outside."""
    styles = "".join(re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL))
    drawings = [d for d in re.findall(r"<svg\b.*?</svg>", html, re.DOTALL) if "viewBox" in d and len(d) > 1500]
    return [_image(drawing, styles) for drawing in drawings[:most]]


def _image(drawing: str, styles: str) -> str:
    label = ""
    with suppress(AttributeError):
        label = re.search(r'aria-label="([^"]*)"', drawing).group(1)  # type: ignore[union-attr]
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups()  # type: ignore[union-attr]
    opening = drawing.index(">") + 1
    sized = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"{drawing[4:opening]}'
    image = f"{sized}<style><![CDATA[{styles}]]></style>{drawing[opening:]}"
    return f"![{label}](data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()})"
