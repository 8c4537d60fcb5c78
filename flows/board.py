"""What a person sees of a run in the Prefect UI beside its graph: progress, leaderboard, report, links.

Showing is never worth a run: whatever goes wrong here is logged, and the run goes on without.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.show import count, figure, p, seconds
from ftlib import progress
from ftlib.progress import Progress

PROGRESS_SECONDS = 3.0
"""How often a progress bar moves; a step that is done sooner has none."""

REST_SECONDS = 120.0
"""For how long no progress is shown after a failure."""

ALIKE = 2
"""How many of the report's plots of one kind are shown, such as learning curves."""

PAGE_WIDTH, GAP = 908.0, 24.0
"""The width of the picture that the plots are laid out in, and the space between them."""

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
        self._resting_until = 0.0

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
        soon = now - bar.shown < PROGRESS_SECONDS and not (finished and bar.artifact_id)
        if soon or now < self._resting_until:
            return
        bar.shown = now
        ratio = min(event.done / event.total, 1.0) if event.total else 0.0
        with self.trying():
            self._show(bar, event, round(100 * ratio, 1), now - bar.started)

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
            f"**{best['name']}** was chosen on validation. On test, read once, it reaches "
            f"{figure(best['test'])} {summary['metric'].replace('_', ' ')} ({_interval(best)})."
            f"{' ' + best['reason'] if best.get('reason') else ''}"
        )
        rows = json.dumps(leaderboard_rows(summary))
        self._create("table", "leaderboard", rows, told)

    def report(self, summary: Mapping[str, Any], html: str) -> None:
        """Show where the report is, the run in figures, and the report's main plots."""
        text = "\n\n".join(filter(None, [_headline(summary), plots_of(html)]))
        self._create("markdown", "report", text, "The report's figures and main plots.")

    def link(self, name: str, url: str, text: str, *, task_run_id: UUID | None = None) -> None:
        """Show a link on the run's page, or on a task run's.

        Args:
            name: What the artifact is called, beside the experiment's name.
            url: Where it goes.
            text: What it says.
            task_run_id: Whose page it belongs on; the run's unless given.
        """
        self._create("markdown", name, f"[{text}]({url})", text, task_run_id=task_run_id)

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

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Give up at the first call that fails, without a second try: training does not wait for a server."""
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                yield
        except Exception as error:  # whatever the client raises: showing is not worth a run
            logger.warning("Prefect does not show all of the run (%s).", error)
            self._resting_until = time.monotonic() + REST_SECONDS


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


def plots_of(html: str) -> str | None:
    """Return a report's main plots as one Markdown image that needs nothing from outside and follows the theme.

    Args:
        html: The report: SVG drawings that say in `aria-label` what they show, and one style sheet.
    """
    drawings = list(_main_drawings(html))
    if not drawings:
        return None
    style = "".join(re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)).replace("]]>", "")
    placed, height = _placed(drawings)
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{PAGE_WIDTH:g}" height="{height:.0f}" '
        'style="font-family:system-ui,sans-serif">'
        f"<style><![CDATA[{style}]]></style>"
        f'<rect width="100%" height="100%" rx="8" style="fill:var(--paper,#fff)"/>{placed}</svg>'
    )
    return f"![The report's main plots](data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()})"


@dataclass(frozen=True)
class _Drawing:
    """One plot of a report.

    Attributes:
        told: Its first sentence.
        text: Its SVG.
    """

    told: str
    width: float
    height: float
    text: str


def _main_drawings(html: str) -> Iterator[_Drawing]:
    """Yield the plots, at most `ALIKE` that begin with the same words; a plot drawn for two widths once."""
    seen: dict[str, int] = {}
    told: set[str] = set()
    for text in re.findall(r'<svg\b[^>]*role="img".*?</svg>', html, re.DOTALL):
        label = re.search(r'aria-label="([^"]*)"', text)
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        if label is None or size is None or label[1] in told:
            continue
        told.add(label[1])
        kind = " ".join(label[1].split()[:2])
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= ALIKE:
            yield _Drawing(label[1].split(". ")[0].rstrip(".:"), float(size[1]), float(size[2]), text)


def _placed(drawings: list[_Drawing]) -> tuple[str, float]:
    """Return the plots side by side where they fit, with their captions, and the height that they take."""
    parts, x, y, row = [], GAP, GAP, 0.0
    for drawing in drawings:
        if x > GAP and x + drawing.width > PAGE_WIDTH - GAP:
            x, y, row = GAP, y + row + GAP, 0.0
        style = "font-size:13px;font-weight:600;fill:var(--ink,#111)"
        caption = f'<text x="{x:g}" y="{y + 14:g}" style="{style}">{drawing.told}</text>'
        parts += [caption, re.sub("^<svg", f'<svg x="{x:g}" y="{y + 24:g}"', drawing.text)]
        x, row = x + drawing.width + GAP, max(row, drawing.height + 24)
    return "".join(parts), y + row + GAP
