"""Rendering: the sections that a story has, in order, in one page."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ftlib.report import (
    palette,
    provenance,
    results,
    script,
    style,
    template,
    template_base_model,
    template_details,
    template_errors,
    template_tasks,
    words,
)
from ftlib.report.base_model import base_model
from ftlib.report.errors import worst_errors
from ftlib.report.headline import headline
from ftlib.report.models import models
from ftlib.report.slices import slices
from ftlib.report.story import Story
from ftlib.report.tasks import tasks

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = {
    "macros": template.MACROS,
    "page": template.PAGE,
    "summary": template.SUMMARY,
    "leaderboard": template.LEADERBOARD,
    "gain": template.GAIN,
    "tasks": template_tasks.TASKS,
    "learning": template.LEARNING,
    "confusion": template_details.CONFUSION,
    "labels": template_details.PER_LABEL,
    "reliability": template_details.RELIABILITY,
    "disagreement": template_details.DISAGREEMENT,
    "slices": template_errors.SLICES,
    "errors": template_errors.ERRORS,
    "data": template_details.FUNNEL,
    "encoding": template_details.ENCODING,
    "base_model": template_base_model.BASE_MODEL,
    "made": template_details.MADE,
    "run": template_details.RUN,
}


def render(story: Story) -> str:
    """Return the report as one HTML file that needs nothing else. Equal stories give equal bytes."""
    found = models(story)
    views = {
        "summary": ("Summary", headline(story, found)),
        "leaderboard": ("Leaderboard", results.leaderboard(story, found)),
        "gain": ("Gain and cost", results.gain_and_cost(story, found)),
        "tasks": ("Tasks", tasks(story)),
        "learning": ("Learning curves", results.learning(story, found)),
        "confusion": (_confusion_title(story), results.confusion(story, found)),
        "labels": ("Type by type" if story.target == "tags" else "Label by label", results.per_label(story, found)),
        "reliability": ("Confidence", results.reliability(story, found)),
        "disagreement": ("Disagreement", results.disagreement(story)),
        "slices": ("Slices", slices(story, found)),
        "errors": ("Worst errors", worst_errors(story, found)),
        "data": ("From read to kept", provenance.funnel(story)),
        "encoding": ("Lengths in tokens", provenance.encoding(story)),
        "base_model": ("Base model", base_model(story)),
        "made": ("How it was made", provenance.made(story, found)),
    }
    sections = [(name, title, name, view) for name, (title, view) in views.items() if view]
    return (
        environment()
        .get_template("page")
        .render(
            story=story,
            head=views["summary"][1],
            sections=sections,
            metrics=results.all_metrics(story, found),
            palette=palette.css(),
            style=style.STYLE,
            theme_script=script.THEME,
            page_script=script.PAGE,
            script_hashes=" ".join(map(_script_hash, (script.THEME, script.PAGE))),
        )
        .lstrip()
    )


@cache
def environment() -> Environment:
    """Return the templates with the filters that they use; all that they print is escaped."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    made = Environment(
        loader=DictLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(_filters())
    return made


def breakable(name: str) -> Markup:
    """Return a name that may go on in the next line after an underscore."""
    return Markup("_<wbr>").join(str(name).split("_"))


def _filters() -> dict[str, Any]:
    named = (words.number, words.signed, words.interval, words.percent, words.count, words.counted, words.times)
    more = (words.large, words.p_value, words.duration)
    return {**{function.__name__: function for function in (*named, *more)}, "zip": zip, "breakable": breakable}


def _confusion_title(story: Story) -> str:
    titles = {"value": "Gold and predicted", "multi_label": "Found and missed", "tags": "Word by word"}
    return titles.get(story.target, "Confusion")


def _script_hash(source: str) -> str:
    """Return the hash by which the page's policy lets its own scripts run and no other.

    W3C, Content Security Policy Level 3, https://www.w3.org/TR/CSP3/#external-hash.
    """
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
