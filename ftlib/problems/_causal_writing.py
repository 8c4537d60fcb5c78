"""What problems share in which a causal model goes on with a prompt: writing the answer, alone or with other models.

Prompts are filled up on the left, so that all of a batch end where the answers begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftlib.problems import _generation, _lockstep
from ftlib.problems._causal import LOSS, NUM_TOKENS, PROMPT, answer_losses
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import LogitsProcessor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems._generation import Generation
    from ftlib.problems.base import Problem
    from ftlib.training.precision import Precision

TOKENS_AT_ONCE = 4096
ROWS_AT_ONCE = 64
"""Of one batch of texts to be written, beams counted."""


def predict(
    problem: Problem,
    ensemble: Ensemble,
    rows: Sequence[pa.Table],
    settings: Generation,
    *,
    room: int,
    ends: Sequence[int],
    precision: Precision,
    watch: Watch | None,
) -> pa.Table:
    """Return what models write together for encoded rows, and how likely their mean finds the gold answers.

    Args:
        problem: Whose `forward` gives the logits of labelled places.
        ensemble: One causal model or several.
        rows: What each one reads: the same rows, encoded; with labels, where gold answers are known.
        settings: How texts are written.
        room: Most tokens of an answer.
        ends: Tokens that end one.
        precision: What to compute in.
        watch: Called with every batch.

    Returns:
        row_id, texts (best first), support, and `LOSS` and `NUM_TOKENS`.
    """
    from ftlib.training.batches import reading_batches

    prompts = [table[PROMPT].to_pylist() for table in rows]
    times = settings.num_candidates if settings.do_sample else settings.num_beams
    sizes = {"max_tokens": max(1, TOKENS_AT_ONCE // times), "max_rows": max(1, ROWS_AT_ONCE // times)}
    found: list[Any] = [None] * len(rows[0])
    for indices in reading_batches(_lengths(prompts[0]), **sizes):
        chosen = [[lists[i] for i in indices.tolist()] for lists in prompts]
        written = _write(ensemble, chosen, settings, room, ends, precision)
        told = _weighed(problem, ensemble, chosen, written, settings, ends, precision)
        for place, row in zip(indices.tolist(), told, strict=True):
            found[place] = row
        if watch:
            watch({}, chosen[0])  # type: ignore[arg-type]
    table = _generation.predictions_table(rows[0]["row_id"], found)
    return _with_losses(table, problem, ensemble, rows, precision)


def _with_losses(
    table: pa.Table, problem: Problem, ensemble: Ensemble, rows: Sequence[pa.Table], precision: Precision
) -> pa.Table:
    """Return predictions with what the gold answers cost; null where they are not known, or not the same tokens."""
    import pyarrow as pa

    known = all("labels" in each.column_names for each in rows)
    if not known or any(_answers(other) != _answers(rows[0]) for other in rows[1:]):
        nothing = pa.nulls(len(table), pa.float64())
        return table.append_column(LOSS, nothing).append_column(NUM_TOKENS, nothing.cast(pa.int64()))
    losses, counts = answer_losses(problem, ensemble, rows, precision)
    return table.append_column(LOSS, pa.array(losses)).append_column(NUM_TOKENS, pa.array(counts, pa.int64()))


def _answers(rows: pa.Table) -> list[list[int]]:
    return [[token for token in line if token != IGNORED] for line in rows["labels"].to_pylist()]


def _lengths(lists: Sequence[Sequence[int]]) -> np.ndarray:
    import numpy as np

    return np.array([len(line) for line in lists], dtype=np.int64)


def _write(
    ensemble: Ensemble,
    prompts: Sequence[Sequence[Sequence[int]]],
    settings: Generation,
    room: int,
    ends: Sequence[int],
    precision: Precision,
) -> list[list[int]]:
    """Return the tokens of each prompt's candidates, without what follows their end, one prompt after the other."""

    def write(number: int, *, last: LogitsProcessor | None = None, follows: bool = False) -> list[list[int]]:
        checkpoint, asked = ensemble.checkpoints[number], prompts[number]
        return _goes_on(checkpoint, asked, settings, room, ends, precision, last=last, follows=follows)

    return [_until_end(line, ends) for line in _lockstep.written(ensemble, write)]


def _goes_on(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    settings: Generation,
    room: int,
    ends: Sequence[int],
    precision: Precision,
    **follows: Any,
) -> list[list[int]]:
    """Return the tokens that one model writes behind each prompt."""
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
            found = _generation.generate(model, batch, settings, limit=room, more=more, **follows)
    finally:
        if virtual:
            attach(model, virtual)
    return found[:, batch["input_ids"].shape[1] :].tolist()


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
    ensemble: Ensemble,
    prompts: Sequence[Sequence[Sequence[int]]],
    written: Sequence[list[int]],
    settings: Generation,
    ends: Sequence[int],
    precision: Precision,
) -> list[tuple[list[str], list[float]]]:
    """Return each prompt's distinct texts and their support, by one pass over prompts and texts together."""
    times = settings.num_candidates
    tables = [_behind(asked, written, times) for asked in prompts]
    losses, counts = answer_losses(problem, ensemble, tables, precision)
    plain = [[token for token in text if token not in ends] for text in written]
    tokenizer = ensemble.first.tokenizer
    texts = [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in plain]
    parts = [slice(i, i + times) for i in range(0, len(texts), times)]
    return [_generation.weighed(texts[p], -losses[p], counts[p], settings) for p in parts]


def _behind(prompts: Sequence[Sequence[int]], written: Sequence[list[int]], times: int) -> pa.Table:
    """Return texts behind their prompts as rows to be read, `times` texts a prompt."""
    import pyarrow as pa

    repeated = [prompt for prompt in prompts for _ in range(times)]
    kind = pa.list_(pa.int32())
    whole = {
        "input_ids": [[*prompt, *text] for prompt, text in zip(repeated, written, strict=True)],
        "labels": [[*[IGNORED] * len(prompt), *text] for prompt, text in zip(repeated, written, strict=True)],
    }
    return pa.table({name: pa.array(lists, kind) for name, lists in whole.items()})
