"""Simulated scores of members and fusions, and the figures that follow from them, for made-up stories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ftlib.report import Story

MEMBERS = {"full": 0.9, "prefix": 0.83, "prompt": 0.74, "distilled": 0.87}
STRATEGIES = {
    "full": ({"name": "full"}, "base", 22_713_728, 10.6e6),
    "prefix": ({"name": "prefix", "num_virtual_tokens": 20, "prefix_projection": True}, "full", 23_001_000, 11.2e6),
    "prompt": ({"name": "prompt_tuning", "num_virtual_tokens": 16}, "base", 22_720_000, 12.4e6),
    "distilled": (
        {"name": "distillation", "teacher": "full", "temperature": 2.0, "blocks": [0, 2, 5]},
        "base",
        17.3e6,
        5.3e6,
    ),
}
FUSIONS = {
    "averaging": {"name": "averaging"},
    "weighted": {"name": "weighted", "weights_from": "optimised"},
    "stacking": {"name": "stacking", "learner": "logistic_regression", "C": 1.0},
    "voting": {"name": "voting", "voting": "soft"},
    "greedy": {"name": "greedy", "rounds": 50},
}
TEXTS = (
    "I was charged twice for the same order and nobody answers my mails, please help",
    "<b>where</b> is my parcel?? tracking says delivered but there is nothing here & nothing next door either",
    "Ich möchte mein Konto schließen — bitte löschen Sie alle Daten.",
    "لم أستلم طلبي حتى الآن وأريد استرداد المبلغ",
    "ログインできません。パスワードを変えても同じです。",
    "The screen flickers since the last update. " * 14,
    "can u cancel it pls 😡😡",
    "It arrived broken, so I want either my money back or a new one, whichever is quicker: the birthday is on Friday.",
)

# -- simulated scores ------------------------------------------------------------------------------------


def shares(number: int, draw: np.random.Generator) -> np.ndarray:
    shares = draw.uniform(0.5, 1.5, number)
    return shares / shares.sum()


def neighbours(number: int, draw: np.random.Generator) -> np.ndarray:
    """Return, for each label, one that it is easily taken for."""
    order = draw.permutation(number)
    return order[(np.argsort(order) + 1) % number]


def simulated_logits(
    gold: np.ndarray, taken_for: np.ndarray, skill: float, hard: np.ndarray, draw: np.random.Generator
) -> np.ndarray:
    rows, number = len(gold), len(taken_for)
    logits = draw.normal(0, 1.0, (rows, number))
    sure = draw.gamma(6, 0.8, rows)
    wrong = hard * 0.75 + draw.random(rows) * 0.25 > skill
    logits[np.arange(rows), gold] += np.where(wrong, 0.8, sure)
    elsewhere = np.where(draw.random(rows) < 0.6, taken_for[gold], draw.integers(0, number, rows))
    logits[np.arange(rows), elsewhere] += np.where(wrong, sure * 0.8, 0.4)
    return logits


def fused_logits(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    stack = np.stack(list(logits.values()))
    weights = np.linspace(0.5, 0.1, len(stack)).reshape(-1, *[1] * (stack.ndim - 1))
    return {
        "averaging": stack.mean(0),
        "weighted": (stack * weights / weights.sum()).sum(0),
        "stacking": stack[[0, -1]].mean(0) * 1.1,
        "voting": stack.mean(0) * 0.8,
        "greedy": stack[[0, 0, -1]].mean(0),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# -- figures ---------------------------------------------------------------------------------------------


def evaluation_of(
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
            {"name": m, "num_parameters": int(card[2]), "inference_cost": card[3]}
            for m, card in zip(members, cards, strict=True)
        ],
        "fusions": [
            {
                "name": n,
                "method": FUSIONS.get(n, {"name": n}),
                "weights": dict(zip(members, (weights / weights.sum()).tolist(), strict=True))
                if n in ("weighted", "greedy")
                else None,
                "members_used": [members[0], members[-1]] if n in ("greedy", "stacking") else members,
                "inference_cost_ratio": {"greedy": 1.5, "stacking": 1.5}.get(n, 3.7)
                + (0.0 if n != "stacking" else 0.02),
            }
            for n in fusions
        ],
    }


def entries(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return [*evaluation["members"], *evaluation["fusions"]]


def both_splits(test: dict[str, Any], draw: np.random.Generator) -> dict[str, dict[str, float]]:
    test = {k: float(v) for k, v in test.items()}
    return {"validation": {k: v + float(draw.normal(0, 0.004)) for k, v in test.items()}, "test": test}


def compare(evaluation: dict[str, Any], good: dict[str, np.ndarray], draw: np.random.Generator) -> None:
    """Fill in the choice, intervals and paired tests from how good each row's answer is."""
    metric, sign = evaluation["metric"], 1 if evaluation["higher_is_better"] else -1
    models = entries(evaluation)

    def validation(entry: dict[str, Any]) -> float:
        return sign * entry["metrics"]["validation"][metric]

    best, member = max(models, key=validation), max(evaluation["members"], key=validation)
    for entry in models:
        test = entry["metrics"]["test"][metric]
        spread = (
            float(good[entry["name"]].std()) / len(good[entry["name"]]) ** 0.5 * 1.96 * (1 if abs(test) <= 1 else 0.5)
        )
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


def single_metrics(scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
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


def single_per_label(predicted: np.ndarray, gold: np.ndarray, labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
    return {label: precision_recall_f1(predicted == i, gold == i) for i, label in enumerate(labels)}


def precision_recall_f1(given: np.ndarray, true: np.ndarray) -> dict[str, float]:
    found = float((given & true).sum())
    precision, recall = found / max(given.sum(), 1), found / max(true.sum(), 1)
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(true.sum())}


def confusion_matrix(gold: np.ndarray, predicted: np.ndarray, number: int) -> list[list[int]]:
    matrix = np.zeros((number, number), int)
    np.add.at(matrix, (gold, predicted), 1)
    return matrix.tolist()


def reliability_bins(confidence: np.ndarray, right: np.ndarray, number: int = 15) -> list[dict[str, float]]:
    where = np.minimum((confidence * number).astype(int), number - 1)
    return [
        {
            "confidence": float(confidence[where == i].mean()),
            "accuracy": float(right[where == i].mean()),
            "count": int((where == i).sum()),
        }
        for i in range(number)
        if (where == i).any()
    ]


def disagreement(decided: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, Any]:
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


def single_errors(
    best: np.ndarray, gold: np.ndarray, members: dict[str, np.ndarray], labels: tuple[str, ...]
) -> pa.Table:
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


def assembled(
    experiment: str,
    evaluation: dict[str, Any],
    members: Any,
    labels: Any,
    rows: int,
    errors: pa.Table,
    draw: np.random.Generator,
) -> Story:
    read = rows * 7
    rejected = {
        "exact duplicate": read // 21,
        "conflicting labels": read // 60,
        "empty text": 11,
        "missing label": 41,
        "unknown label": 6,
    }
    kept = read - sum(rejected.values())
    leaks = rows // 70
    splits = {"train": kept - leaks - rows - rows * 2 // 3, "validation": rows * 2 // 3, "test": rows}
    return Story(
        experiment=experiment,
        members=[card(name) for name in members],
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
            "labels": {
                s: {label: int(n * w) for label, w in zip(labels, shares(len(labels), draw), strict=True)}
                for s, n in splits.items()
            }
            if len(labels)
            else {},
            "leaks": {"train": leaks},
            "stratified": True,
        },
        encoding={s: encoded(n, draw) for s, n in splits.items()},
        histories={
            name: history(evaluation["metric"], skill, draw, steps=480 + 120 * i)
            for i, (name, skill) in enumerate(members.items())
        },
        evaluation=evaluation,
        errors=errors,
        settings={"seed": 42},
    )


def card(name: str) -> dict[str, Any]:
    strategy, start, _, _ = STRATEGIES.get(name, ({"name": "lora", "r": 8}, "base", 0, 0))
    return {
        "name": name,
        "strategy": strategy,
        "start_from": start,
        "training": {"learning_rate": 5e-5, "num_train_epochs": 3.0},
    }


def encoded(rows: int, draw: np.random.Generator) -> dict[str, Any]:
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


def history(metric: str, skill: float, draw: np.random.Generator, steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    checks = []
    for step in range(10, steps + 1, 10):
        part = step / steps
        loss = 2.1 * np.exp(-4 * part * skill) + 0.15 + draw.normal(0, 0.06)
        rows.append(
            {"step": step, "epoch": part * 3, "loss": float(max(loss, 0.02)), "learning_rate": 5e-5 * (1 - part)}
        )
        if step % (steps // 6 // 10 * 10) == 0:
            checks.append(
                {
                    "step": step,
                    "epoch": part * 3,
                    f"validation_{metric}": float(
                        skill * (1 - 0.6 * np.exp(-5 * part)) - 0.04 * part**4 * (skill > 0.85)
                    ),
                }
            )
    best = max(checks, key=lambda row: row[f"validation_{metric}"])
    return [*rows, *({**row, "best": True} if row is best else row for row in checks)]
