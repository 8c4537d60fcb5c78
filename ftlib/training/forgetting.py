"""What keeps earlier tasks while another is learned: rows kept in a reservoir, Fisher information, recorded logits.

Imported when a stage trains; it needs torch at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.ensembling import rows_at
from ftlib.models.forward import forward_rows
from ftlib.models.heads import own_parameters
from ftlib.models.layers import ties_words
from ftlib.training.penalties import Pull

if TYPE_CHECKING:
    import pyarrow as pa
    from torch.nn import Parameter

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.training.batches import Rows

FisherOf = Literal["model", "empirical"]

SIMPLE = frozenset({"single_label", "multi_label", "value"})
"""Kinds of target of which one vector of logits is a distribution that answers can be drawn from."""


# -- rows ----------------------------------------------------------------------------------------------


def reservoir(num_rows: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Return which of a stream's rows are in a reservoir at its end, ascending: each with the same probability.

    Vitter (1985), "Random Sampling with a Reservoir", https://doi.org/10.1145/3147.3165, algorithm R: the row t takes
    the place of a random one among those kept, with probability size / t.

    Args:
        num_rows: How long the stream is.
        size: Places of the reservoir.
        random: Decides.
    """
    kept = np.arange(min(size, num_rows))
    places = random.integers(np.arange(len(kept), num_rows) + 1)
    for row, place in zip(range(len(kept), num_rows), places.tolist(), strict=True):
        if place < len(kept):
            kept[place] = row
    return np.sort(kept)


def remembered(tables: Mapping[str, pa.Table], size: int, *, for_each: bool, seed: int) -> dict[str, pa.Table]:
    """Return the rows of earlier tasks that a reservoir holds, by task; of a row with several lines, all of them.

    Args:
        tables: Encoded rows by task.
        size: Rows that are held.
        for_each: Whether each task has a reservoir of this size, or all have one together, their rows one stream.
        seed: Decides which.
    """
    random = np.random.default_rng([seed, size])
    ids = {task: np.unique(table["row_id"].to_numpy()) for task, table in tables.items()}
    if for_each:
        chosen = {task: rows[reservoir(len(rows), size, random)] for task, rows in ids.items()}
    else:
        ends = np.cumsum([len(rows) for rows in ids.values()])
        held = reservoir(int(ends[-1]), size, random)
        parts = np.split(held, np.searchsorted(held, ends[:-1]))
        starts = (0, *ends[:-1].tolist())
        chosen = {t: rows[p - start] for (t, rows), p, start in zip(ids.items(), parts, starts, strict=True)}
    return {task: _with_ids(table, chosen[task]) for task, table in tables.items() if len(chosen[task])}


def _with_ids(table: pa.Table, wanted: np.ndarray) -> pa.Table:
    return table.filter(np.isin(table["row_id"].to_numpy(), wanted))


# -- elastic weight consolidation ----------------------------------------------------------------------


def shared_parameters(model: nn.Module) -> dict[str, Parameter]:
    """Return the parameters that tasks share, by name: all but the head's."""
    own = own_parameters(model)
    return {name: p for name, p in model.named_parameters() if name not in own}


def fisher(
    checkpoint: Checkpoint,
    problem: Problem,
    rows: Rows,
    parameters: Mapping[str, Parameter],
    *,
    num_rows: int,
    of: FisherOf,
    seed: int,
) -> dict[str, Tensor]:
    """Return the diagonal of a task's Fisher information matrix: the mean squared gradient of a row's log-likelihood.

    Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks",
    https://arxiv.org/abs/1612.00796; with answers drawn from the model it is the Fisher information, with gold ones
    the empirical one (Kunstner et al. 2019, https://arxiv.org/abs/1905.12558, say what that is worth).

    Args:
        checkpoint: The model with the task's head; its weights are not changed.
        problem: What the task is.
        rows: Of the task.
        parameters: Of which it is taken, by name.
        num_rows: The most rows that are read.
        of: "model": answers are drawn from the model, where they are labels or numbers; "empirical": gold answers.
        seed: Decides which rows and which answers.
    """
    model = checkpoint.model.eval()
    drawing = torch.Generator().manual_seed(seed)
    chosen = np.random.default_rng([seed, num_rows]).permutation(len(rows))[:num_rows]
    wanted = list(parameters.values())
    sums = [torch.zeros_like(p) for p in wanted]
    with _learning(wanted), _sparse(model):
        for row in chosen:
            batch = problem.draw(rows.batch(np.array([row])), (seed, int(row)))
            loss = negative_log_likelihood(model, problem, batch, drawing if of == "model" else None)
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                _add_square(total, gradient)
    return {name: total / max(1, len(chosen)) for name, total in zip(parameters, sums, strict=True)}


def negative_log_likelihood(
    model: Any, problem: Problem, batch: Mapping[str, Tensor], drawing: torch.Generator | None
) -> Tensor:
    """Return the negative log-likelihood of one row's answer, up to a constant; of several units a row, their mean.

    Args:
        model: The task's.
        problem: What the task is.
        batch: One row.
        drawing: What answers are drawn with; None: the gold answer.
    """
    logits = problem.forward(model, batch).float()
    kind = problem.target.kind
    if drawing is not None and kind in SIMPLE:
        batch = {**batch, "labels": _drawn(logits.detach(), kind, drawing)}
    scale = {"multi_label": float(logits.shape[-1]), "value": 0.5}.get(kind, 1.0)  # their losses are means
    return problem.loss(logits, batch) * scale


def _drawn(logits: Tensor, kind: str, drawing: torch.Generator) -> Tensor:
    if kind == "single_label":
        return torch.multinomial(logits.softmax(-1), 1, generator=drawing)[:, 0]
    if kind == "multi_label":
        return torch.bernoulli(logits.sigmoid(), generator=drawing)
    noise = torch.randn(logits.shape[0], generator=drawing, dtype=logits.dtype)
    return logits[:, 0] + noise


def _add_square(total: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        total.index_add_(0, gradient.indices()[0], gradient.values().square())
    else:
        total.addcmul_(gradient, gradient)


@contextmanager
def _learning(parameters: list[Parameter]) -> Iterator[None]:
    before = [p.requires_grad for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, learns in zip(parameters, before, strict=True):
            parameter.requires_grad_(learns)


@contextmanager
def _sparse(model: Any) -> Iterator[None]:
    """Let word embeddings have gradients of the rows in use alone, where nothing else reads their table."""
    table = model.get_input_embeddings()
    is_alone = isinstance(table, nn.Embedding) and not ties_words(model)
    before = table.sparse if is_alone else False
    if is_alone:
        table.sparse = True
    try:
        yield
    finally:
        if is_alone:
            table.sparse = before


def consolidated(
    fishers: list[dict[str, Tensor]], parameters: Mapping[str, Parameter], weight: float, decay: float
) -> dict[str, Pull]:
    """Return what holds each shared parameter to where it is: weight / 2 x the sum of Fishers x distance squared.

    Args:
        fishers: One a task, the one learned last first.
        parameters: Where they are now is where they are held.
        weight: Of the sum.
        decay: What each task's counts less than that of the next, as in online EWC (Schwarz et al. 2018,
            https://arxiv.org/abs/1805.06370, equation 9); 1: all alike.
    """
    pulls = {}
    for name, parameter in parameters.items():
        total = torch.zeros_like(parameter)
        for age, found in enumerate(fishers):
            total.add_(found[name], alpha=weight * decay**age)
        pulls[name] = Pull(parameter.detach().clone(), total)
    return pulls


# -- learning without forgetting -----------------------------------------------------------------------


def with_own_answers(checkpoint: Checkpoint, problem: Problem, rows: pa.Table) -> pa.Table:
    """Return rows of an earlier task with what the model says of them now, as `Problem.distillation_loss` reads it.

    Args:
        checkpoint: The model with the task's head.
        problem: What the task is.
        rows: Encoded rows of it.
    """
    said = problem.predict(checkpoint, rows)
    at = rows_at(rows["row_id"].to_numpy(), said["row_id"].to_numpy(), "replayed rows")
    return problem.teach(rows, [said.take(at)], checkpoint.tokenizer)


def recorded(checkpoint: Checkpoint, problem: Problem, rows: Rows) -> np.ndarray:
    """Return what an earlier task's head says of other rows, float32, shape (num_rows, num_outputs).

    Args:
        checkpoint: The model with that head.
        problem: What the earlier task is.
        rows: Of the new task.
    """
    lists = {name: rows.lists[name] for name in problem.model_inputs if name in rows.lists}
    logits = np.empty((len(rows), problem.target.num_outputs), np.float32)
    for places, outputs in forward_rows(checkpoint.model, replace(rows, lists=lists, fixed={}), problem):
        logits[places] = outputs
    return logits
