"""Numbers and findings in words that a person understands."""

from __future__ import annotations

import math
from collections.abc import Sequence

NAMES = {
    "f1": "F1",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "precision_micro": "micro precision",
    "precision_macro": "macro precision",
    "recall_micro": "micro recall",
    "recall_macro": "macro recall",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "roc_auc_macro": "macro ROC AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "hamming_loss": "Hamming loss",
    "rmse": "RMSE",
    "mae": "MAE",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R²",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "meteor": "METEOR",
    "meteor_exact_stem": "METEOR (exact, stem)",
    "has_answer_f1": "F1 with answer",
    "no_answer_f1": "F1 without answer",
}
LOWER_IS_BETTER = frozenset(
    {"log_loss", "calibration_error", "hamming_loss", "rmse", "mae", "perplexity", "risk", "loss"}
)
SPACE = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, so that no line ends between them."""

NONE = "–"
"""Shown where there is no number."""


def metric_name(metric: str) -> str:
    """Return a metric as a person writes it: "macro F1" for f1_macro."""
    return NAMES.get(metric, metric.replace("_", " "))


def sentence(words: str) -> str:
    """Return words with a capital first letter; names such as mBERT at its head stay as they are."""
    return words[:1].upper() + words[1:]


def number(value: float | None, decimals: int = 3) -> str:
    """Return a figure with its decimals, a true minus sign, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) >= 1000:
        return count(value)
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def signed(value: float | None, decimals: int = 3) -> str:
    """Return a difference with its sign: +0.012, −0.004, or ±0."""
    if value is None or not math.isfinite(value):
        return NONE
    text = number(value, decimals)
    if not float(text.replace("−", "-").replace(",", "")):
        return "±0"
    return text if text.startswith("−") else f"+{text}"


def interval(bounds: Sequence[float] | None, decimals: int = 3) -> str:
    """Return "0.898 to 0.925"."""
    return f"{number(bounds[0], decimals)} to {number(bounds[1], decimals)}" if bounds else NONE


def percent(share: float | None, decimals: int | None = None) -> str:
    """Return a share as a percentage; small ones keep a decimal, so that something is never shown as nothing."""
    if share is None or not math.isfinite(share):
        return NONE
    value = share * 100
    if 0 < value < (0.5 if decimals == 0 else 0.05):
        return f"<{'1' if decimals == 0 else '0.1'}{SPACE}%"
    if 99.95 <= value < 100:
        return f">99.9{SPACE}%"
    if decimals is None:
        decimals = 1 if value < 10 or 99 < value < 100 else 0
    return f"{value:.{decimals}f}".removesuffix(".0") + f"{SPACE}%"


def count(value: float) -> str:
    """Return a whole number with commas: 12,345."""
    return f"{round(value):,}".replace("-", "−")


def counted(value: float, noun: str, plural: str = "") -> str:
    """Return "1 row", "2 rows", "12,345 rows"."""
    return f"{count(value)}{SPACE}{noun if value == 1 else plural or noun + 's'}"


def times(ratio: float | None) -> str:
    """Return a ratio: 4×, 1.3×, 0.05×."""
    if ratio is None or not math.isfinite(ratio):
        return NONE
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def large(value: float | None) -> str:
    """Return a large number short: 22.7 M, 385 k."""
    if value is None:
        return NONE
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{SPACE}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return SPACE.join((str(whole // 60), "min", str(whole % 60), "s"))
    return SPACE.join((str(whole // 3600), "h", str(whole % 3600 // 60), "min"))


def listed(names: Sequence[str], most: int = 0) -> str:
    """Return "a", "a and b", "a, b and c", "a, b and 5 more"."""
    if most and len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def p_value(p: float | None) -> str:
    """Return a p-value: 0.032, or <0.001."""
    return "<0.001" if p is not None and p < 0.001 else number(p)


def p_phrase(p: float) -> str:
    """Return "p = 0.032" or "p < 0.001"."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def strength(p: float) -> str:
    """Return what a p-value is worth as evidence, in two words."""
    steps = ((0.001, "very strong evidence"), (0.01, "strong evidence"), (0.05, "good evidence"), (0.2, "a hint only"))
    return next((words for limit, words in steps if p < limit), "no evidence")


def chance(p: float) -> str:
    """Return how often luck alone would show such a difference, in natural frequencies.

    People read "1 in 50" more rightly than 0.02: Gigerenzer & Hoffrage (1995), "How to improve Bayesian
    reasoning without instruction", https://doi.org/10.1037/0033-295X.102.4.684.
    """
    if p < 0.001:
        return "less than once in 1,000 tries"
    if p < 0.095:
        return f"about once in {count(1 / p)} tries"
    tenths = round(p * 10)
    return "nearly every time" if tenths >= 10 else f"about {tenths} time{'s' if tenths > 1 else ''} in 10"


def evidence(p: float, *, better: bool) -> str:
    """Return the sentence that says what a paired test found."""
    verdict = {
        "no evidence": "so the two cannot be told apart on these rows",
        "a hint only": "so this is a hint, not proof",
    }.get(strength(p), f"which is {strength(p)} that it is {'better' if better else 'worse'}")
    return f"If the two were equally good, luck alone would show a difference this large {chance(p)}, {verdict}."


def energy(kilowatt_hours: float) -> str:
    """Return an energy: 3.1 Wh, 1.2 kWh."""
    return f"{kilowatt_hours:.2g}{SPACE}kWh" if kilowatt_hours >= 1 else f"{kilowatt_hours * 1000:.2g}{SPACE}Wh"


def mass(kilograms: float) -> str:
    """Return a mass: 1.3 g, 2.4 kg."""
    return f"{kilograms:.2g}{SPACE}kg" if kilograms >= 1 else f"{kilograms * 1000:.2g}{SPACE}g"
