"""Made-up but coherent stories for every kind of target: figures follow from simulated scores, as in a real run.

``python tests/report/story_builder.py FOLDER`` writes a report for each of them, to be looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

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
MEMBERS = {"full": 0.9, "prefix": 0.83, "prompt": 0.74, "distilled": 0.87}
STRATEGIES = {
    "full": ({"name": "full"}, "base", 22_713_728, 10.6e6),
    "prefix": ({"name": "prefix", "num_virtual_tokens": 20, "prefix_projection": True}, "full", 23_001_000, 11.2e6),
    "prompt": ({"name": "prompt_tuning", "num_virtual_tokens": 16}, "base", 22_720_000, 12.4e6),
    "distilled": ({"name": "distillation", "teacher": "full", "temperature": 2.0, "blocks": [0, 2, 5]}, "base", 17.3e6, 5.3e6),
}
FUSIONS = {
    "averaging": {"name": "averaging"},
    "weighted": {"name": "weighted", "weights": "optimised"},
    "stacking": {"name": "stacking", "model": "logistic_regression", "C": 1.0},
    "voting": {"name": "voting", "kind": "soft"},
    "greedy": {"name": "greedy", "rounds": 50},
}
TEXTS = (
    "I was charged twice for the same order and nobody answers my mails, please help",
    "<b>where</b> is my parcel?? tracking says delivered but there is nothing here & the neighbours have nothing either",
    "Ich möchte mein Konto schließen — bitte löschen Sie alle Daten.",
    "لم أستلم طلبي حتى الآن وأريد استرداد المبلغ",
    "ログインできません。パスワードを変えても同じです。",
    "The screen flickers since the last update. " * 14,
    "can u cancel it pls 😡😡",
    "It arrived broken, so I want either my money back or a new one, whichever is quicker, as my daughter's birthday is on Friday.",
)
FACTS = {
    "run": "quickstart-2",
    "created": "2025-03-01 12:04",
    "seconds": 431.8,
    "flow_run_url": "http://127.0.0.1:4200/runs/flow-run/0b1c",
    "mlflow_run_url": "http://127.0.0.1:5000/#/experiments/1/runs/aaaa",
    "steps": [
        {"name": "collect", "state": "cached", "seconds": 0.8},
        {"name": "clean", "state": "cached", "seconds": 1.9},
        {"name": "train-full", "state": "computed", "seconds": 133.2},
        {"name": "evaluate", "state": "computed", "seconds": 4.1},
    ],
    "members": {
        "full": {"train_seconds": 131.0, "rows_per_second": 412.3, "num_trainable_parameters": 22_713_728, "mlflow_run_id": "bbbb"},
        "prefix": {"train_seconds": 96.4, "rows_per_second": 655.0, "num_trainable_parameters": 291_000, "mlflow_run_id": "cccc"},
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
    gold = draw.choice(len(labels), rows, p=_shares(len(labels), draw))
    taken_for = _neighbours(len(labels), draw)
    hard = draw.random(rows)
    logits = {name: _logits(gold, taken_for, skill, hard, draw) for name, skill in members.items()}
    models = {**logits, **(_fused(logits) if fused else {})}
    scores = {name: _softmax(values) for name, values in models.items()}
    right = {name: (s.argmax(1) == gold).astype(float) for name, s in scores.items()}
    evaluation = _evaluation("text_classification", "single_label", "accuracy", list(labels), rows, scores, list(members))
    for entry in _entries(evaluation):
        entry["metrics"] = _both(_single_metrics(scores[entry["name"]], gold), draw)
        entry["per_label"] = _single_per_label(scores[entry["name"]].argmax(1), gold, labels)
    _compare(evaluation, right, draw)
    shown = [evaluation["best"]["name"], *members]
    evaluation["confusion"] = {n: _matrix(gold, scores[n].argmax(1), len(labels)) for n in shown}
    evaluation["reliability"] = {n: _bins(scores[n].max(1), right[n]) for n in shown}
    if len(members) > 1:
        evaluation["disagreement"] = _disagreement({n: scores[n].argmax(1) for n in members}, {n: right[n] for n in members})
    best = scores[evaluation["best"]["name"]]
    errors = _single_errors(best, gold, {n: scores[n].argmax(1) for n in members}, labels)
    return _story(experiment, evaluation, members, labels, rows, errors, draw)


def multi_label(num_labels: int = 28, *, rows: int = 1400, seed: int = 2) -> Story:
    """Return a story of any number of labels a row."""
    draw = np.random.default_rng(seed)
    labels = EMOTIONS[:num_labels]
    shares = np.sort(draw.dirichlet(np.full(num_labels, 0.6)))[::-1] * 1.3 + 0.006
    gold = (draw.random((rows, num_labels)) < shares).astype(float)
    logits = {
        name: (gold * 2 - 1.25) * skill * 2.6 + draw.normal(0, 1.6, gold.shape) - 1.2 for name, skill in MEMBERS.items()
    }
    scores = {name: 1 / (1 + np.exp(-values)) for name, values in {**logits, **_fused(logits)}.items()}
    decided = {name: s > 0.5 for name, s in scores.items()}
    evaluation = _evaluation("text_classification", "multi_label", "f1_micro", list(labels), rows, scores, list(MEMBERS))
    for entry in _entries(evaluation):
        made, figures = decided[entry["name"]], {}
        for i, label in enumerate(labels):
            figures[label] = _prf(made[:, i], gold[:, i] > 0)
        found, given, true = (made & (gold > 0)).sum(), made.sum(), gold.sum()
        entry["per_label"] = figures
        micro = 2 * found / (given + true)
        values = {"f1_micro": micro, "f1_macro": np.mean([f["f1"] for f in figures.values()]), "accuracy": (made == gold).all(1).mean()}
        values |= {"precision_micro": found / given, "recall_micro": found / true, "calibration_error": 0.021, "log_loss": 0.11}
        entry["metrics"] = _both(values, draw)
    right = {n: (made == gold).all(1).astype(float) for n, made in decided.items()}
    _compare(evaluation, right, draw)
    shown = [evaluation["best"]["name"], *MEMBERS]
    evaluation["confusion"] = {
        n: [_matrix(gold[:, i].astype(int), decided[n][:, i].astype(int), 2) for i in range(num_labels)] for n in shown
    }
    evaluation["reliability"] = {n: _bins(scores[n].ravel(), gold.ravel()) for n in shown}
    keys = {n: made @ (1 << np.arange(num_labels, dtype=object)) for n, made in decided.items() if n in MEMBERS}
    evaluation["disagreement"] = _disagreement(keys, {n: right[n] for n in MEMBERS})
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
    return _story("goemotions", evaluation, MEMBERS, labels, rows, errors, draw)


def value(*, rows: int = 700, metric: str = "spearman", seed: int = 3) -> Story:
    """Return a story of a number a row."""
    draw = np.random.default_rng(seed)
    gold = np.clip(np.round(draw.normal(2.7, 1.5, rows) * 5) / 5, 0, 5)
    members = {n: np.clip(gold + draw.normal(0.08, 1.3 - s, rows), -0.2, 5.2) for n, s in MEMBERS.items()}
    predicted = {**members, **_fused(members)}
    evaluation = _evaluation("text_pair_regression", "value", metric, [], rows, predicted, list(members))
    evaluation["higher_is_better"] = metric not in ("rmse", "mae")
    for entry in _entries(evaluation):
        off = predicted[entry["name"]] - gold
        figures = {"spearman": np.corrcoef(np.argsort(np.argsort(gold)), np.argsort(np.argsort(gold + off)))[0, 1]}
        figures |= {"pearson": np.corrcoef(gold, gold + off)[0, 1], "rmse": (off**2).mean() ** 0.5, "mae": abs(off).mean()}
        entry["metrics"] = _both(figures, draw)
    _compare(evaluation, {n: -abs(p - gold) for n, p in predicted.items()}, draw)
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
    return _story("stsb", evaluation, MEMBERS, (), rows, errors, draw)


EMOTIONS = (
    "neutral admiration approval gratitude annoyance amusement curiosity love optimism disapproval joy realization anger sadness "
    "confusion caring excitement surprise disgust desire fear remorse embarrassment disappointment relief nervousness pride grief"
).split()


# -- simulated scores ------------------------------------------------------------------------------------


def _shares(number: int, draw: np.random.Generator) -> np.ndarray:
    shares = draw.uniform(0.5, 1.5, number)
    return shares / shares.sum()


def _neighbours(number: int, draw: np.random.Generator) -> np.ndarray:
    """Return, for each label, one that it is easily taken for."""
    order = draw.permutation(number)
    return order[(np.argsort(order) + 1) % number]


def _logits(gold: np.ndarray, taken_for: np.ndarray, skill: float, hard: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    rows, number = len(gold), len(taken_for)
    logits = draw.normal(0, 1.0, (rows, number))
    sure = draw.gamma(6, 0.8, rows)
    wrong = hard * 0.75 + draw.random(rows) * 0.25 > skill
    logits[np.arange(rows), gold] += np.where(wrong, 0.8, sure)
    elsewhere = np.where(draw.random(rows) < 0.6, taken_for[gold], draw.integers(0, number, rows))
    logits[np.arange(rows), elsewhere] += np.where(wrong, sure * 0.8, 0.4)
    return logits


def _fused(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    stack = np.stack(list(logits.values()))
    weights = np.linspace(0.5, 0.1, len(stack)).reshape(-1, *[1] * (stack.ndim - 1))
    return {
        "averaging": stack.mean(0),
        "weighted": (stack * weights / weights.sum()).sum(0),
        "stacking": stack[[0, -1]].mean(0) * 1.1,
        "voting": stack.mean(0) * 0.8,
        "greedy": stack[[0, 0, -1]].mean(0),
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# -- figures ---------------------------------------------------------------------------------------------


def _evaluation(
    problem: str, target: str, metric: str, labels: list[str], rows: int, scores: dict[str, Any], members: list[str]
) -> dict[str, Any]:
    cards = [STRATEGIES.get(m, ({"name": "lora", "r": 8}, "base", 22.8e6, 10.9e6)) for m in members]
    fusions = [n for n in scores if n not in members]
    weights = np.linspace(0.5, 0.1, len(members))
    return {
        "problem": problem,
        "target": target,
        "metric": metric,
        "higher_is_better": True,
        "labels": labels,
        "rows": {"validation": rows * 2 // 3, "test": rows},
        "members": [
            {"name": m, "num_parameters": int(card[2]), "inference_cost": card[3]} for m, card in zip(members, cards, strict=True)
        ],
        "fusions": [
            {
                "name": n,
                "method": FUSIONS.get(n, {"name": n}),
                "weights": dict(zip(members, (weights / weights.sum()).tolist(), strict=True)) if n in ("weighted", "greedy") else None,
                "members_used": [members[0], members[-1]] if n in ("greedy", "stacking") else members,
                "inference_cost_ratio": {"greedy": 1.5, "stacking": 1.5}.get(n, 3.7) + (0.0 if n != "stacking" else 0.02),
            }
            for n in fusions
        ],
    }


def _entries(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return [*evaluation["members"], *evaluation["fusions"]]


def _both(test: dict[str, Any], draw: np.random.Generator) -> dict[str, dict[str, float]]:
    test = {k: float(v) for k, v in test.items()}
    return {"validation": {k: v + float(draw.normal(0, 0.004)) for k, v in test.items()}, "test": test}


def _compare(evaluation: dict[str, Any], good: dict[str, np.ndarray], draw: np.random.Generator) -> None:
    """Fill in the choice, intervals and paired tests from how good each row's answer is."""
    metric, sign = evaluation["metric"], 1 if evaluation["higher_is_better"] else -1
    entries = _entries(evaluation)

    def validation(entry: dict[str, Any]) -> float:
        return sign * entry["metrics"]["validation"][metric]

    best, member = max(entries, key=validation), max(evaluation["members"], key=validation)
    for entry in entries:
        test = entry["metrics"]["test"][metric]
        spread = float(good[entry["name"]].std()) / len(good[entry["name"]]) ** 0.5 * 1.96 * (1 if abs(test) <= 1 else 0.5)
        entry["interval"] = [test - spread, min(test + spread, 1.0) if test < 1 else test + spread]
    for entry in evaluation["fusions"]:
        gain = entry["metrics"]["test"][metric] - member["metrics"]["test"][metric]
        difference = good[entry["name"]] - good[member["name"]]
        room = float(difference.std()) / len(difference) ** 0.5 * 1.96
        entry |= {"gain": gain, "gain_interval": [gain - room, gain + room]}
        entry["p_value_against_best_member"] = float(min(1.0, np.exp(-((gain / max(room, 1e-6)) ** 2) * 1.9)))
        entry["p_value_against_greedy"] = None if entry["name"] == "greedy" else float(draw.uniform(0.05, 0.9))
    evaluation["best_member"] = member["name"]
    evaluation["best"] = {
        "name": best["name"],
        "kind": "member" if best in evaluation["members"] else "fusion",
        "metric": metric,
        "validation": best["metrics"]["validation"][metric],
        "test": best["metrics"]["test"][metric],
        "interval": best["interval"],
    }


def _single_metrics(scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    predicted, rows = scores.argmax(1), np.arange(len(gold))
    accuracy = (predicted == gold).mean()
    return {
        "accuracy": accuracy,
        "f1_macro": accuracy - 0.007,
        "mcc": accuracy - 0.02,
        "roc_auc": 1 - (1 - accuracy) / 6,
        "log_loss": -np.log(scores[rows, gold]).mean(),
        "calibration_error": abs(scores.max(1).mean() - accuracy),
    }


def _single_per_label(predicted: np.ndarray, gold: np.ndarray, labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
    return {label: _prf(predicted == i, gold == i) for i, label in enumerate(labels)}


def _prf(given: np.ndarray, true: np.ndarray) -> dict[str, float]:
    found = float((given & true).sum())
    precision, recall = found / max(given.sum(), 1), found / max(true.sum(), 1)
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(true.sum())}


def _matrix(gold: np.ndarray, predicted: np.ndarray, number: int) -> list[list[int]]:
    matrix = np.zeros((number, number), int)
    np.add.at(matrix, (gold, predicted), 1)
    return matrix.tolist()


def _bins(confidence: np.ndarray, right: np.ndarray, number: int = 15) -> list[dict[str, float]]:
    where = np.minimum((confidence * number).astype(int), number - 1)
    return [
        {"confidence": float(confidence[where == i].mean()), "accuracy": float(right[where == i].mean()), "count": int((where == i).sum())}
        for i in range(number)
        if (where == i).any()
    ]


def _disagreement(decided: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, Any]:
    names = list(decided)
    rows, good = np.stack([decided[n] for n in names]), np.stack([right[n] for n in names]) > 0
    agree = (rows == rows[0]).all(0)
    return {
        "names": names,
        "matrix": [[float((decided[a] != decided[b]).mean()) for b in names] for a in names],
        "all_agree": float(agree.mean()),
        "all_agree_and_right": float((agree & good.all(0)).mean()),
        "some_right": float(good.any(0).mean()),
    }


def _single_errors(best: np.ndarray, gold: np.ndarray, members: dict[str, np.ndarray], labels: tuple[str, ...]) -> pa.Table:
    wrong = np.flatnonzero(best.argmax(1) != gold)
    worst = wrong[np.argsort(-best[wrong].max(1))][:200]
    return pa.table(
        {
            "row_id": worst,
            "text": [TEXTS[i % len(TEXTS)] for i in worst],
            "gold": [labels[gold[i]] for i in worst],
            "predicted": [labels[best[i].argmax()] for i in worst],
            "confidence": best[worst].max(1),
            **{f"member:{n}": [labels[decided[i]] for i in worst] for n, decided in members.items()},
        }
    )


# -- how it was made -------------------------------------------------------------------------------------


def _story(
    experiment: str, evaluation: dict[str, Any], members: Any, labels: Any, rows: int, errors: pa.Table, draw: np.random.Generator
) -> Story:
    read = rows * 7
    rejected = {"exact duplicate": read // 21, "conflicting labels": read // 60, "empty text": 11, "missing label": 41, "unknown label": 6}
    kept = read - sum(rejected.values())
    leaks = rows // 70
    splits = {"train": kept - leaks - rows - rows * 2 // 3, "validation": rows * 2 // 3, "test": rows}
    return Story(
        experiment=experiment,
        members=[_card(name) for name in members],
        collected={"rows": {"all": read}, "columns": ["text", "label"]},
        cleaning={
            "read": read,
            "kept": kept,
            "repaired": {"unicode": 212, "html": 340, "whitespace": 521},
            "rejected": rejected,
            "by_split": {"all": {"read": read, "kept": kept}},
        },
        splits={
            "rows": splits,
            "labels": {s: {label: int(n * w) for label, w in zip(labels, _shares(len(labels), draw), strict=True)} for s, n in splits.items()}
            if len(labels)
            else {},
            "leaks": {"train": leaks},
            "stratified": True,
        },
        encoding={s: _encoded(n, draw) for s, n in splits.items()},
        histories={name: _history(evaluation["metric"], skill, draw, steps=480 + 120 * i) for i, (name, skill) in enumerate(members.items())},
        evaluation=evaluation,
        errors=errors,
        settings={"seed": 42},
    )


def _card(name: str) -> dict[str, Any]:
    strategy, start, _, _ = STRATEGIES.get(name, ({"name": "lora", "r": 8}, "base", 0, 0))
    return {"name": name, "strategy": strategy, "start_from": start, "training": {"learning_rate": 5e-5, "num_train_epochs": 3.0}}


def _encoded(rows: int, draw: np.random.Generator) -> dict[str, Any]:
    lengths = np.minimum(draw.gamma(2.4, 11, max(rows, 1)) + 3, 128).astype(int)
    return {
        "rows": rows,
        "tokens": int(lengths.sum()),
        "truncated_rows": int((lengths == 128).sum()),
        "truncated_tokens": int((lengths == 128).sum()) * 17,
        "unknown_tokens": rows // 90,
        "length": {
            "mean": float(lengths.mean()),
            "p50": float(np.percentile(lengths, 50)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
    }


def _history(metric: str, skill: float, draw: np.random.Generator, steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    checks = []
    for step in range(10, steps + 1, 10):
        part = step / steps
        loss = 2.1 * np.exp(-4 * part * skill) + 0.15 + draw.normal(0, 0.06)
        rows.append({"step": step, "epoch": part * 3, "loss": float(max(loss, 0.02)), "learning_rate": 5e-5 * (1 - part)})
        if step % (steps // 6 // 10 * 10) == 0:
            checks.append({"step": step, "epoch": part * 3, f"validation_{metric}": float(skill * (1 - 0.6 * np.exp(-5 * part)) - 0.04 * part**4 * (skill > 0.85))})
    best = max(checks, key=lambda row: row[f"validation_{metric}"])
    return [*rows, *({**row, "best": True} if row is best else row for row in checks)]


STORIES = {
    "single": single_label,
    "multi": multi_label,
    "value": value,
    "rmse": lambda: value(metric="rmse"),
    "one": lambda: single_label(("negative", "positive"), members={"full": 0.87}, fused=False, experiment="sst2"),
    "two_members": lambda: single_label(("negative", "positive"), members={"full": 0.9, "prompt": 0.6}, fused=False, experiment="sst2"),
    "labels28": lambda: single_label(tuple(EMOTIONS), rows=2600, experiment="emotions, one label"),
    "labels150": lambda: single_label(tuple(f"intent {i:03d} of a long list" for i in range(150)), rows=4500, experiment="clinc"),
    "odd_names": lambda: single_label(
        ("رد المبلغ المدفوع", "返品と返金についての問い合わせ", "a label with a very long name that somebody exported from a ticket system", "<b>&amp;"),
        members={"full": 0.9, "a_member_with_a_name_as_long_as_names_are_allowed_to_be_64_chars": 0.83, "عضو": 0.8, "m4": 0.78, "m5": 0.7, "m6": 0.86, "m7": 0.81},
        experiment="odd_names",
    ),
}  # fmt: skip


def main(folder: Path) -> None:
    """Write a report of each story."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in STORIES.items():
        (folder / f"{name}.html").write_text(with_run(render(build()), FACTS), encoding="utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
