# ruff: noqa: E501 - lines of markup are as long as what they hold
"""Templates of the sections on the worst errors and on slices."""

from __future__ import annotations

ERRORS = """
<p class="lead">The test rows on which <bdi>{{ view.name }}</bdi> is {{ view.worst }}{{ ", and what each member said" if view.members }}{{ " (✓ less than half as far off)" if view.value and view.members }}. Often it is the gold {{ "text" if view.worst.endswith("text") else "label" if view.beside else "answer" }} that deserves the second look.
{%- if view.explained %} In the first of them, words are coloured by what they add to the score of the answer that was given: blue ones speak for it, orange ones against it.{% endif %}</p>
<div class="scroll" tabindex="0" role="group" aria-label="Worst errors"><table class="errors" data-fold="15">
<caption class="hidden">{{ view.rows|length }} worst errors on test</caption>
<thead><tr><th scope="col">{{ view.texts|join(" / ") }}</th>{% if view.beside %}<th scope="col">gold</th><th scope="col">predicted</th>{% endif %}{% if view.members %}<th scope="col">members</th>{% endif %}</tr></thead>
<tbody>{% for row in view.rows %}<tr>
<td class="text"{% if row.id is not none %} title="row {{ row.id }}"{% endif %}>{% for block in row.blocks %}<span class="wording{{ ' ' ~ block.kind if block.kind }}">{% if block.name %}<b>{{ block.name }}</b>{% endif %}{% if block.whole %}<details><summary><span class="head" dir="auto">{{ block.head }}</span></summary><div dir="auto">{{ block.whole }}</div></details>{% else %}<span dir="auto">{{ block.head }}</span>{% endif %}</span>{% endfor %}{% if not view.beside and row.confidence is not none %}<small class="soft">{{ row.confidence|percent }} sure</small>{% endif %}</td>
{% if view.beside %}
<td data-label="gold"><bdi>{{ row.gold|breakable }}</bdi></td>
<td data-label="predicted"><span class="verdict"><bdi class="wrong">{{ row.predicted|breakable }}</bdi>{% if row.confidence is not none %}<small class="soft">{{ row.confidence|percent }} sure</small>{% endif %}{% if row.off is not none %}<small class="soft">{{ row.off|signed(2) }}</small>{% endif %}</span></td>
{% endif %}
{% if view.members %}<td class="said" data-label="members"><ul class="votes">{% for name, given, right in row.members %}<li>{% if view.marked %}<span class="{{ 'right' if right else 'wrong' }}" aria-label="{{ ('near' if view.value else 'right') if right else ('far off' if view.value else 'wrong') }}">{{ "✓" if right else "✗" }}</span>{% else %}<span></span>{% endif %}<span><span class="m"><bdi>{{ name|breakable }}</bdi></span> <bdi>{{ given|breakable }}</bdi></span></li>{% endfor %}</ul></td>{% endif %}
</tr>
{% endfor %}</tbody></table></div>
"""

SLICES = """
<p class="lead">{% if view.behind %}<bdi>{{ view.name }}</bdi> falls behind on {% for one in view.behind %}<b>{{ one.column }}: <bdi>{{ one.value }}</bdi></b> ({{ one.metric|number }} against {{ one.rest|number }} elsewhere){{ ", " if not loop.last else "." }}{% endfor %}{% elif view.tested %}On no part of the test rows is <bdi>{{ view.name }}</bdi> worse than elsewhere by more than luck would have it.{% endif %} Dots are {{ view.metric }} on the slice's rows, whiskers their {{ view.coverage }} intervals, the dashed line all test rows; gaps are against all other rows, the ones beyond luck first.</p>
<div class="scroll" tabindex="0" role="group" aria-label="Slices"><table class="sortable slices" data-fold="20">
<caption class="hidden">{{ view.metric }} of {{ view.name }} on slices of the test rows</caption>
<thead><tr><th scope="col" data-first="ascending">slice</th><th scope="col" class="num" data-first="descending">rows</th><th scope="col" class="num" data-first="ascending">{{ view.metric }}</th><th scope="col" class="plot"><span class="hidden">with interval</span><span class="axis" aria-hidden="true">{% for at, label in view.ticks %}<span style="left:{{ at }}%">{{ label }}</span>{% endfor %}</span></th><th scope="col" class="num" data-first="ascending">gap</th><th scope="col" class="num" data-first="ascending"><abbr title="p-value by permutation, adjusted for the number of slices (Holm)">p</abbr></th></tr></thead>
<tbody>{% for row in view.rows %}<tr{% if row.small %} class="small-slice"{% endif %}><th scope="row"><span class="soft">{{ row.column }}</span> <bdi>{{ row.value|breakable }}</bdi>{% if row.is_named %} <span class="tag{{ ' lost' if row.gap < 0 }}">{{ "behind" if row.gap < 0 else "ahead" }}</span>{% endif %}</th><td class="num" data-value="{{ row.rows }}">{{ row.rows|count }}</td><td class="num" data-value="{{ row.metric }}">{{ row.metric|number }}</td>
<td class="plot"><span class="track" title="{{ row.metric|number }}{% if row.interval %} ({{ row.interval|interval }}){% endif %}"><i class="line" style="left:{{ view.line }}%"></i>{% if row.bounds %}<i class="bar" style="left:{{ row.bounds[0] }}%;width:{{ (row.bounds[1] - row.bounds[0])|round(2) }}%"></i>{% endif %}<svg class="key" style="left:{{ row.at }}%" viewBox="0 0 11 11" aria-hidden="true"><circle cx="5.5" cy="5.5" r="4.5" class="mark bin{{ ' over' if row.is_named and row.gap < 0 }}"/></svg></span></td>
<td class="num" data-value="{{ row.gap if row.gap is not none }}">{{ row.gap|signed }}</td><td class="num" data-value="{{ row.p_adjusted if row.p_adjusted is not none }}">{{ row.p_adjusted|p_value }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="soft small" style="margin-top:1rem">A slice of fewer than {{ view.few }} rows says little and is not tested. <b>p</b> is how often rows drawn at random would show a gap as wide, adjusted for how many slices were looked at.</p>
"""
