"""How the official SQuAD scorers compare answers.

Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
https://arxiv.org/abs/1606.05250, section 6.1 (version 1.1); Rajpurkar et al. (2018), "Know What You Don't Know",
https://arxiv.org/abs/1806.03822 (version 2.0); the scripts: https://rajpurkar.github.io/SQuAD-explorer/.
The two differ where an answer is empty once it is normalised: 1.1 gives such a pair no F1, 2.0 gives 1 where both are.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return an answer in lower case, without ASCII punctuation, English articles and superfluous white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def golds(texts: Iterable[str], *, no_answer: bool) -> list[str]:
    """Return gold answers normalised; in version 2.0 those that are empty then count only where no other is."""
    found = [normalised(text) for text in texts]
    return ([text for text in found if text] or [""]) if no_answer else found


def compared(prediction: str, gold: Iterable[str], *, no_answer: bool) -> tuple[float, float]:
    """Return F1 and exact match of an answer, each the best over the gold ones; all are normalised already."""
    pairs = [(_f1(prediction, one, no_answer=no_answer), float(prediction == one)) for one in gold]
    return max((f1 for f1, _ in pairs), default=0.0), max((exact for _, exact in pairs), default=0.0)


def _f1(prediction: str, gold: str, *, no_answer: bool) -> float:
    """Return the harmonic mean of precision and recall of an answer's words, as a bag."""
    said, wanted = prediction.split(), gold.split()
    if no_answer and not (said and wanted):
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
