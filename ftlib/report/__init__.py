"""The report: one self-contained HTML file that tells an experiment's story, in light and dark.

Everything is drawn here as SVG and CSS that follow the theme; nothing is loaded from anywhere. `render` depends on
its story alone (no time, no path), so that equal results give equal bytes; `with_run` adds afterwards what belongs
to one run: how long it took, where it is recorded.
"""

from ftlib.report.page import render
from ftlib.report.run_facts import with_run
from ftlib.report.story import Story

__all__ = ["Story", "render", "with_run"]
