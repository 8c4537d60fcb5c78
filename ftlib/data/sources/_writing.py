"""Writing sample support requests: a customer with a manner of writing puts phrases together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from ftlib.data.sources import _phrases as phrases
from ftlib.data.sources._rare_phrases import RARE, SYNONYMS

T = TypeVar("T")
UNCLEAR_RATIO = 0.07
"""Requests whose wording fits several intents: what no model can know."""
ASIDE_RATIO, RESOLVED_RATIO = 0.35, 0.3
"""Requests with a sentence beside the one that matters: on the same matter, or on another that is settled."""
RARE_RATIO = 0.2
"""Requests in a wording that few others have."""
SYNONYM_RATIO = 0.35
"""Words replaced by another of the same meaning, where there is one."""

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_REPLACEABLE = re.compile(rf"\b({'|'.join(sorted(SYNONYMS, key=len, reverse=True))})\b")


@dataclass(frozen=True)
class Request:
    """A support request: its text, its intent, who wrote it."""

    text: str
    label: str
    customer: str


@dataclass(frozen=True)
class Manner:
    """How a customer writes: always alike, as people do.

    Attributes:
        name: Signs with it, or "".
        brief: Comes to the point: no greeting, no closing.
        lower: Never presses shift.
        angry: Lets it be known.
        typos: Expected slips in a hundred characters.
        curly: The keyboard makes curly apostrophes.
        footer: What the mail program adds, or "".
    """

    name: str
    brief: bool
    lower: bool
    angry: bool
    typos: float
    curly: bool
    footer: str


class Writer:
    """Writes requests as many different customers would, all from one seed.

    Args:
        seed: Equal seeds write equal requests.
        num_customers: How many different customers write; a few of them often.
    """

    def __init__(self, seed: int, num_customers: int) -> None:
        self.random = Random(seed)
        self.customers = [f"C{1000 + i}" for i in range(num_customers)]
        self.manners = [self._manner() for _ in self.customers]

    def write(self) -> Request:
        """Return the next request."""
        place = int(len(self.customers) * self.random.random() ** 1.6)  # a few write often
        manner = self.manners[place]
        label, core, aside = self._matter()
        return Request(self._compose(manner, core, aside), label, self.customers[place])

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[int(self.random.random() * len(values))]

    def chance(self, probability: float) -> bool:
        """Return true as often as `probability` says."""
        return self.random.random() < probability

    def _manner(self) -> Manner:
        return Manner(
            name=self.pick(phrases.SLOTS["name"]) if self.chance(0.55) else "",
            brief=self.chance(0.35),
            lower=self.chance(0.14),
            angry=self.chance(0.18),
            typos=self.pick((0.0, 0.0, 0.0, 0.4, 0.8, 1.6)),
            curly=self.chance(0.2),
            footer=self.pick(phrases.FOOTERS) if self.chance(0.08) else "",
        )

    def _matter(self) -> tuple[str, str, str]:
        """Return an intent, the sentence that says it, and perhaps one beside it."""
        if self.chance(UNCLEAR_RATIO):
            core, intents = self.pick(phrases.UNCLEAR)
            return self.pick(intents), core, ""
        label = self.pick(tuple(phrases.CORES))
        beside = self.random.random()
        aside = ""
        if beside < ASIDE_RATIO:
            aside = self.pick(phrases.ASIDES[label])
        elif beside < ASIDE_RATIO + RESOLVED_RATIO:
            aside = self.pick(phrases.RESOLVED[self.pick([other for other in phrases.RESOLVED if other != label])])
        return label, self.pick((RARE if self.chance(RARE_RATIO) else phrases.CORES)[label]), aside

    def _compose(self, manner: Manner, core: str, aside: str) -> str:
        opening = [] if manner.brief else [self._maybe(0.8, phrases.GREETINGS), self._maybe(0.15, phrases.SMALL_TALK)]
        around = [self._maybe(0.4, phrases.SITUATIONS), core, aside]
        if aside and self.chance(0.4):
            around = [aside, core]
        ending = [self._maybe(0.6, phrases.ANGRY)] if manner.angry else [self._maybe(0.3, phrases.PLEAS)]
        text = self._fill(" ".join(filter(None, [*opening, *around, *ending])))
        if not manner.brief and self.chance(0.75):
            signed = f"{self.pick(phrases.CLOSINGS)}\n{manner.name}".strip()
            text = f"{text}\n{signed}" if self.chance(0.7) else f"{text} {signed}"
        text = self._as_written(text, manner)
        return f"{text}\n\n{manner.footer}" if manner.footer else text

    def _maybe(self, probability: float, values: Sequence[str]) -> str:
        return self.pick(values) if self.chance(probability) else ""

    def _fill(self, template: str) -> str:
        """Choose among alternatives and fill the slots; the product stays the same within a request."""
        text = template
        while _ALTERNATIVES.search(text):
            text = _ALTERNATIVES.sub(lambda match: self.pick(match[1].split("|")), text)
        sort = next((sort for sort in ("gadget", "clothes") if f"{{{sort}}}" in text), "product")
        product = self.pick(phrases.SLOTS[sort])

        def value(match: re.Match[str]) -> str:
            if match[1] == "order":
                return f"{self.pick('ABKRX')}{100000 + int(self.random.random() * 900000)}"
            return product if match[1] in ("product", sort) else self.pick(phrases.SLOTS[match[1]])

        text = _SLOT.sub(value, text)
        text = _REPLACEABLE.sub(lambda match: self._in_other_words(match[1]), text)
        text = re.sub(r" +([.,?!])", r"\1", re.sub(r" {2,}", " ", text))
        return re.sub(r"\ba ((?:pair of )?[aeio])", r"an \1", text)

    def _in_other_words(self, word: str) -> str:
        return self.pick(SYNONYMS[word]) if self.chance(SYNONYM_RATIO) else word

    def _as_written(self, text: str, manner: Manner) -> str:
        if manner.lower:
            text = text.lower()
        elif manner.angry and self.chance(0.15):
            text = text.upper()
        if manner.angry and self.chance(0.4):
            text = text.replace("?", "??", 1).replace(".", "!", 1)
        if manner.curly:
            text = text.replace("'", "’")
        for _ in range(int(manner.typos * len(text) / 100 + self.random.random())):
            text = self._slip(text) if manner.typos else text
        return text

    def _slip(self, text: str) -> str:
        """Return the text with one typing slip: letters swapped, dropped, doubled, or the key beside."""
        at = 1 + int(self.random.random() * (len(text) - 2))
        if not (text[at].isalpha() and text[at - 1].isalpha()):
            return text
        swapped = text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]
        dropped = text[:at] + text[at + 1 :]
        doubled = text[:at] + text[at] + text[at:]
        return self.pick((swapped, dropped, doubled, text[:at] + self._beside(text[at]) + text[at + 1 :]))

    def _beside(self, letter: str) -> str:
        for row in KEYBOARD:
            at = row.find(letter)
            if at >= 0:
                return row[max(0, at - 1)] if at else row[1]
        return letter
