# ruff: noqa: E501 - lines of markup are as long as what they hold
"""A search as one HTML page that needs nothing else, in the report's colours, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.report import words
from ftlib.report.sheet import sheet
from ftlib.tuning import charts
from ftlib.tuning.naming import STATES, short_names, shown
from ftlib.tuning.study import Search, Trial, by_score

BODY = """<h1><em>{{ score }}</em> validation {{ metric }}</h1>
<p class="finding">{% for sentence in sentences %}{{ sentence }} {% endfor %}</p>
<section><h2>How it went</h2>
<p class="lead">One mark a trial; the line is the best so far.</p>
<figure class="chart-scroll">{{ history }}</figure>
<ul class="legend"><li><svg class="key" viewBox="0 0 11 11" aria-hidden="true"><circle cx="5.5" cy="5.5" r="4.5" class="best-dot"/></svg> the best</li><li><svg class="key" viewBox="0 0 11 11" aria-hidden="true"><circle cx="5.5" cy="5.5" r="4.5" class="mark member"/></svg> complete</li>{% if num_pruned %}<li><svg class="key" viewBox="0 0 11 11" aria-hidden="true"><polygon points="5.5,0 11,5.5 5.5,11 0,5.5" class="mark given-up"/></svg> given up early, at its last score</li>{% endif %}</ul>
</section>
<section><h2>What mattered</h2>
{% if importances %}<p class="lead">How much of the differences between complete trials each parameter explains alone or with others (fANOVA). With few trials it is a hint, no more.</p>
<figure class="chart-scroll">{{ importances }}</figure>
{% else %}<p class="lead">Too few complete trials, or all of one score: nothing can be said.</p>{% endif %}
</section>
<section><h2>Where good values lie</h2>
<div class="slices">{% for name, chart in slices %}<figure><figcaption>{{ name }}</figcaption>{{ chart }}</figure>{% endfor %}</div>
</section>
<section><h2>All trials</h2>
<div class="scroll"><table class="sticky">
<thead><tr><th scope="col" class="num">trial</th><th scope="col" class="num">{{ metric }}</th>{% for name in names %}<th scope="col" class="num">{{ name }}</th>{% endfor %}<th scope="col">chosen</th><th scope="col" class="num">took</th><th scope="col" class="num">computed</th><th scope="col" class="num">cached</th><th scope="col"></th></tr></thead>
<tbody>{% for row in rows %}<tr{% if row.best %} class="chosen"{% endif %}><td class="num">{{ row.number }}</td><td class="num{{ ' best' if row.best }}">{{ row.score }}</td>{% for value in row.shown %}<td class="num">{{ value }}</td>{% endfor %}<td>{{ row.chosen }}</td><td class="num">{{ row.took }}</td><td class="num">{{ row.computed }}</td><td class="num">{{ row.cached }}</td><td class="soft">{{ row.state }}</td></tr>
{% endfor %}</tbody></table></div>
</section>
<footer><p>Made by ftlib. Trials are judged on validation alone; of the test rows nothing was predicted. The best score is a little too good, as it was chosen for being so: what the model is worth, a run measures on test.</p></footer>
"""

OWN = """
.search{max-width:58rem;margin:0 auto;padding:3.4rem 1.25rem}
.mark.given-up{fill:var(--paper);stroke:var(--warn);stroke-width:1.5}
.slices{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:1.2rem 1.6rem}
.slices figcaption{font-size:.8125rem;color:var(--soft);margin-bottom:.3rem}
table.sticky .chosen td:nth-child(n){background:var(--wash)}
"""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        experiment: The experiment's name.
        search: What was searched.
        metric: What trials were judged by.
        trials: Those that came to an end.
        best: The best one.
        importances: Path -> share in the variance of scores; empty where nothing can be said.
    """

    experiment: str
    search: Search
    metric: str
    trials: Sequence[Trial]
    best: Trial
    importances: Mapping[str, float]


def page(found: Found) -> str:
    """Return the page."""
    names = short_names(dimension.path for dimension in found.search.space)
    scored = [trial for trial in found.trials if trial.score is not None]
    higher = found.search.higher_is_better
    shares = [(names[path], share) for path, share in found.importances.items()]
    return sheet(
        BODY,
        name=found.experiment,
        subject="search",
        kind="search",
        own=OWN,
        eyebrow=f"search over {words.counted(len(names), 'parameter')}, {words.counted(len(found.trials), 'trial')}",
        metric=words.metric_name(found.metric),
        score=words.number(found.best.score),
        sentences=list(sentences(found)),
        history=charts.history(found.trials, found.best, found.metric, higher_is_better=higher),
        num_pruned=sum(trial.state == "pruned" for trial in found.trials),
        importances=charts.importances(shares) if shares else "",
        slices=[(names[d.path], charts.slice_of(d, scored, found.best)) for d in found.search.space],
        names=list(names.values()),
        rows=[_row(trial, found) for trial in by_score(found.trials, higher_is_better=higher)],
    )


def sentences(found: Found) -> list[str]:
    """Return in words what came out: the best trial, what the params file's own values gave, what was given up."""
    values = ", ".join(f"{path} {shown(value)}" for path, value in found.best.values.items())
    told = [f"Trial {found.best.number} is the best: {values}."]
    own = next((t for t in found.trials if t.values == found.search.own and t.state == "complete"), None)
    if own is not None and own.number != found.best.number:
        told.append(f"The params file's own values gave {words.number(own.score, 4)} (trial {own.number}).")
    elif own is not None:
        told.append("These are the params file's own values: nothing that was tried beats them.")
    pruned, failed = (sum(t.state == state for t in found.trials) for state in ("pruned", "failed"))
    told += [f"{words.counted(pruned, 'trial')} given up early."] if pruned else []
    told += [f"{words.counted(failed, 'trial')} failed."] if failed else []
    rows = {trial.facts["rows"] for trial in found.trials if "rows" in trial.facts}
    if len(rows) > 1:
        told.append(f"Trials were judged on {len(rows)} different sets of validation rows: scores compare loosely.")
    return told


def _row(trial: Trial, found: Found) -> dict[str, Any]:
    steps = [step["state"] for step in trial.facts.get("steps", ())]
    return {
        "number": trial.number,
        "score": words.number(trial.score, 4),
        "shown": [shown(trial.values.get(d.path, "")) for d in found.search.space],
        "chosen": trial.facts.get("chosen", ""),
        "took": words.duration(trial.facts.get("seconds") or 0.0),
        "computed": steps.count("computed"),
        "cached": steps.count("cached"),
        "state": trial.facts.get("reason") or STATES[trial.state],
        "best": trial.number == found.best.number,
    }
