# ruff: noqa: E501 - lines of markup are as long as what they hold
"""Explanations as one HTML page that needs nothing else, in the report's colours, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ftlib.explaining.explain import Explanation
from ftlib.problems._reading import AS_READ
from ftlib.report import heat, words
from ftlib.report.sheet import sheet

BODY = """<h1>What each {{ thing }} adds</h1>
<p class="finding">Blue ones speak for the answer, orange ones against it; the stronger the colour, the more. {% if bars %}The bar reaches from the score of an empty input to that of the whole.{% else %}Beside the score of the whole stands that of an empty input.{% endif %}{% if whole %} They add up to the difference, within a hundredth.{% else %} By this method they need not add up to the difference.{% endif %}</p>
{% for row in rows %}
<article>
<h2><bdi>{{ row.explained }}</bdi> <span>{{ row.told }}</span></h2>
{% if row.share %}<div class="way" aria-hidden="true"><i style="left:{{ row.share[0] }}%;width:{{ row.share[1] }}%" class="{{ 'up' if row.up else 'down' }}"></i></div>{% endif %}
{% for name, text in row.texts %}<div class="reading">{% if name %}<b>{{ name }}</b>{% endif %}<p dir="auto">{{ text }}</p></div>
{% endfor %}
<p class="soft small">{{ row.top }}{% if not row.is_exact %} The model fuses its members otherwise than by their weighted mean, which is what is explained here.{% endif %}</p>
</article>
{% endfor %}
"""

OWN = """
.explained{max-width:54rem;margin:0 auto;padding:3.4rem 1.25rem}
article{border-top:1px solid var(--line);margin:2.4rem 0 0;padding:1.6rem 0 0}
article h2{font-size:1.125rem}
article h2 span{font-weight:400;color:var(--soft);font-size:.875rem;margin-left:.4rem}
.reading b{font-weight:400;font-size:.75rem;color:var(--soft);display:block}
.reading p{font-size:1.0625rem;line-height:2;max-width:none;margin:.3rem 0 .6rem;white-space:pre-wrap}
.way{position:relative;height:6px;margin:.7rem 0 .9rem;background:var(--sunken);border-radius:3px}
.way i{position:absolute;top:0;bottom:0;min-width:2px;border-radius:3px;background:var(--accent)}
.way i.down{background:var(--warn)}
"""

MOST_NAMED = 4


def page(model: str, found: Sequence[Explanation]) -> str:
    """Return the page.

    Args:
        model: What the model is called.
        found: In the order to be shown.
    """
    whole = all(e.method == "integrated_gradients" for e in found)
    contents = {e.content for e in found}
    return sheet(
        BODY,
        name=model,
        subject="explanations",
        kind="explained",
        eyebrow=found[0].method.replace("_", " ") if found else "",
        own=OWN,
        thing="word" if contents <= {"words"} else "patch" if contents == {"the image"} else "word and patch",
        bars=any(e.scale == "probability" for e in found),
        whole=whole,
        rows=[_row(e) for e in found],
    )


def _row(e: Explanation) -> dict[str, Any]:
    is_share = e.scale == "probability"
    return {
        "explained": words.number(e.score, 2) if e.scale == "value" else e.explained,
        "told": told(e),
        "share": tuple(round(part * 100, 2) for part in (min(e.baseline, e.score), abs(e.score - e.baseline)))
        if is_share
        else None,
        "up": e.score >= e.baseline,
        "texts": [(name if named(e.texts) else "", coloured(e, name)) for name in e.texts],
        "top": top(e),
        "is_exact": e.is_exact,
    }


def named(texts: Mapping[str, str]) -> bool:
    """Return whether texts are to be told apart, or from those that were given."""
    return len(texts) > 1 or next(iter(texts)) == AS_READ


def told(e: Explanation) -> str:
    """Return the score, the one of an empty input, and the answer, where that is something else."""
    score, baseline = (words.number(value) for value in (e.score, e.baseline))
    kind = "log-probability " if e.scale == "log_probability" else ""
    return f"{kind}{score}; without {e.content} {baseline}" + (f", the answer is {e.instead}" if e.instead else "")


def top(e: Explanation, most: int = MOST_NAMED) -> str:
    """Return the strongest words for the answer and against it."""
    ranked = sorted(e.words, key=lambda word: -abs(word.attribution))
    parts = []
    for head, sign in (("For it", 1), ("against it", -1)):
        named = [f"{w.text} {words.signed(w.attribution)}" for w in ranked if w.attribution * sign > 0][:most]
        parts += [f"{head}: {', '.join(named)}"] if named else []
    return words.sentence("; ".join(parts)) + "." if parts else "No word adds anything."


def coloured(e: Explanation, column: str) -> Markup:
    """Return one of the row's texts with its words coloured."""
    most = heat.strongest(word.attribution for word in e.words)
    weighed = [(word.start, word.end, word.attribution) for word in e.words if word.column == column]
    return heat.heated(e.texts[column], weighed, most)
