"""What problems share in which a causal model goes on with a prompt: learning the answer alone.

A row is a prompt and an answer, one token after the other. The model learns the answer's tokens; those of the prompt
are read and not learned. Rows are filled on the right in training and on the left where texts are written, so that
positions count from a row's own first token in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftlib.errors import DataError
from ftlib.problems import _generation
from ftlib.problems._packing import causal_logits
from ftlib.problems._places import logits_at, rows_at_once
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.ensembles import Ensemble
    from ftlib.problems.base import Problem
    from ftlib.targets.text_metrics import Quality
    from ftlib.training.precision import Precision

INPUTS = ("input_ids",)
TARGETS = ("labels", "teacher_input_ids", "teacher_labels")
TOKENS = ("input_ids", "teacher_input_ids")
PADDING = {"labels": IGNORED, "teacher_labels": IGNORED, "teacher_input_ids": -1}

PROMPT = "prompt_ids"
"""The column of encoded rows that holds what the model is asked."""

LOSS, NUM_TOKENS = "answer_loss", "answer_tokens"
"""Columns of predictions: the gold answer's negative log-likelihood and its tokens; null where nobody knows one."""

# -- rows ----------------------------------------------------------------------------------------------


def prompts_table(prompts: Sequence[Sequence[int]], room: int, cut: Sequence[int] = ()) -> pa.Table:
    """Return encoded prompts; of one that is too long the end stays, which is nearest to the answer.

    Args:
        prompts: Token ids.
        room: Most tokens.
        cut: Tokens that were left out before.
    """
    import pyarrow as pa

    kept = pa.array([ids[-room:] for ids in prompts], pa.list_(pa.int32()))
    lost = [max(0, len(ids) - room) for ids in prompts]
    truncated = [a + b for a, b in zip(lost, cut or [0] * len(lost), strict=True)]
    return pa.table({"input_ids": kept, PROMPT: kept, "num_truncated": pa.array(truncated, pa.int32())})


def with_answers(encoded: pa.Table, lines: Sequence[tuple[Sequence[int], Sequence[bool]]], limit: int) -> pa.Table:
    """Return encoded rows with input_ids of prompt and answer together, and labels of the answer alone.

    Args:
        encoded: As `prompts_table` gives it.
        lines: Each row's tokens, and which are learned; longer ones are cut at the end.
        limit: Most tokens of a row.
    """
    import pyarrow as pa

    ids = [list(line[:limit]) for line, _ in lines]
    labels = [
        [IGNORED, *(t if learned else IGNORED for t, learned in zip(line[1:limit], is_answer[1:limit], strict=True))]
        for line, is_answer in lines
    ]
    lost = [max(0, len(line) - limit) for line, _ in lines]
    cut = [a + b for a, b in zip(encoded["num_truncated"].to_pylist(), lost, strict=True)]
    kind = pa.list_(pa.int32())
    return pa.table(
        {
            "input_ids": pa.array(ids, kind),
            "labels": pa.array(labels, kind),
            PROMPT: encoded[PROMPT],
            "num_truncated": pa.array(cut, pa.int32()),
        }
    )


def answer_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, end: int, room: int) -> list[list[int]]:
    """Return answers as a model learns them, each with its end; longer ones cut, without one."""
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return [[*ids, end][:room] for ids in found]


def teach(
    rows: pa.Table,
    predictions: Sequence[pa.Table],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    utility: Quality,
    end: int,
    room: int,
) -> pa.Table:
    """Return encoded rows with the teachers' answers beside the gold ones: see `_generation.lessons`."""
    import pyarrow as pa

    if tokenizer is None:
        raise DataError("a teacher's texts are learned as the student's tokens; its tokenizer is needed.")
    answers = answer_tokens(_generation.lessons(predictions, utility), tokenizer, end, room)
    prompts = rows[PROMPT].to_pylist()
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[*[IGNORED] * len(prompt), *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    for name, lists in (("teacher_input_ids", whole), ("teacher_labels", labels)):
        rows = rows.append_column(name, pa.array(lists, pa.list_(pa.int32())))
    return rows


# -- the model -----------------------------------------------------------------------------------------


def forward(model: Any, batch: Mapping[str, Tensor], room: int | None = None) -> Tensor:
    """Return the logits of the answers' tokens, row by row, shape (num_tokens, vocabulary_size).

    Those of the gold answers first; then, where there are teachers, those of theirs.

    Args:
        model: A causal model.
        batch: As the trainer makes it.
        room: Most tokens of a line that rows share in training; None packs nothing.
    """
    import torch

    logits = causal_logits(model, batch, room)
    if "teacher_labels" not in batch:
        return logits
    given = batch["teacher_input_ids"]
    taught = {"input_ids": given.clamp_min(0), "attention_mask": (given >= 0).long()}
    return torch.cat((logits, logits_at(model, taught, batch["teacher_labels"], causal=True)))


# -- reading -------------------------------------------------------------------------------------------


def answer_losses(
    problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Return the negative log-likelihood of each row's labels, and how many they are, both of shape (num_rows,).

    Args:
        problem: Whose `forward` gives the logits of labelled places.
        ensemble: The models.
        rows: What each one reads, the same labels in all.
        precision: What to compute in.
    """
    import numpy as np

    from ftlib.training.batches import Rows, reading_batches

    known = [
        Rows.from_table(table, checkpoint.tokenizer, problem)
        for table, checkpoint in zip(rows, ensemble.checkpoints, strict=True)
    ]
    size = len(ensemble.first.tokenizer) * len(known)
    losses, counts = np.zeros(len(rows[0])), np.zeros(len(rows[0]), np.int64)
    for indices in reading_batches(known[0].lengths, rows_at_once(size)):
        batches = [each.batch(indices) for each in known]
        losses[indices], counts[indices] = _losses(problem, ensemble, batches, precision)
    return losses, counts


def _losses(
    problem: Problem, ensemble: Ensemble, batches: Sequence[Mapping[str, Tensor]], precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    from torch.nn import functional as F

    from ftlib.training.precision import reading

    logits = []
    for checkpoint, batch in zip(ensemble.checkpoints, batches, strict=True):
        model = checkpoint.model.eval()
        device = next(model.parameters()).device
        batch = {name: values.to(device) for name, values in batch.items() if not name.startswith("teacher_")}
        with reading(precision, device):
            logits.append(problem.forward(model, batch).float())
    labels = batches[0]["labels"].to(logits[0].device)
    found = F.cross_entropy(ensemble.mixed(logits), labels[labels != IGNORED], reduction="none")
    counts = (labels != IGNORED).sum(1).cpu().numpy()
    row_of = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(row_of, weights=found.double().cpu().numpy(), minlength=len(counts)), counts
