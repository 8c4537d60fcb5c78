"""How good a generated text is: BLEU, chrF, ROUGE and METEOR, each by its reference implementation.

What is written here only sums. BLEU and chrF of many texts are made of counts that add up text by text, so they are
had for any choice of texts, and for any resample, from the sums: exactly what sacrebleu says of the corpus. ROUGE and
METEOR of many texts are means.

BLEU: Papineni et al. (2002), https://aclanthology.org/P02-1040, as Post (2018), https://aclanthology.org/W18-6319,
computes it; chrF: Popovic (2015), https://aclanthology.org/W15-3049 (both sacrebleu, from 0 to 100). ROUGE: Lin (2004),
https://aclanthology.org/W04-1013 (rouge-score, F with Porter's stems, from 0 to 1; it sees Latin letters and digits
alone, so for other scripts use chrF). METEOR: Banerjee & Lavie (2005), https://aclanthology.org/W05-0909 (nltk, from 0
to 1, English); where nltk's WordNet is not installed it matches equal words and equal stems, not synonyms, and is
called meteor_exact_stem for that reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

BleuTokenizer = Literal["13a", "intl", "zh", "char", "none"]
"""How sacrebleu cuts text into words for BLEU: 13a is its default, zh is for Chinese, intl for mixed scripts."""

Quality = Literal["chrf", "rougeL", "bleu"]
"""How alike two texts are, from 0 to 1."""

PAIRS_REMEMBERED = 1 << 16
"""Pairs of texts whose statistics are kept: every fusion and the evaluation ask for the same ones."""

ROWS_REMEMBERED = 1 << 12
"""Rows whose texts' likeness to each other is kept: every fold of a cross-fitted stack asks for the same ones."""

QUALITY, EXACT = 0, 1
BLEU = slice(2, 12)
CHRF = slice(12, 30)
MEANS = {"rouge1": 30, "rouge2": 31, "rougeL": 32, "meteor_exact_stem": 33, "meteor": 34}
NUM_STATISTICS = 35
"""Where the statistics of a pair stand: see `statistics`."""


@dataclass(frozen=True)
class Measuring:
    """How texts are measured.

    Attributes:
        quality: What says how good one text is.
        tokenizer: BLEU's.
        lowercase: Whether BLEU and chrF ignore case.
    """

    quality: Quality = "chrf"
    tokenizer: BleuTokenizer = "13a"
    lowercase: bool = False


# -- a text against a gold one -------------------------------------------------------------------------


def statistics(texts: Sequence[str], gold: Sequence[str], measuring: Measuring) -> np.ndarray:
    """Return what all metrics are made of, shape (num_texts, NUM_STATISTICS).

    Column 0 is each text's quality, column 1 whether it equals its gold text; then sacrebleu's counts for BLEU and
    chrF, and the values of ROUGE and METEOR (NaN for meteor where there is no WordNet).

    Args:
        texts: What was generated.
        gold: One a text.
        measuring: How they are measured.
    """
    import numpy as np

    if not len(texts):
        return np.empty((0, NUM_STATISTICS))
    return np.array([_statistics(text, wanted, measuring) for text, wanted in zip(texts, gold, strict=True)])


@lru_cache(maxsize=PAIRS_REMEMBERED)
def _statistics(text: str, gold: str, measuring: Measuring) -> tuple[float, ...]:
    bleu, chrf = _bleu(measuring.tokenizer, measuring.lowercase), _chrf(measuring.lowercase)
    bleu_counts = bleu._extract_corpus_statistics([text], [[gold]])[0]
    chrf_counts = chrf._extract_corpus_statistics([text], [[gold]])[0]
    rouge = {name: score.fmeasure for name, score in _rouge().score(gold, text).items()}
    quality = {
        "chrf": chrf._compute_f_score(chrf_counts) / 100,
        "rougeL": rouge["rougeL"],
        "bleu": _sentence_bleu(bleu_counts) / 100 if measuring.quality == "bleu" else 0.0,
    }
    meteor = _meteor(text, gold, measuring.tokenizer, wordnet=False), _meteor(text, gold, measuring.tokenizer)
    same = float(text.strip() == gold.strip())
    return (quality[measuring.quality], same, *bleu_counts, *chrf_counts, *rouge.values(), *meteor)


def corpus_bleu(sums: np.ndarray, measuring: Measuring) -> float:
    """Return sacrebleu's corpus BLEU of summed counts, from 0 to 100."""
    bleu = _bleu(measuring.tokenizer, measuring.lowercase)
    return float(bleu._compute_score_from_stats([int(value) for value in sums.round()]).score)


def corpus_chrf(sums: np.ndarray, measuring: Measuring) -> float:
    """Return sacrebleu's corpus chrF of summed counts, from 0 to 100."""
    return float(_chrf(measuring.lowercase)._compute_f_score([int(value) for value in sums.round()]))


def has_wordnet() -> bool:
    """Return whether nltk finds WordNet on this machine."""
    return _wordnet() is not None


# -- texts against each other --------------------------------------------------------------------------


def likeness(texts: Sequence[str], utility: Quality, *, lowercase: bool = False) -> np.ndarray:
    """Return how good each text would be, were each of them the gold one, from 0 to 1.

    Returns:
        Shape (num_texts, num_texts): row i, column j is text i measured against text j.
    """
    return _likeness(tuple(texts), utility, lowercase)


@lru_cache(maxsize=ROWS_REMEMBERED)
def _likeness(texts: tuple[str, ...], utility: Quality, lowercase: bool) -> np.ndarray:
    import numpy as np

    compare = {"chrf": _chrf_pairs, "bleu": _bleu_pairs, "rougeL": _rouge_pairs}[utility]
    found = np.array(compare(texts, lowercase)).reshape(len(texts), len(texts))
    found.flags.writeable = False  # it is kept
    return found


def expected_utility(texts: Sequence[str], shares: np.ndarray, utility: Quality) -> np.ndarray:
    """Return how good each text is, were the gold one drawn from them all by their shares, from 0 to 1.

    Kumar & Byrne (2004), https://aclanthology.org/N04-1022, equation 2, with 1 - utility for the loss.
    """
    import numpy as np

    total = shares.sum()
    if len(texts) == 1 or not total:
        return np.ones(len(texts))
    return likeness(texts, utility) @ (shares / total)


def _chrf_pairs(texts: Sequence[str], lowercase: bool) -> list[list[float]]:
    chrf = _chrf(lowercase)
    grams = [chrf._extract_reference_info([chrf._preprocess_segment(text)])["ref_ngrams"][0] for text in texts]

    def score(one: Any, other: Any) -> float:
        counts = [n for h, r in zip(one, other, strict=True) for n in chrf._get_match_statistics(h, r)]
        return chrf._compute_f_score(counts) / 100

    return [[score(one, other) for other in grams] for one in grams]


def _bleu_pairs(texts: Sequence[str], lowercase: bool) -> list[list[float]]:
    bleu = _bleu("13a", lowercase)
    words = [bleu._preprocess_segment(text) for text in texts]
    known = [bleu._extract_reference_info([text]) for text in words]
    return [[_sentence_bleu(bleu._compute_segment_statistics(w, k)) / 100 for k in known] for w in words]


def _rouge_pairs(texts: Sequence[str], lowercase: bool) -> list[list[float]]:
    scorer = _rouge(("rougeL",))
    return [[scorer.score(other, text)["rougeL"].fmeasure for other in texts] for text in texts]


# -- the libraries -------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _bleu(tokenizer: str, lowercase: bool) -> Any:
    from sacrebleu.metrics import bleu

    return bleu.BLEU(tokenize=tokenizer, lowercase=lowercase, force=True)


@lru_cache(maxsize=2)
def _chrf(lowercase: bool) -> Any:
    from sacrebleu.metrics import chrf

    return chrf.CHRF(lowercase=lowercase)


def _sentence_bleu(counts: Sequence[int]) -> float:
    """Return BLEU of one sentence: only the orders that it has, as sacrebleu's effective_order."""
    from sacrebleu.metrics import bleu

    hyp, ref, *rest = counts
    return float(
        bleu.BLEU.compute_bleu(
            rest[:4], rest[4:], hyp, ref, smooth_method="exp", effective_order=True
        ).score  # as 2.6 has it
    )


@lru_cache(maxsize=4)
def _rouge(kinds: tuple[str, ...] = ("rouge1", "rouge2", "rougeL")) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    plain = DefaultTokenizer(use_stemmer=True)

    class Remembering:
        """A tokenizer that is asked for the same text many times over."""

        tokenize = staticmethod(lru_cache(maxsize=PAIRS_REMEMBERED)(plain.tokenize))

    return RougeScorer(list(kinds), tokenizer=Remembering())


def _meteor(text: str, gold: str, tokenizer: str, *, wordnet: bool = True) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    known = _wordnet() if wordnet else NoSynonyms()
    if known is None:
        return float("nan")
    words = _bleu(tokenizer, False)._preprocess_segment
    one, other = words(text).split(), words(gold).split()
    return float(single_meteor_score(other, one, stemmer=_stemmer(), wordnet=known)) if one and other else 0.0


class NoSynonyms:
    """What stands in for WordNet where METEOR is to match words and stems alone."""

    @staticmethod
    def synsets(word: str) -> tuple[()]:
        """Return no sets of synonyms."""
        return ()


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    class Remembering(PorterStemmer):
        """Porter's stemmer, which meets the same words again and again."""

        stem = lru_cache(maxsize=PAIRS_REMEMBERED)(PorterStemmer.stem)

    return Remembering()


@lru_cache(maxsize=1)
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet
