"""A page beside the report, of one subject: it needs nothing else, in the report's colours, light and dark."""

from __future__ import annotations

from typing import Any

TOP = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ name }}: {{ subject }}</title>
<style>{{ palette|safe }}{{ style|safe }}{{ own|safe }}</style>
</head>
<body>
<main class="{{ kind }}">
<p class="eyebrow"><b><bdi>{{ name }}</bdi></b> &nbsp;·&nbsp; {{ eyebrow }}</p>
"""

BOTTOM = """</main>
</body>
</html>
"""


def sheet(body: str, *, name: str, subject: str, kind: str, eyebrow: str, own: str, **values: Any) -> str:
    """Return the page.

    Args:
        body: Jinja template of what stands below the first line.
        name: What the page is of, such as the experiment.
        subject: What it tells, for the title.
        kind: The class of its main element.
        eyebrow: What stands beside the name.
        own: Styles beside the report's.
        values: What `body` speaks of.
    """
    from ftlib.report import palette, style
    from ftlib.report.page import environment

    given = {"name": name, "subject": subject, "kind": kind, "eyebrow": eyebrow, "own": own, **values}
    return environment().from_string(TOP + body + BOTTOM).render(palette=palette.css(), style=style.STYLE, **given)
