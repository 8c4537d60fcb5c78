# ruff: noqa: E501 - lines of markup are as long as what they hold
"""Template of the section on several tasks."""

from __future__ import annotations

TASKS = """
<p class="lead">Every stage on the test rows of every task that its checkpoint answers; the best of each task is bold.</p>
<div class="scroll" tabindex="0" role="group" aria-label="Stages and tasks"><table class="sortable sticky">
<caption class="hidden">Test scores, stage by task</caption>
<thead><tr><th scope="col" data-first="ascending">stage</th>{% for task in view.tasks %}<th scope="col" class="num" data-first="{{ 'descending' if task.higher_is_better else 'ascending' }}"><bdi>{{ task.name|breakable }}</bdi> <span class="soft">{{ task.metric }}{{ " ↓" if not task.higher_is_better }}</span></th>{% endfor %}</tr></thead>
<tbody>{% for stage, cells in view.rows %}<tr><th scope="row"><bdi>{{ stage|breakable }}</bdi></th>{% for cell, best in cells %}<td class="num{{ ' best' if best }}" data-value="{{ cell.value if cell }}"{% if cell and cell.interval %} title="{{ cell.interval|interval }}"{% endif %}>{% if cell %}{{ cell.value|number }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for line in view.lines %}
<h3>{% for stage in line.stages %}<bdi>{{ stage|breakable }}</bdi>{{ " → " if not loop.last }}{% endfor %}</h3>
<div class="scroll" tabindex="0" role="group" aria-label="What was kept"><table class="sticky">
<caption>After each stage, the score on what had been learned. <b>Kept</b> is the last stage against the one that learned the task, with its {{ view.coverage }} interval: below 0, something was lost. Backward transfer, the mean of these: {{ line.backward_transfer|signed }}; forgetting, from the best score there was: {{ line.forgetting|number }}{% if line.forward_transfer is not none %}; forward transfer, against learning a task alone: {{ line.forward_transfer|signed }}{% endif %}.</caption>
<thead><tr><th scope="col">after</th>{% for task in line.tasks %}<th scope="col" class="num"><bdi>{{ task|breakable }}</bdi></th>{% endfor %}</tr></thead>
<tbody>{% for step in line.steps %}<tr><th scope="row"><bdi>{{ step.stage|breakable }}</bdi> <span class="soft">learns <bdi>{{ step.learns|breakable }}</bdi></span></th>{% for value in step["values"] %}<td class="num">{{ value|number }}</td>{% endfor %}</tr>
{% endfor %}
<tr><th scope="row">kept</th>{% for task in line.tasks %}<td class="num">{% for one in line.kept if one.task == task %}<b>{{ one.gain|signed }}</b>{% if one.interval %}<br><span class="soft small">{{ one.interval|interval }}, p {{ one.p_value|p_value }}</span>{% endif %}{% endfor %}</td>{% endfor %}</tr>
</tbody></table></div>
{% endfor %}
"""
