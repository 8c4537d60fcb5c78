# ruff: noqa: E501 - lines of markup are as long as what they hold
"""The page's templates (jinja2, autoescaped), held in a module so that they enter the step's source digest."""

from __future__ import annotations

MACROS = """
{%- macro key(kind, chosen) -%}
<svg class="key" viewBox="0 0 11 11" aria-hidden="true">
{%- if kind == "baseline" -%}<polygon points="5.5,-.5 11.5,5.5 5.5,11.5 -.5,5.5" class="mark baseline{{ ' chosen' if chosen }}"/>
{%- else -%}<circle cx="5.5" cy="5.5" r="4.5" class="mark {{ kind }}{{ ' chosen' if chosen }}"/>{%- endif -%}
</svg>
{%- endmacro -%}

{%- macro both(charts, scroll=false) -%}
{%- if charts|length == 1 -%}<div class="chart-scroll" tabindex="0" role="group" aria-label="Chart, scrolls sideways">{{ charts[0] }}</div>
{%- else -%}<div class="wide">{{ charts[0] }}</div><div class="narrow">{{ charts[1] }}</div>{%- endif -%}
{%- endmacro -%}

{%- macro meter(share, mark=none) -%}
<span class="meter" aria-hidden="true"><i style="width:{{ (share * 100)|round(2) }}%"></i>
{%- if mark is not none %}<u style="left:calc({{ (mark * 100)|round(2) }}% - 1px)"></u>{% endif -%}</span>
{%- endmacro -%}

{%- macro pairs(values) -%}
<span class="params">{% for name, value in values %}<span>{{ name }} <b>{{ value }}</b></span> {% endfor %}</span>
{%- endmacro -%}
"""

PAGE = """
{%- import "macros" as m -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {{ script_hashes }}">
<title>{{ story.experiment }}: {{ head.winner }}, {{ head.score }}</title>
<style>{{ palette|safe }}{{ style|safe }}</style>
<script>{{ theme_script|safe }}</script>
</head>
<body>
<a class="skip" href="#summary">Skip to the report</a>
<div class="page">
<nav class="rail" aria-label="Contents">
<p class="brand"><bdi>{{ story.experiment }}</bdi><span>experiment report</span></p>
<ol>{% for id, title, _, _ in sections %}<li><a href="#{{ id }}">{{ title }}</a></li>{% endfor %}</ol>
<button class="theme" type="button" hidden><svg viewBox="0 0 14 14" aria-hidden="true"><path d="M7 0a7 7 0 1 0 0 14A7 7 0 0 0 7 0zm0 1.6v10.8A5.4 5.4 0 0 1 7 1.6z"/></svg><span></span></button>
</nav>
<div>
<main>
{% for id, title, template, view in sections %}
<section id="{{ id }}"{% if id != "summary" %} aria-labelledby="{{ id }}-title"{% endif %}>
{% if id != "summary" %}<h2 id="{{ id }}-title">{{ title }}</h2>{% endif %}
{% include template %}
</section>
{% endfor %}
</main>
<footer>
<!--run--><!--/run-->
<p>Made by ftlib. The choice was made on validation; the test rows were looked at once, for the figures above.</p>
</footer>
</div>
</div>
<script>{{ page_script|safe }}</script>
</body>
</html>
"""

SUMMARY = """
<p class="eyebrow"><b><bdi>{{ story.experiment }}</bdi></b>{% for part in view.eyebrow %} &nbsp;·&nbsp; {{ part }}{% endfor %}</p>
<h1><em><bdi>{{ view.winner }}</bdi></em> {{ view.verb }} {{ view.score }}</h1>
<p class="finding">{% for sentence in view.sentences %}{{ sentence }} {% endfor %}</p>
<dl class="figures">
{% for figure in view.figures %}<div><dt>{{ figure.name }}</dt><dd class="value">{{ figure.value }}</dd><dd class="note">{{ figure.note }}</dd></div>
{% endfor %}</dl>
"""

LEADERBOARD = """
<p class="lead">{% if view.rows|length > 1 %}The chosen model first, the others by validation {{ view.metric }}{{ ", where lower is better" if not view.higher }}. {% endif %}
{%- if view.leader %}<bdi>{{ view.leader }}</bdi> was ahead on validation, by less than its error: among models so close, the lower loss decides. {% endif %}
Dots are test scores, whiskers their {{ view.coverage }} intervals
{%- if view.line is not none %}; the dashed line is the best single member, <bdi>{{ view.reference }}</bdi>{% endif %}.</p>
<div class="scroll" tabindex="0" role="group" aria-label="Leaderboard">
<table class="board sortable" role="table">
<caption class="hidden">Members and fusions with {{ view.metric }} on validation and test</caption>
<thead role="rowgroup"><tr role="row">
<th role="columnheader" scope="col" data-first="ascending">model</th>
<th role="columnheader" scope="col" class="num" data-first="{{ 'descending' if view.higher else 'ascending' }}">validation</th>
<th role="columnheader" scope="col" class="num" data-first="{{ 'descending' if view.higher else 'ascending' }}">test</th>
<th role="columnheader" scope="col" class="plot"><span class="hidden">test with interval</span><span class="axis" aria-hidden="true">{% for at, label in view.ticks %}<span style="left:{{ at }}%">{{ label }}</span>{% endfor %}</span></th>
{% if view.gained %}<th role="columnheader" scope="col" class="num" data-first="descending">gain</th>{% endif %}
{% if view.tested %}<th role="columnheader" scope="col" class="num" data-first="ascending"><abbr title="p-value of the paired test against the best single member">p</abbr></th>{% endif %}
{% if view.tested_greedy %}<th role="columnheader" scope="col" class="num" data-first="ascending"><abbr title="p-value of the paired test against greedy ensemble selection">p, greedy</abbr></th>{% endif %}
{% if view.costed %}<th role="columnheader" scope="col" class="num" data-first="ascending"><abbr title="inference cost as a multiple of the best single member's">cost</abbr></th>{% endif %}
</tr></thead>
<tbody role="rowgroup">
{% for row in view.rows %}{% set model = row.model %}
<tr role="row"{% if model.chosen %} class="chosen"{% endif %}>
<th role="rowheader" scope="row"><span class="name">{{ m.key(model.kind, model.chosen) }}<span><b><bdi>{{ model.name|breakable }}</bdi></b>{% if model.chosen %} <span class="tag win">chosen</span>{% elif model.kind == "baseline" %} <span class="tag">baseline</span>{% endif %}
<span class="detail">{{ model.detail }}{% if model.reference and view.rows|length > 1 %}{{ " · " if model.detail }}best single{% endif %}</span></span></span></th>
<td role="cell" class="num" data-label="validation" data-value="{{ row.validation if row.validation is not none }}">{{ row.validation|number }}</td>
<td role="cell" class="num score" data-label="test" data-value="{{ row.test if row.test is not none }}">{{ row.test|number }}</td>
<td role="cell" class="plot"><span class="track" title="{{ row.test|number }}{% if model.interval %} ({{ model.interval|interval }}){% endif %}">{% for at, _ in view.ticks %}<i class="tick" style="left:{{ at }}%"></i>{% endfor %}
{%- if view.line is not none %}<i class="line" style="left:{{ view.line }}%"></i>{% endif %}
{%- if row.bounds %}<i class="bar" style="left:{{ row.bounds[0] }}%;width:{{ (row.bounds[1] - row.bounds[0])|round(2) }}%"></i>{% endif %}
{%- if row.at is not none %}<svg class="key" style="left:{{ row.at }}%" viewBox="0 0 11 11" aria-hidden="true">{% if model.kind == "baseline" %}<polygon points="5.5,-.5 11.5,5.5 5.5,11.5 -.5,5.5" class="mark baseline{{ ' chosen' if model.chosen }}"/>{% else %}<circle cx="5.5" cy="5.5" r="5" class="mark {{ model.kind }}{{ ' chosen' if model.chosen }}"/>{% endif %}</svg>{% endif %}</span></td>
{% if view.gained %}<td role="cell" class="num{{ ' none' if model.gain is none }}" data-label="gain" data-value="{{ model.gain if model.gain is not none }}">{{ model.gain|signed }}</td>{% endif %}
{% if view.tested %}<td role="cell" class="num{{ ' none' if model.p_member is none }}" data-label="p" data-value="{{ model.p_member if model.p_member is not none }}">{{ model.p_member|p_value }}</td>{% endif %}
{% if view.tested_greedy %}<td role="cell" class="num{{ ' none' if model.p_greedy is none }}" data-label="p, greedy" data-value="{{ model.p_greedy if model.p_greedy is not none }}">{{ model.p_greedy|p_value }}</td>{% endif %}
{% if view.costed %}<td role="cell" class="num{{ ' none' if model.cost is none }}" data-label="cost" data-value="{{ model.cost if model.cost is not none }}">{{ model.cost|times }}</td>{% endif %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<ul class="legend"><li>{{ m.key("member", false) }} single member</li>{% if view.fused %}<li>{{ m.key("fusion", false) }} fusion</li>{% if view.baseline %}<li>{{ m.key("baseline", false) }} greedy ensemble selection, the baseline</li>{% endif %}{% endif %}</ul>
{% if view.tested %}<p class="soft small" style="margin-top:1rem"><b>p</b> is how often luck alone would show a difference as large if the model and the best single member were equally good (paired test on the same rows); <b>p, greedy</b> is the same against the baseline. <b>Gain</b> and <b>cost</b> are against the best single member.</p>{% endif %}
{% if metrics %}
<details class="fold"><summary>All {{ metrics.columns|length }} metrics on test</summary>
<div class="scroll" tabindex="0" role="group" aria-label="All metrics"><table class="sortable sticky">
<caption>Every metric on the test rows; the best of each column is bold. ↓ lower is better.</caption>
<thead><tr><th scope="col" data-first="ascending">model</th>{% for name, lower in metrics.columns %}<th scope="col" class="num" data-first="{{ 'ascending' if lower else 'descending' }}">{{ name }}{{ " ↓" if lower }}</th>{% endfor %}</tr></thead>
<tbody>{% for model, values in metrics.rows %}<tr><th scope="row"><bdi>{{ model.name|breakable }}</bdi></th>{% for value, best in values %}<td class="num{{ ' best' if best }}" data-value="{{ value if value is not none }}">{{ value|number }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
{% endif %}
"""

GAIN = """
<p class="lead">Up is better, left is cheaper. A fusion earns its place where its whisker stays above the line: gain over <bdi>{{ view.reference }}</bdi> on test, with its {{ story.coverage }} interval.</p>
<figure>{{ m.both(view.charts) }}</figure>
<ul class="legend"><li>{{ m.key("member", false) }} single member</li><li>{{ m.key("fusion", false) }} fusion</li><li>{{ m.key("baseline", false) }} baseline</li><li>marks at one place are set side by side</li></ul>
{% if view.weights %}
<h3>How fusions weigh the members</h3>
<div class="scroll" tabindex="0" role="group" aria-label="Weights"><table class="weights sticky">
<caption>A member at 0 need not run when the model is served.</caption>
<thead><tr><th scope="col">fusion</th>{% for name in view.weights.members %}<th scope="col" style="text-align:center"><bdi>{{ name|breakable }}</bdi></th>{% endfor %}</tr></thead>
<tbody>{% for model, cells in view.weights.rows %}<tr><th scope="row"><bdi>{{ model.name|breakable }}</bdi></th>{% for value, shade in cells %}<td><span class="b{{ shade }}">{{ value|number(2) }}</span></td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
"""

LEARNING = """
<p class="lead">Above, the training loss; below, validation {{ view.metric }}{{ " on one scale for all, the other members in grey" if view.cards|length > 1 }}. The ring marks the checkpoint that was kept.
{%- if view.rising %} <b>{{ view.rising }}</b> {{ "were" if view.many else "was" }} still at {{ "their" if view.many else "its" }} best in the last evaluation: more epochs may help.{% endif %}</p>
<div class="cards">
{% for card in view.cards %}<figure class="card" style="margin:0"><h3><bdi>{{ card.name|breakable }}</bdi> <span>{{ card.detail }}</span></h3>{{ card.chart }}</figure>
{% endfor %}</div>
"""
