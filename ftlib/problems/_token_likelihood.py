"""What problems share whose answer is the text itself: tokens at some places, as likely as the model finds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError
from ftlib.problems._places import labelled, rows_at_once
from ftlib.targets.losses import IGNORED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.targets.layout import Layout
    from ftlib.training.precision import Precision

GOLD, GOLD_LOG = "gold", "gold_log_probability"
TOP, TOP_LOG, TEXTS = "top", "top_log_probability", "top_text"
VOCABULARY = "vocabulary"
"""Columns of predictions. Lists, one value a place: the gold token (-1: unknown) and its log-probability. Lists, some
a place: the most probable tokens, best first, their log-probabilities, and their texts where a client asks for them."""


def predict_tokens(
    problem: Problem,
    checkpoint: Checkpoint,
    rows: pa.Table,
    *,
    num_candidates: int,
    with_texts: bool,
    precision: Precision,
    watch: Watch | None,
) -> pa.Table:
    """Return how likely a checkpoint finds the tokens at the labelled places, one line a row.

    Args:
        problem: Whose `forward` gives the logits of the labelled places.
        checkpoint: A language model.
        rows: Encoded rows with `labels`.
        num_candidates: Most probable tokens that are kept a place.
        with_texts: Whether their texts are kept, too.
        precision: What to compute in.
        watch: Called with every batch.
    """
    import pyarrow as pa

    row_ids, parts = _joined(rows, _read(problem, checkpoint, rows, num_candidates, precision, watch))
    lines: dict[str, Any] = {name: [part[name] for part in parts] for name in (GOLD, GOLD_LOG, TOP, TOP_LOG)}
    table = {
        "row_id": pa.array(row_ids, pa.int64()),
        GOLD: pa.array(lines[GOLD], pa.list_(pa.int32())),
        GOLD_LOG: pa.array(lines[GOLD_LOG], pa.list_(pa.float32())),
        TOP: pa.array(lines[TOP], pa.list_(pa.int32())),
        TOP_LOG: pa.array(lines[TOP_LOG], pa.list_(pa.float32())),
        VOCABULARY: pa.array([vocabulary_digest(checkpoint.tokenizer)] * len(parts), pa.string()),
    }
    if with_texts:
        table[TEXTS] = pa.array([_texts(ids, checkpoint.tokenizer) for ids in lines[TOP]], pa.list_(pa.string()))
    return pa.table(table)


def _read(
    problem: Problem, checkpoint: Checkpoint, rows: pa.Table, limit: int, precision: Precision, watch: Watch | None
) -> list[dict[str, np.ndarray]]:
    """Return what is kept of each row, batch by batch of similar length."""
    from ftlib.training.batches import Rows, reading_batches
    from ftlib.training.precision import reading

    model = checkpoint.model.eval()
    device = next(model.parameters()).device
    given = Rows.from_table(rows, checkpoint.tokenizer, problem)
    parts: list[dict[str, np.ndarray]] = [{}] * len(rows)
    for indices in reading_batches(given.lengths, rows_at_once(len(checkpoint.tokenizer))):
        with reading(precision, device):
            batch = {name: values.to(device) for name, values in given.batch(indices).items()}
            logits = problem.forward(model, batch).float()
        if watch:
            watch(batch, batch["input_ids"])
        for index, part in zip(indices.tolist(), _of_batch(logits, batch["labels"], limit), strict=True):
            parts[index] = part
    return parts


def _of_batch(logits: Any, labels: Any, limit: int) -> list[dict[str, np.ndarray]]:
    import numpy as np

    gold = labelled(labels)
    found = logits.log_softmax(-1)
    top_log, top = found.topk(min(limit, found.shape[-1]), dim=-1)
    gold_log = found.gather(1, gold.clamp_min(0)[:, None])[:, 0].masked_fill(gold < 0, 0.0)
    ends = np.cumsum((labels != IGNORED).sum(1).cpu().numpy())[:-1]
    values = {GOLD: gold, GOLD_LOG: gold_log, TOP: top, TOP_LOG: top_log}
    split = {name: np.split(value.cpu().numpy(), ends) for name, value in values.items()}
    return [{name: split[name][row].ravel() for name in split} for row in range(len(labels))]


def _joined(rows: pa.Table, parts: list[dict[str, np.ndarray]]) -> tuple[list[int], list[dict[str, np.ndarray]]]:
    """Return one line a row: what the lines of a long text hold, one after the other."""
    import numpy as np

    together: dict[int, list[dict[str, np.ndarray]]] = {}
    for row_id, part in zip(rows["row_id"].to_pylist(), parts, strict=True):
        together.setdefault(row_id, []).append(part)
    joined = [{name: np.concatenate([p[name] for p in lines]) for name in lines[0]} for lines in together.values()]
    return list(together), joined


def _texts(ids: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [str(tokenizer.decode([token])).strip() for token in ids.tolist()]


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of which token has which id; virtual tokens, which stand for no text, are left out."""
    from ftlib.models.virtual_tokens import name

    stem = name(0).partition("0")[0]
    known = sorted((i, token) for token, i in tokenizer.get_vocab().items() if not token.startswith(stem))
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


# -- members side by side ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Places:
    """A member's places, row after row.

    Attributes:
        counts: Places of each row.
        gold: Shape (num_places,).
        gold_log: The same.
        top: Shape (num_places, num_candidates).
        top_log: The same.
    """

    counts: np.ndarray
    gold: np.ndarray
    gold_log: np.ndarray
    top: np.ndarray
    top_log: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Places:
        """Return the places of a member's predictions."""
        import numpy as np
        import pyarrow.compute as pc

        def flat(name: str, kind: Any) -> np.ndarray:
            return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(kind)

        gold = flat(GOLD, np.int64)
        shape = (len(gold), -1) if len(gold) else (0, 1)
        counts = pc.list_value_length(table[GOLD]).to_numpy()
        return cls(
            counts.astype(np.int64),
            gold,
            flat(GOLD_LOG, np.float64),
            flat(TOP, np.int64).reshape(shape),
            flat(TOP_LOG, np.float64).reshape(shape),
        )


def align_tokens(predictions: Sequence[pa.Table]) -> tuple[np.ndarray, Layout]:
    """Return the members' probabilities of the same tokens at the same places: see `ftlib.targets.token_likelihood`.

    Raises:
        UnsupportedError: If the members have different vocabularies, or cut texts at other places.
    """
    import numpy as np
    import pyarrow as pa

    from ftlib.targets.layout import Layout
    from ftlib.targets.token_likelihood import PLACE, TEXT, TOKEN

    members = [Places.of(table) for table in predictions]
    check_alike(predictions, members)
    first = members[0]
    place, token, at = _units(members)
    values = np.zeros((len(members), len(place)))
    known = np.flatnonzero(first.gold >= 0)
    for row, member, found in zip(values, members, at, strict=True):
        row[found] = np.exp(member.top_log).ravel()
        row[token < 0] = np.exp(member.gold_log[known])
    row_of_place = np.repeat(np.arange(len(first.counts)), first.counts)
    counts = np.bincount(row_of_place[place], minlength=len(first.counts))
    units = {PLACE: pa.array(place), TOKEN: pa.array(token), "reference": _references(place, token, first.gold)}
    if TEXTS in predictions[0].column_names:
        units[TEXT] = _unit_texts(predictions, at, len(place))
    return values[..., None], Layout.of(counts, pa.table(units))


def check_alike(predictions: Sequence[pa.Table], members: Sequence[Places]) -> None:
    """Refuse members whose tokens cannot be compared (UnsupportedError)."""
    import numpy as np

    digests = {table[VOCABULARY][0].as_py() for table in predictions if len(table)}
    alike = all(
        np.array_equal(m.counts, members[0].counts) and np.array_equal(m.gold, members[0].gold) for m in members
    )
    if len(digests) > 1 or not alike:
        raise UnsupportedError(
            "members have different vocabularies, so their tokens cannot be compared; fuse stages of base models "
            "that share a tokenizer (`member: false` leaves a stage out)."
        )


def _units(members: Sequence[Places]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return each unit's place and token (-1: the gold one's unit), and where each member's candidates are among them.

    Units are in the order of places: the gold one's first, then candidates by falling mean probability.
    """
    import numpy as np

    num_places = len(members[0].gold)
    size = int(max((m.top.max(initial=0) for m in members), default=0)) + 2
    keys = [(np.arange(num_places)[:, None] * size + m.top + 1).ravel() for m in members]
    gold = np.flatnonzero(members[0].gold >= 0) * size
    every, inverse = np.unique(np.concatenate([gold, *keys]), return_inverse=True)
    mean = np.bincount(
        inverse[len(gold) :], weights=np.concatenate([np.exp(m.top_log).ravel() for m in members]), minlength=len(every)
    )
    place, token = every // size, every % size - 1
    order = np.lexsort((token, -mean, token >= 0, place))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    at = np.split(rank[inverse[len(gold) :]], np.cumsum([len(k) for k in keys])[:-1])
    return place[order], token[order], at


def _references(place: np.ndarray, token: np.ndarray, gold: np.ndarray) -> pa.Array:
    import numpy as np

    from ftlib.problems._learning import vectors
    from ftlib.targets.token_likelihood import IS_GOLD, IS_PLACE, QUALITY

    known = gold[place] >= 0
    columns = np.zeros((len(place), 3))
    columns[:, QUALITY] = known & ((token == gold[place]) | (token < 0))
    columns[:, IS_GOLD] = token < 0
    columns[:, IS_PLACE] = known & (token < 0)
    return vectors(columns)


def _unit_texts(predictions: Sequence[pa.Table], at: Sequence[np.ndarray], num_units: int) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    texts = np.full(num_units, "", dtype=object)
    for table, found in zip(predictions, at, strict=True):
        texts[found] = table[TEXTS].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return pa.array(texts, pa.string())
