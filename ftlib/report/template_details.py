# ruff: noqa: E501 - lines of markup are as long as what they hold
"""Templates of the sections on how right the best model is, on the data, and on how it was made."""

from __future__ import annotations

CONFUSION = """
{% if view.kind == "matrix" %}
<p class="lead"><bdi>{{ view.name }}</bdi> is right on {{ view.right|count }} of {{ view.total|count }} {{ view.unit }}. Blue cells are right answers, orange ones mistakes: the stronger the colour, the larger the share of the gold label's rows. Mistakes have a scale of their own, up to the largest.</p>
<figure>{{ m.both(view.charts) }}{% if view.unnamed %}<figcaption class="soft small" style="margin-top:.6rem">Labels run in their given order from top and left; rest the pointer on a cell for its names and count.</figcaption>{% endif %}</figure>
{% if view.mistakes %}
<h3>Most frequent mistakes</h3>
<div class="scroll"><table>
<caption class="hidden">Most frequent mistakes</caption>
<thead><tr><th scope="col">gold</th><th scope="col">read as</th><th scope="col" class="num">{{ view.counted }}</th><th scope="col" class="num">of the gold label</th><th scope="col" style="width:30%"><span class="hidden">bar</span></th></tr></thead>
<tbody>{% for gold, predicted, number, share in view.mistakes %}<tr><th scope="row"><bdi>{{ gold|breakable }}</bdi></th><td><bdi>{{ predicted|breakable }}</bdi></td><td class="num">{{ number|count }}</td><td class="num">{{ share|percent }}</td><td><span class="meter" aria-hidden="true"><i style="width:{{ (share * 100)|round(2) }}%;background:var(--warn)"></i></span></td></tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% elif view.kind == "labels" %}
<p class="lead">For each label, the test rows that have it or were given it by <bdi>{{ view.name }}</bdi>: found, missed, and false alarms. The longer the blue, the better.</p>
<ul class="legend"><li><span class="swatch s-found"></span>found</li><li><span class="swatch s-missed"></span>missed</li><li><span class="swatch s-false"></span>false alarm</li></ul>
<div class="scroll"><table class="sortable" data-fold="30">
<caption class="hidden">Found, missed and false alarms per label</caption>
<thead><tr><th scope="col" data-first="ascending">label</th><th scope="col" style="width:46%"><span class="hidden">shares</span></th><th scope="col" class="num" data-first="descending">found</th><th scope="col" class="num" data-first="descending">missed</th><th scope="col" class="num" data-first="descending">false alarms</th></tr></thead>
<tbody>{% for row in view.rows %}<tr><th scope="row"><bdi>{{ row.label|breakable }}</bdi></th><td><span class="stack" aria-hidden="true">{% for (number, width), name in row.parts|zip(["found", "missed", "false"]) %}{% if number %}<i class="s-{{ name }}" style="width:{{ width }}%"></i>{% endif %}{% endfor %}</span></td>{% for number, _ in row.parts %}<td class="num" data-value="{{ number }}">{{ number|count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% else %}
<p class="lead">Each dot is a test row; on the dashed line, <bdi>{{ view.name }}</bdi> is exactly right. Half of the rows are off by less than {{ view.typical|number(2) }}; on average predictions are {{ view.bias|abs|number(2) }} too {{ "high" if view.bias > 0 else "low" }}.</p>
<div class="cards"><figure class="card" style="margin:0">{{ view.scatter }}</figure><figure class="card" style="margin:0">{{ view.residuals }}</figure></div>
{% endif %}
"""

PER_LABEL = """
<p class="lead">Weakest is <b><bdi>{{ view.weakest.label }}</bdi></b>, with F1 {{ view.weakest.f1|number }}{% if view.weakest.support is not none %} on {{ view.weakest.support|counted(view.unit) }}{% endif %}. Bars are F1 of <bdi>{{ view.name }}</bdi>
{%- if view.other %}; the upright mark is the best single member, <bdi>{{ view.other }}</bdi>{% endif %}.</p>
<div class="scroll" tabindex="0" role="group" aria-label="Per label"><table class="sortable" data-fold="30">
<caption class="hidden">Precision, recall and F1 per label on test</caption>
<thead><tr><th scope="col" data-first="ascending">{{ view.what }}</th><th scope="col" class="num" data-first="descending">{{ view.unit }}s</th><th scope="col" class="num" data-first="ascending">precision</th><th scope="col" class="num" data-first="ascending">recall</th><th scope="col" class="num" data-first="ascending">F1</th><th scope="col" style="width:36%"><span class="hidden">bar of F1</span></th></tr></thead>
<tbody>{% for row in view.rows %}<tr><th scope="row"><bdi>{{ row.label|breakable }}</bdi></th><td class="num" data-value="{{ row.support if row.support is not none }}">{{ row.support|number(0) }}</td><td class="num">{{ row.precision|number }}</td><td class="num">{{ row.recall|number }}</td><td class="num best">{{ row.f1|number }}</td><td{% if row.other is not none %} title="{{ view.other }}: {{ row.other|number }}"{% endif %}>{{ m.meter(row.f1 or 0, row.other) }}</td></tr>
{% endfor %}</tbody></table></div>
"""

RELIABILITY = """
<p class="lead">Does a model know when it is right? {{ view.unit }}On the dashed line, answers given with confidence 0.8 are right 80 % of the time. Below it (orange) a model is too sure, above it (blue) too modest; grey bars count the answers.
<bdi>{{ view.first }}</bdi> is on average {% if view.excess|abs < 0.005 %}as sure as it should be{% else %}{{ (view.excess|abs * 100)|number(1) }} points too {{ "sure" if view.excess > 0 else "modest" }}{% endif %}.</p>
<div class="cards third">
{% for card in view.cards %}<figure class="card" style="margin:0"><h3>{{ m.key(card.model.kind, card.model.chosen) }} <bdi>{{ card.model.name|breakable }}</bdi>{% if card.error is not none %} <span>calibration error {{ card.error|number }}</span>{% endif %}</h3>{{ card.chart }}</figure>
{% endfor %}</div>
"""

DISAGREEMENT = """
<p class="lead">Fusion lives on members that err on different rows.
{%- if view.all_agree is not none %} All {{ view.names|length }} agree on <b>{{ view.all_agree|percent }}</b> of the test rows{% if view.all_agree_and_right is not none and view.all_agree %}, and are then right on {{ (view.all_agree_and_right / view.all_agree)|percent }}{% endif %}.{% endif %}
{%- if view.some_right is not none %} At least one is right on <b>{{ view.some_right|percent }}</b>: no choice among them can do better.{% endif %}
{%- if view.target == "tags" %} Two rows count as tagged alike where every tag is the same.{% elif view.target in ("texts", "span") %} Two texts count as the same where they are so to the letter{{ ", case and punctuation aside" if view.target == "span" }}.{% elif view.target == "likelihood" %} Two models agree where they find the same tokens likeliest, at every place.{% elif view.target == "value" %} Two values count as the same where they are closer than half the gold values' standard deviation.{% elif view.target == "multi_label" %} Two sets of labels count as the same where they are wholly the same.{% endif %}</p>
{% if view.shares %}
<div class="stack tall" role="img" aria-label="{% for _, words, share in view.shares %}{{ words }} {{ share|percent }}{{ '; ' if not loop.last }}{% endfor %}">{% for class, words, share in view.shares %}<i class="s-{{ class }}" style="width:{{ (share * 100)|round(2) }}%" title="{{ words }}: {{ share|percent }}"></i>{% endfor %}</div>
<ul class="legend">{% for class, words, share in view.shares %}<li><span class="swatch s-{{ class }}"></span>{{ words }}, {{ share|percent }}</li>{% endfor %}</ul>
{% endif %}
<h3>How often two members differ</h3>
{% if not view.most[0] %}<p class="soft">No two of them differ on any test row.</p>{% elif view.pairs > 1 %}<p class="soft">Most: <bdi>{{ view.most[1] }}</bdi> and <bdi>{{ view.most[2] }}</bdi>, on {{ view.most[0]|percent }} of the rows. Least: <bdi>{{ view.least[1] }}</bdi> and <bdi>{{ view.least[2] }}</bdi>, on {{ view.least[0]|percent }}.</p>{% endif %}
<figure>{{ m.both(view.charts) }}</figure>
"""

FUNNEL = """
<p class="lead">{{ view.read|counted("row") }} were read; {{ view.used|count }} of them ({{ (view.used / view.read)|percent }}) are in the splits{% if view.rejected %}, and {{ view.rejected|count }} were rejected, each kept with its reason{% endif %}.
{%- if view.repaired %} Repaired along the way: {% for name, number in view.repaired %}{{ name }} in {{ number|counted("row") }}{{ ", " if not loop.last }}{% endfor %}.{% endif %}</p>
<table class="stairs">
<caption class="hidden">From rows read to rows in each split</caption>
<tbody>{% for step in view.steps %}<tr class="{{ step.kind }}"><th scope="row"><bdi>{{ step.name }}</bdi>{% if step.note %}<span class="note">{{ step.note }}</span>{% endif %}</th><td class="way"><span><i style="left:{{ step.left }}%;width:{{ step.width }}%"></i></span></td><td class="num">{{ "−" if step.kind == "lost" }}{{ step.number|count }}</td><td class="num part">{{ step.share|percent }}</td></tr>
{% endfor %}</tbody></table>
{% if view.labels %}{% set table = view.labels %}
<details class="fold"{% if table.rows|length <= 12 %} open{% endif %}><summary>Labels in each split</summary>
<div class="scroll" tabindex="0" role="group" aria-label="Labels in each split"><table class="sortable" data-fold="30">
<caption>Share of the split's {{ "words" if table.words else "rows" }}{{ ", which may have several labels" if table.multi }}.{% if table.rare %} Too rare to be in every split: {% for label, number in table.rare %}<bdi>{{ label|breakable }}</bdi> ({{ number|counted('row') }}){{ ', ' if not loop.last }}{% endfor %}.{% endif %}</caption>
<thead><tr><th scope="col" data-first="ascending">label</th>{% for split in table.splits %}<th scope="col" class="num" data-first="descending">{{ split }}</th><th scope="col"><span class="hidden">share in {{ split }}</span></th>{% endfor %}</tr></thead>
<tbody>{% for label, cells in table.rows %}<tr><th scope="row"><bdi>{{ label|breakable }}</bdi></th>{% for number, share in cells %}<td class="num" data-value="{{ number }}">{{ number|count }}</td><td title="{{ share|percent }}">{{ m.meter(share / table.most) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
{% endif %}
"""

ENCODING = """
{% set first = view.first %}
<p class="lead">{{ view.tokens|large }} tokens in all. {% if first.length.p50 is defined %}Half of the {{ first.split }} rows have at most {{ first.length.p50|count }}{% if first.length.p95 is defined %}, 95 % at most {{ first.length.p95|count }}{% endif %}. {% endif %}
{%- if first.truncated_rows %}{{ first.truncated_rows|counted("row") }} of them ({{ (first.truncated_rows / first.rows)|percent }}) {{ "was" if first.truncated_rows == 1 else "were" }} longer than the limit and cut.{% else %}No row was cut.{% endif %}</p>
{% if view.chart %}<figure>{{ m.both(view.chart) }}</figure>{% endif %}
<div class="scroll" tabindex="0" role="group" aria-label="Encoding"><table class="sticky">
<caption>Tokens a row: the line reaches to the longest row, the bar to the 95th percentile, the mark is the median.</caption>
<thead><tr><th scope="col">split</th><th scope="col" style="width:24%"><span class="hidden">lengths</span></th><th scope="col" class="num">median</th><th scope="col" class="num">mean</th><th scope="col" class="num">95 %</th><th scope="col" class="num">longest</th><th scope="col" class="num">rows cut</th><th scope="col" class="num">tokens cut</th><th scope="col" class="num">unknown</th></tr></thead>
<tbody>{% for row in view.rows %}<tr><th scope="row">{{ row.split }}</th><td><span class="lengths" aria-hidden="true"><i style="width:{{ row.at.max|default(0) }}%"></i><i class="most" style="width:{{ row.at.p95|default(0) }}%"></i><u style="left:{{ row.at.p50|default(0) }}%"></u></span></td><td class="num">{{ row.length.p50|number(0) }}</td><td class="num">{{ row.length.mean|number(1) }}</td><td class="num">{{ row.length.p95|number(0) }}</td><td class="num">{{ row.length.max|number(0) }}</td><td class="num">{{ row.truncated_rows|default(0)|count }}</td><td class="num">{{ row.truncated_tokens|default(0)|count }}</td><td class="num">{{ row.unknown_tokens|default(0)|count }}</td></tr>
{% endfor %}</tbody></table></div>
"""

MADE = """
<dl class="facts">{% for name, value in view.facts %}<div><dt>{{ name }}</dt><dd><bdi>{{ value }}</bdi></dd></div>{% endfor %}</dl>
<h3>Members</h3>
<div class="scroll" tabindex="0" role="group" aria-label="Members"><table class="sticky made">
<caption class="hidden">How each member was trained</caption>
<thead><tr><th scope="col">member</th><th scope="col">strategy</th><th scope="col">starts from</th><th scope="col" class="num">parameters</th><th scope="col" class="num">epochs</th><th scope="col" class="num">steps</th><th scope="col" class="num">best at</th></tr></thead>
<tbody>{% for member in view.members %}<tr><th scope="row"><bdi>{{ member.name|breakable }}</bdi></th><td>{{ member.strategy }}{% if member.parameters %}<br>{{ m.pairs(member.parameters) }}{% endif %}</td><td><bdi>{{ member.start }}</bdi></td><td class="num">{{ member.size|large }}</td><td class="num">{% if member.epochs %}{{ "%g"|format(member.epochs|round(2)) }}{% else %}–{% endif %}</td><td class="num">{{ member.steps|number(0) }}</td><td class="num">{{ member.best_step|number(0) }}</td></tr>
{% endfor %}</tbody></table></div>
{% if view.fusions %}
<h3>Fusions</h3>
<div class="scroll" tabindex="0" role="group" aria-label="Fusions"><table class="sticky made">
<caption class="hidden">How each fusion combines the members</caption>
<thead><tr><th scope="col">fusion</th><th scope="col">method</th><th scope="col">members used</th></tr></thead>
<tbody>{% for name, method, values, used in view.fusions %}<tr><th scope="row"><bdi>{{ name|breakable }}</bdi></th><td>{{ method }}{% if values %}<br>{{ m.pairs(values) }}{% endif %}</td><td>{% for member in used %}<bdi>{{ member }}</bdi>{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>
{% endif %}
"""

RUN = """
{%- import "macros" as m -%}
<section id="run" aria-labelledby="run-title"><h2 id="run-title">This run</h2>
<p>{% if name %}<b><bdi>{{ name|breakable }}</bdi></b>{{ ": " if sentence else "." }}{% endif %}{{ sentence }}
{%- for words, url in links %} <a href="{{ url }}" rel="noreferrer">{{ words }}</a>{{ " · " if not loop.last }}{% endfor %}</p>
<div class="runs">
{% if members %}<div class="scroll"><table><caption>Training</caption>
<thead><tr><th scope="col">member</th><th scope="col" class="num">trained</th><th scope="col" class="num">took</th><th scope="col" class="num">rows a second</th></tr></thead>
<tbody>{% for member in members %}<tr><th scope="row">{% if member.url %}<a href="{{ member.url }}" rel="noreferrer"><bdi>{{ member.name|breakable }}</bdi></a>{% else %}<bdi>{{ member.name|breakable }}</bdi>{% endif %}</th><td class="num">{{ member.trained|large }}</td><td class="num">{{ member.seconds|duration if member.seconds is number else "–" }}</td><td class="num">{{ member.speed|number(0) }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if steps %}<div class="scroll"><table><caption>Steps</caption>
<thead><tr><th scope="col">step</th><th scope="col">state</th><th scope="col" class="num">took</th></tr></thead>
<tbody>{% for step in steps %}<tr><th scope="row">{{ step.name }}</th><td>{{ step.state }}</td><td class="num">{{ step.seconds|duration if step.seconds is number else "–" }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
</div></section>
"""
