# ruff: noqa: E501 - lines of markup are as long as what they hold
"""Template of the section on the base model."""

from __future__ import annotations

BASE_MODEL = """
<p class="lead"><bdi>{{ view.chosen|breakable }}</bdi> was chosen of {{ view.rows|length|counted("candidate") }}
{%- if view.rounds %} by short runs on training rows, compared on validation: {% for round in view.rounds %}{{ round.candidates|count }} read {{ round["rows"]|counted("row") }}{{ " each, then " if not loop.last }}{% endfor %}{% endif %}.
{%- if view.measure %} {{ view.measure }} {% if view.measure == "LogME" %}says, before any training, how well the model's frozen features explain the labels{% elif view.measure == "linear probe" %}is what linear models reach on the model's frozen features, cross-validated{% else %}is what the model loses on the answers before any training{% endif %}.{% endif %} The test rows had no part in it.</p>
<div class="scroll" tabindex="0" role="group" aria-label="Candidates"><table class="sortable sticky">
<caption class="hidden">Candidates for the base model</caption>
<thead><tr><th scope="col" data-first="ascending">candidate</th><th scope="col" data-first="ascending">family</th><th scope="col" class="num" data-first="ascending">parameters</th>{% if view.measure %}<th scope="col" class="num" data-first="{{ 'ascending' if view.measure_lower else 'descending' }}">{{ view.measure }}{{ " ↓" if view.measure_lower }}</th>{% endif %}{% for _ in view.rounds %}<th scope="col" class="num" data-first="{{ 'ascending' if view.metric_lower else 'descending' }}">{{ view.metric }}{{ " ↓" if view.metric_lower }}, round {{ loop.index }}</th>{% endfor %}<th scope="col">why</th></tr></thead>
<tbody>{% for row in view.rows %}<tr><th scope="row"><bdi>{{ row.name|breakable }}</bdi>{% if row.is_chosen %} <span class="tag win">chosen</span>{% endif %}</th><td>{{ row.family }}</td><td class="num" data-value="{{ row.size if row.size is not none }}">{{ row.size|large }}</td>{% if view.measure %}<td class="num{{ ' best' if row.score[1] }}" data-value="{{ row.score[0] if row.score[0] is not none }}">{{ row.score[0]|number }}</td>{% endif %}{% for value, best in row.rounds %}<td class="num{{ ' best' if best }}" data-value="{{ value if value is not none }}">{{ value|number }}</td>{% endfor %}<td>{{ row.reason }}</td></tr>
{% endfor %}</tbody></table></div>
{% for name, reason in view.left_out %}<p class="soft small" style="margin-top:1rem"><b><bdi>{{ name|breakable }}</bdi></b>: {{ reason }}.</p>
{% endfor %}
"""
