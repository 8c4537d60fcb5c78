"""Made-up but coherent stories for every kind of target: figures follow from simulated scores, as in a real run.

``python tests/report/report_stories.py FOLDER`` writes a report for each of them, to be looked at.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from report_kinds import KINDS
from report_simulation import (
    MEMBERS,
    TEXTS,
    assembled,
    both_splits,
    compare,
    confusion_matrix,
    disagreement,
    entries,
    evaluation_of,
    fused_logits,
    neighbours,
    precision_recall_f1,
    reliability_bins,
    shares,
    simulated_logits,
    single_errors,
    single_metrics,
    single_per_label,
    softmax,
)

from ftlib.report import Story, render, with_run

SUPPORT = (
    "account closure",
    "billing question",
    "cancel order",
    "delivery delay",
    "login problem",
    "product defect",
    "refund",
    "technical help",
)
FACTS = {
    "run": "quickstart-2",
    "created": "2025-03-01 12:04",
    "seconds": 431.8,
    "flow_run_url": "http://127.0.0.1:4200/runs/flow-run/0b1c",
    "mlflow_run_url": "http://127.0.0.1:5000/#/experiments/1/runs/aaaa?workflowType=machine_learning",
    "steps": [
        {"name": "collect", "state": "cached", "seconds": 0.8},
        {"name": "clean", "state": "cached", "seconds": 1.9},
        {"name": "train-full", "state": "computed", "seconds": 133.2},
        {"name": "evaluate", "state": "computed", "seconds": 4.1},
    ],
    "members": {
        "full": {
            "train_seconds": 131.0,
            "rows_per_second": 412.3,
            "num_trainable_parameters": 22_713_728,
            "mlflow_run_id": "bbbb",
        },
        "prefix": {
            "train_seconds": 96.4,
            "rows_per_second": 655.0,
            "num_trainable_parameters": 291_000,
            "mlflow_run_id": "cccc",
        },
    },
    "energy_kwh": 0.0064,
    "co2_kg": 0.0024,
}


def single_label(
    labels: tuple[str, ...] = SUPPORT,
    *,
    members: dict[str, float] | None = None,
    fused: bool = True,
    rows: int = 818,
    seed: int = 1,
    experiment: str = "quickstart",
) -> Story:
    """Return a story of one label a row."""
    members = MEMBERS if members is None else members
    draw = np.random.default_rng(seed)
    gold = draw.choice(len(labels), rows, p=shares(len(labels), draw))
    taken_for = neighbours(len(labels), draw)
    hard = draw.random(rows)
    logits = {name: simulated_logits(gold, taken_for, skill, hard, draw) for name, skill in members.items()}
    models = {**logits, **(fused_logits(logits) if fused else {})}
    scores = {name: softmax(values) for name, values in models.items()}
    right = {name: (s.argmax(1) == gold).astype(float) for name, s in scores.items()}
    evaluation = evaluation_of(
        "text_classification", "single_label", "accuracy", list(labels), rows, scores, list(members)
    )
    for entry in entries(evaluation):
        entry["metrics"] = both_splits(single_metrics(scores[entry["name"]], gold), draw)
        entry["per_label"] = single_per_label(scores[entry["name"]].argmax(1), gold, labels)
    compare(evaluation, right, draw)
    shown = [evaluation["best"]["name"], *members]
    evaluation["confusion"] = {n: confusion_matrix(gold, scores[n].argmax(1), len(labels)) for n in shown}
    evaluation["reliability"] = {n: reliability_bins(scores[n].max(1), right[n]) for n in shown}
    if len(members) > 1:
        evaluation["disagreement"] = disagreement(
            {n: scores[n].argmax(1) for n in members}, {n: right[n] for n in members}
        )
    best = scores[evaluation["best"]["name"]]
    errors = single_errors(best, gold, {n: scores[n].argmax(1) for n in members}, labels)
    return assembled(experiment, evaluation, members, labels, rows, errors, draw)


def multi_label(num_labels: int = 28, *, rows: int = 1400, seed: int = 2) -> Story:
    """Return a story of any number of labels a row."""
    draw = np.random.default_rng(seed)
    labels = EMOTIONS[:num_labels]
    shares = np.sort(draw.dirichlet(np.full(num_labels, 0.6)))[::-1] * 1.3 + 0.006
    gold = (draw.random((rows, num_labels)) < shares).astype(float)
    shared = draw.normal(0, 1.0, gold.shape)
    logits = {
        name: gold * skill * 5.2 - 3.1 + shared + draw.normal(0, 1.75 - skill, gold.shape)
        for name, skill in MEMBERS.items()
    }
    scores = {name: 1 / (1 + np.exp(-values)) for name, values in {**logits, **fused_logits(logits)}.items()}
    decided = {name: s > 0.5 for name, s in scores.items()}
    evaluation = evaluation_of(
        "text_classification", "multi_label", "f1_micro", list(labels), rows, scores, list(MEMBERS)
    )
    for entry in entries(evaluation):
        made, figures = decided[entry["name"]], {}
        for i, label in enumerate(labels):
            figures[label] = precision_recall_f1(made[:, i], gold[:, i] > 0)
        found, given, true = (made & (gold > 0)).sum(), made.sum(), gold.sum()
        entry["per_label"] = figures
        micro = 2 * found / (given + true)
        values = {
            "f1_micro": micro,
            "f1_macro": np.mean([f["f1"] for f in figures.values()]),
            "accuracy": (made == gold).all(1).mean(),
        }
        values |= {
            "precision_micro": found / given,
            "recall_micro": found / true,
            "calibration_error": 0.021,
            "log_loss": 0.11,
        }
        entry["metrics"] = both_splits(values, draw)
    right = {n: (made == gold).all(1).astype(float) for n, made in decided.items()}
    compare(evaluation, right, draw)
    shown = [evaluation["best"]["name"], *MEMBERS]
    evaluation["confusion"] = {
        n: [confusion_matrix(gold[:, i].astype(int), decided[n][:, i].astype(int), 2) for i in range(num_labels)]
        for n in shown
    }
    evaluation["reliability"] = {n: reliability_bins(scores[n].ravel(), gold.ravel()) for n in shown}
    keys = {n: made @ (1 << np.arange(num_labels, dtype=object)) for n, made in decided.items() if n in MEMBERS}
    evaluation["disagreement"] = disagreement(keys, {n: right[n] for n in MEMBERS})
    named = {n: [[labels[i] for i in np.flatnonzero(row)] for row in made] for n, made in decided.items()}
    true_names = [[labels[i] for i in np.flatnonzero(row)] for row in gold]
    wrong = np.flatnonzero(right[evaluation["best"]["name"]] == 0)[:60]
    errors = pa.table(
        {
            "row_id": wrong,
            "text": [TEXTS[i % len(TEXTS)] for i in wrong],
            "gold": [true_names[i] for i in wrong],
            "predicted": [named[evaluation["best"]["name"]][i] for i in wrong],
            "confidence": np.linspace(0.99, 0.6, len(wrong)),
            **{f"member:{n}": [named[n][i] for i in wrong] for n in MEMBERS},
        }
    )
    return assembled("goemotions", evaluation, MEMBERS, labels, rows, errors, draw)


def value(*, rows: int = 700, metric: str = "spearman", seed: int = 3) -> Story:
    """Return a story of a number a row."""
    draw = np.random.default_rng(seed)
    gold = np.clip(np.round(draw.normal(2.7, 1.5, rows) * 5) / 5, 0, 5)
    members = {n: np.clip(gold + draw.normal(0.08, 1.3 - s, rows), -0.2, 5.2) for n, s in MEMBERS.items()}
    predicted = {**members, **fused_logits(members)}
    evaluation = evaluation_of("text_pair_regression", "value", metric, [], rows, predicted, list(members))
    evaluation["higher_is_better"] = metric not in ("rmse", "mae")
    for entry in entries(evaluation):
        off = predicted[entry["name"]] - gold
        figures = {"spearman": np.corrcoef(np.argsort(np.argsort(gold)), np.argsort(np.argsort(gold + off)))[0, 1]}
        figures |= {
            "pearson": np.corrcoef(gold, gold + off)[0, 1],
            "rmse": (off**2).mean() ** 0.5,
            "mae": abs(off).mean(),
        }
        entry["metrics"] = both_splits(figures, draw)
    compare(evaluation, {n: -abs(p - gold) for n, p in predicted.items()}, draw)
    best = evaluation["best"]["name"]
    evaluation["scatter"] = {n: np.stack([gold, predicted[n]], 1).round(4).tolist() for n in (best, *members)}
    worst = np.argsort(-abs(predicted[best] - gold))[:40]
    errors = pa.table(
        {
            "row_id": worst,
            "text": [TEXTS[i % len(TEXTS)] for i in worst],
            "text_pair": [TEXTS[(i + 3) % len(TEXTS)] for i in worst],
            "gold": gold[worst],
            "predicted": predicted[best][worst],
            "confidence": pa.nulls(len(worst), pa.float64()),
            **{f"member:{n}": p[worst] for n, p in members.items()},
        }
    )
    return assembled("stsb", evaluation, MEMBERS, (), rows, errors, draw)


EMOTION_WORDS = """
neutral admiration approval gratitude annoyance amusement curiosity love optimism disapproval joy realization anger
sadness confusion caring excitement surprise disgust desire fear remorse embarrassment disappointment relief
nervousness pride grief
"""
EMOTIONS = tuple(EMOTION_WORDS.split())
SENTIMENTS = ("negative", "positive")
ODD_LABELS = (
    "رد المبلغ المدفوع",
    "返品と返金についての問い合わせ",
    "a label with a very long name that somebody exported from a ticket system",
    "<b>&amp;",
)
ODD_MEMBERS = {
    "full": 0.9,
    "a_member_with_a_name_as_long_as_names_are_allowed_to_be_64_chars": 0.83,
    "عضو": 0.8,
    **{f"m{i}": 0.7 + i / 50 for i in range(4)},
}
INTENTS = tuple(f"intent {i:03d} of a long list" for i in range(150))

STORIES = {
    "single": single_label,
    "multi": multi_label,
    "value": value,
    "rmse": lambda: value(metric="rmse"),
    "one_member": lambda: single_label(SENTIMENTS, members={"full": 0.87}, fused=False, experiment="sst2"),
    "no_fusion": lambda: single_label(SENTIMENTS, members={"full": 0.9, "prompt": 0.6}, fused=False, experiment="sst2"),
    "labels28": lambda: single_label(EMOTIONS, rows=2600, experiment="emotions, one label"),
    "labels150": lambda: single_label(INTENTS, rows=4500, experiment="clinc"),
    "odd_names": lambda: single_label(ODD_LABELS, members=ODD_MEMBERS, experiment="odd_names"),
    "member_wins": lambda: member_wins(single_label()),
    **{name: lambda retold=retold: retold(single_label()) for name, retold in KINDS.items()},
}


def member_wins(story: Story) -> Story:
    """Return the story as if validation had preferred the best single member."""
    told = copy.deepcopy(story.evaluation)
    member = next(m for m in told["members"] if m["name"] == told["best_member"])
    told["best"] |= {"name": member["name"], "kind": "member"}
    return replace(story, evaluation=told)


def main(folder: Path) -> None:
    """Write a report of each story."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in STORIES.items():
        (folder / f"{name}.html").write_text(with_run(render(build()), FACTS), encoding="utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
