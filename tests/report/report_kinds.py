"""Made-up stories of answers that are more than a label: tags, spans, texts, choices, likelihoods; and of images."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pyarrow as pa
from report_simulation import MEMBERS, TEXTS

from ftlib.report import Story

TAGS = ("O", "B-person", "I-person", "B-city", "I-city", "B-product", "I-product")
WORDS = ["Anna", "Lee", "flew", "from", "New", "York", "with", "her", "<b>iPhone</b>", "15", "&", "was", "happy", "."]
GOLD = ["B-person", "I-person", "O", "O", "B-city", "I-city", "O", "O", "B-product", "I-product", "O", "O", "O", "O"]
SAID = ["B-person", "I-person", "O", "O", "B-city", "O", "O", "O", "O", "B-product", "O", "O", "O", "O"]
CONTEXT = (
    "The tower was built from 1887 to 1889 by the company of Gustave Eiffel, whose engineers had drawn it up. "
    "Criticised by some of France's leading artists at first, it has become an icon. "
    * 3
    + "In 2022 it was visited by 5,889,000 people, of whom three in four came from abroad."
)
LONG = "A council in the north has agreed to close two of its five libraries, in spite of a petition. " * 6


def _as(base: Story, kind: str, problem: str, metric: str, errors: pa.Table, **evaluation: Any) -> Story:
    """Return a story of one label a row retold as one of another kind."""
    told = copy.deepcopy(base.evaluation)
    lower = metric in ("perplexity", "risk")
    for entry in (*told["members"], *told["fusions"]):
        entry["per_label"] = {}
        for split, values in entry["metrics"].items():
            good = values["accuracy"]
            entry["metrics"][split] = {metric: 20 - 10 * good if lower else good, "accuracy": good}
        if lower:
            entry["interval"] = [20 - 10 * end for end in entry["interval"][::-1]]
    told |= {"target": kind, "problem": problem, "metric": metric, "labels": [], "higher_is_better": not lower}
    told["best"] = {**told["best"], "metric": metric}
    told.pop("confusion", None)
    told.pop("reliability", None)
    told |= evaluation
    splits = {**base.splits, "labels": {}}
    histories = {
        name: [{k.replace("validation_accuracy", f"validation_{metric}"): v for k, v in row.items()} for row in rows]
        for name, rows in base.histories.items()
    }
    return replace(
        base, experiment=problem, evaluation=told, errors=errors, explanations=[], splits=splits, histories=histories
    )


def _errors(number: int, columns: dict[str, Any], gold: Any, predicted: Any, said: Any, confidence: Any) -> pa.Table:
    kind = pa.list_(pa.string()) if isinstance(gold, list) else pa.string()
    right = {"full": True}
    return pa.table(
        {
            "row_id": list(range(number)),
            **{name: [value] * number for name, value in columns.items()},
            "gold": pa.array([gold] * number, kind),
            "predicted": pa.array([predicted] * number, kind),
            "confidence": pa.array([confidence] * number, pa.float64()),
            **{f"member:{name}": pa.array([gold if name in right else said] * number, kind) for name in MEMBERS},
            **{f"right:{name}": [name in right] * number for name in MEMBERS},
        }
    )


def tags(base: Story) -> Story:
    """Return a story of entities."""
    errors = _errors(5, {"tokens": WORDS}, GOLD, SAID, ["O"] * len(WORDS), 0.61)
    types = ("person", "city", "product")
    figures = {t: {"precision": 0.8, "recall": 0.7 - i / 10, "f1": 0.75 - i / 10, "support": 90 - 20 * i}
               for i, t in enumerate(types)}  # fmt: skip
    size = len(TAGS)
    matrix = [[900 if i == j == 0 else 60 if i == j else (i * 3 + j) % 5 for j in range(size)] for i in range(size)]
    bins = [{"confidence": 0.55, "accuracy": 0.5, "count": 30}, {"confidence": 0.95, "accuracy": 0.9, "count": 900}]
    best = base.evaluation["best"]["name"]
    story = _as(base, "tags", "token_classification", "f1", errors, labels=list(TAGS),
                confusion={best: matrix}, reliability={best: bins})  # fmt: skip
    for entry in (*story.evaluation["members"], *story.evaluation["fusions"]):
        entry["per_label"] = figures
    counts = {split: {tag: n * (9 if tag == "O" else 1) for tag in TAGS} for split, n in story.splits["rows"].items()}
    return replace(story, splits={**story.splits, "labels": counts})


def plain_tags(base: Story) -> Story:
    """Return a story of parts of speech, of a long row."""
    gold = ["DET", "NOUN", "VERB", "ADP"] * 30
    said = ["DET", "NOUN", "NOUN", "ADP", *gold[4:]]
    errors = _errors(3, {"tokens": ["the", "cat", "sat", "on"] * 30}, gold, said, said, 0.4)
    return _as(base, "tags", "token_classification", "accuracy", errors, labels=["ADP", "DET", "NOUN", "VERB"])


def span(base: Story) -> Story:
    """Return a story of answers in a text."""
    columns = {"question": "How many people visited it in 2022?", "context": CONTEXT}
    errors = _errors(4, columns, "5,889,000 | 5,889,000 people", "three in four", "1889", 0.83)
    bins = [{"confidence": 0.6, "accuracy": 0.7, "count": 200}, {"confidence": 0.9, "accuracy": 0.8, "count": 700}]
    reliability = {m["name"]: bins for m in base.evaluation["members"]}
    return _as(base, "span", "question_answering", "exact_match", errors, reliability=reliability)


def texts(base: Story) -> Story:
    """Return a story of generated texts."""
    errors = _errors(4, {"document": LONG * 4}, "Council closes two libraries.", f"{LONG}<i>", "", None)
    return _as(base, "texts", "summarization", "rougeL", errors)


def dialogue(base: Story) -> Story:
    """Return a story of chats, whose input is a list of messages."""
    messages = [{"role": "user", "content": "Where is my <parcel>?"}, {"role": "assistant", "content": "On its way."}]
    errors = _errors(2, {"messages": messages}, "It comes on Friday.", "I do not know.", "On Friday.", None)
    return _as(base, "texts", "dialogue", "chrf", errors)


def choice(base: Story) -> Story:
    """Return a story of choices."""
    columns = {"question": TEXTS[0], "choices": ["It rains.", "He falls.", "She sings."]}
    errors = _errors(4, columns, "He falls.", "It rains.", "She sings.", 0.7)
    return _as(base, "choice", "multiple_choice", "accuracy", errors)


def likelihood(base: Story) -> Story:
    """Return a story of a language model."""
    errors = _errors(3, {"text": LONG}, LONG, "perplexity 212.20", "perplexity 230.00", None)
    return _as(base, "likelihood", "causal_language_modeling", "perplexity", errors)


def image(base: Story) -> Story:
    """Return a story of images."""
    errors = _errors(3, {"image": b"\x89PNG\xff\x00" * 900, "text": ""}, "cat", "dog", "fox", 0.9)
    return _as(base, "single_label", "image_text_classification", "accuracy", errors, labels=["cat", "dog", "fox"])


def explained(base: Story) -> Story:
    """Return a story of one label a row with the words that some errors rest on, and with slices."""
    assert base.errors is not None
    rows = base.errors.slice(0, 4).to_pylist()
    explanations = []
    for row in rows:
        parts, at = [], 0
        for i, word in enumerate(row["text"].split(" ")):
            parts.append(["text", at, at + len(word), round((-1) ** i * 0.3 / (1 + i), 6)])
            at += len(word) + 1
        told = {"explained": row["predicted"], "score": 0.91, "baseline": 0.12, "texts": {"text": row["text"]}}
        explanations.append({"row_id": row["row_id"], "words": parts, **told})
    made = [
        _slice("channel", "phone", 140, 0.61, -0.24, 0.004),
        _slice("length", "12 to 60 characters", 340, 0.88, 0.07, 0.03),
        _slice("length", "61 to 200 characters", 360, 0.85, 0.01, 1.0),
        _slice("channel", "<b>mail</b>", 9, 0.55, -0.3, None),
    ]
    return replace(base, explanations=explanations, evaluation={**base.evaluation, "slices": made})


def _slice(column: str, value: str, rows: int, metric: float, gap: float, p: float | None) -> dict[str, Any]:
    return {
        "column": column, "value": value, "rows": rows, "metric": metric, "interval": [metric - 0.05, metric + 0.04],
        "rest": metric - gap, "gap": gap, "p_value": p, "p_adjusted": p, "is_named": p is not None and p < 0.05,
    }  # fmt: skip


KINDS = {
    "tags": tags, "plain_tags": plain_tags, "span": span, "texts": texts, "dialogue": dialogue, "choice": choice,
    "likelihood": likelihood, "image": image, "explained": explained,
}  # fmt: skip
