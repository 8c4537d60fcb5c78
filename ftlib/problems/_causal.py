"""What problems share in which a causal model goes on with a prompt: learning the answer alone, and writing one.

A row is a prompt and an answer, one token after the other. The model learns the answer's tokens; those of the prompt
are read and not learned. Rows are filled on the right in training and on the left where texts are written, so that
positions count from a row's own first token in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError, DataError
from ftlib.problems import _generation
from ftlib.problems._places import IGNORED, logits_at, mean_loss, rows_at_once

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems._generation import Generation
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

TOKENS_AT_ONCE = 4096
ROWS_AT_ONCE = 64
"""Of one batch of texts to be written, beams counted."""


# -- rows ----------------------------------------------------------------------------------------------


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, problem: str) -> None:
    """Refuse a tokenizer without an end of text: no answer would end (CheckpointError)."""
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"{problem} needs a tokenizer with an end of text (eos_token), and the base model's has none: no answer "
            "would end. Choose another base model."
        )


def rooms(max_length: int, max_answer_tokens: int, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many tokens a prompt and an answer may have: together no more than the model reads."""
    limit = min(max_length, tokenizer.model_max_length)
    answer = min(max_answer_tokens, limit // 2)
    return limit - answer, answer


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


def forward(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of the answers' tokens, row by row, shape (num_tokens, vocabulary_size).

    Those of the gold answers first; then, where there are teachers, those of theirs.
    """
    import torch

    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    logits = logits_at(model, inputs, batch["labels"], causal=True)
    if "teacher_labels" not in batch:
        return logits
    given = batch["teacher_input_ids"]
    taught = {"input_ids": given.clamp_min(0), "attention_mask": (given >= 0).long()}
    return torch.cat((logits, logits_at(model, taught, batch["teacher_labels"], causal=True)))


def loss(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy of the gold answers' tokens."""
    return mean_loss(logits[: int((batch["labels"] != IGNORED).sum())], batch["labels"])


def distillation_loss(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy of the teachers' answers' tokens."""
    return mean_loss(logits[int((batch["labels"] != IGNORED).sum()) :], batch["teacher_labels"])


# -- reading -------------------------------------------------------------------------------------------


def measure(problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision) -> dict[str, float]:
    """Return the loss a token of the gold answers, and the perplexity; texts are not written, which would be slow."""
    losses, counts = answer_losses(problem, checkpoint, rows, precision)
    return _per_token(losses.sum(), counts.sum())


def own_metrics(predictions: pa.Table) -> dict[str, float]:
    """Return the perplexity of the gold answers; {} where nobody knows them."""
    import pyarrow.compute as pc

    total, count = pc.sum(predictions[LOSS]).as_py(), pc.sum(predictions[NUM_TOKENS]).as_py()
    return {"perplexity": _per_token(total, count)["perplexity"]} if count else {}


def _per_token(total: float, count: float) -> dict[str, float]:
    from math import exp

    mean = float(total) / max(1.0, float(count))
    return {"loss": mean, "perplexity": exp(min(mean, 700.0))}


def answer_losses(
    problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Return the negative log-likelihood of each row's labels, and how many they are, both of shape (num_rows,)."""
    import numpy as np

    from ftlib.training.batches import Rows, reading_batches

    known = Rows.from_table(rows, checkpoint.tokenizer, problem)
    losses, counts = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for indices in reading_batches(known.lengths, rows_at_once(len(checkpoint.tokenizer))):
        losses[indices], counts[indices] = _losses(problem, checkpoint.model, known.batch(indices), precision)
    return losses, counts


def _losses(
    problem: Problem, model: Any, batch: Mapping[str, Tensor], precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from ftlib.training.precision import autocast, resolve

    device = next(model.eval().parameters()).device
    batch = {name: values.to(device) for name, values in batch.items() if not name.startswith("teacher_")}
    with torch.inference_mode(), autocast(resolve(precision), device):
        logits = problem.forward(model, batch).float()
        found = F.cross_entropy(logits, batch["labels"][batch["labels"] != IGNORED], reduction="none")
    counts = (batch["labels"] != IGNORED).sum(1).cpu().numpy()
    row_of = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(row_of, weights=found.double().cpu().numpy(), minlength=len(counts)), counts


# -- writing -------------------------------------------------------------------------------------------


def predict(
    problem: Problem,
    checkpoint: Checkpoint,
    rows: pa.Table,
    settings: Generation,
    *,
    room: int,
    ends: Sequence[int],
    precision: Precision,
    watch: Watch | None,
) -> pa.Table:
    """Return a model's candidates for encoded rows, and how likely it finds the gold answers.

    Args:
        problem: Whose `forward` gives the logits of labelled places.
        checkpoint: A causal model.
        rows: Encoded; with labels, where gold answers are known.
        settings: How texts are written.
        room: Most tokens of an answer.
        ends: Tokens that end one.
        precision: What to compute in.
        watch: Called with every batch.

    Returns:
        row_id, texts (best first), support, and `LOSS` and `NUM_TOKENS`.
    """
    import pyarrow as pa

    from ftlib.training.batches import reading_batches

    prompts = rows[PROMPT].to_pylist()
    lengths = _lengths(prompts)
    times = settings.num_candidates if settings.do_sample else settings.num_beams
    found: list[Any] = [None] * len(rows)
    for indices in reading_batches(lengths, max(1, TOKENS_AT_ONCE // times), max(1, ROWS_AT_ONCE // times)):
        chosen = [prompts[i] for i in indices.tolist()]
        written = _write(checkpoint, chosen, settings, room, ends, precision)
        told = _weighed(problem, checkpoint, chosen, written, settings, ends, precision)
        for place, row in zip(indices.tolist(), told, strict=True):
            found[place] = row
        if watch:
            watch({}, chosen)  # type: ignore[arg-type]
    table = _generation.predictions_table(rows["row_id"], found)
    known = "labels" in rows.column_names
    losses, counts = answer_losses(problem, checkpoint, rows, precision) if known else (None, None)
    nothing = pa.nulls(len(rows), pa.float64())
    table = table.append_column(LOSS, pa.array(losses) if known else nothing)
    return table.append_column(NUM_TOKENS, pa.array(counts, pa.int64()) if known else nothing.cast(pa.int64()))


def _lengths(lists: Sequence[Sequence[int]]) -> np.ndarray:
    import numpy as np

    return np.array([len(line) for line in lists], dtype=np.int64)


def _write(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    settings: Generation,
    room: int,
    ends: Sequence[int],
    precision: Precision,
) -> list[list[int]]:
    """Return the tokens of each prompt's candidates, without what follows their end, one prompt after the other."""
    import torch

    from ftlib.models.virtual_tokens import attach, attached, detach
    from ftlib.training.precision import autocast, resolve

    model, pad = checkpoint.model.eval(), int(checkpoint.tokenizer.pad_token_id or 0)
    virtual = attached(model)
    at, ids = (virtual.position, virtual.ids) if virtual else (0, ())
    batch = _padded_left([[*prompt[:at], *ids, *prompt[at:]] for prompt in prompts], pad)
    device = next(model.parameters()).device
    batch = {name: values.to(device) for name, values in batch.items()}
    more = {"eos_token_id": list(ends), "pad_token_id": pad, "suppress_tokens": list(ids) or None}
    if virtual:
        detach(model)  # they stand before the padding's end already, and the hook would add them at every token
    try:
        with torch.inference_mode(), autocast(resolve(precision), device):
            found = _generation.generate(model, batch, settings, limit=room, more=more)
    finally:
        if virtual:
            attach(model, virtual)
    return [_until_end(line, ends) for line in found[:, batch["input_ids"].shape[1] :].tolist()]


def _padded_left(lists: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    import torch

    longest = max(map(len, lists))
    ids = [[*[pad] * (longest - len(line)), *line] for line in lists]
    mask = [[*[0] * (longest - len(line)), *[1] * len(line)] for line in lists]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _until_end(line: list[int], ends: Sequence[int]) -> list[int]:
    """Return tokens up to the first end, it included."""
    end = next((i for i, token in enumerate(line) if token in ends), len(line))
    return line[: end + 1]


def _weighed(
    problem: Problem,
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    written: Sequence[list[int]],
    settings: Generation,
    ends: Sequence[int],
    precision: Precision,
) -> list[tuple[list[str], list[float]]]:
    """Return each prompt's distinct texts and their support, by one pass over prompts and texts together."""
    import pyarrow as pa

    times = settings.num_candidates
    repeated = [prompt for prompt in prompts for _ in range(times)]
    kind = pa.list_(pa.int32())
    whole = {
        "input_ids": [[*prompt, *text] for prompt, text in zip(repeated, written, strict=True)],
        "labels": [[*[IGNORED] * len(prompt), *text] for prompt, text in zip(repeated, written, strict=True)],
    }
    table = pa.table({name: pa.array(lists, kind) for name, lists in whole.items()})
    losses, counts = answer_losses(problem, checkpoint, table, precision)
    plain = [[token for token in text if token not in ends] for text in written]
    texts = [str(checkpoint.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in plain]
    parts = [slice(i, i + times) for i in range(0, len(texts), times)]
    return [_generation.weighed(texts[p], -losses[p], counts[p], settings) for p in parts]
