"""What a teacher's layers make of the training rows, computed once and kept as files that students read where they lie.

In bfloat16: `hidden.bin` holds, token after token, a vector for each kept layer; `attention.bin`, row after row, the
scores of every head between all of the row's tokens. That is 2 x hidden_size bytes a token and layer, and
2 x num_heads x length bytes a token and block: of SST-2's rows, four layers of MiniLM take 3 KiB a token, and the
scores of three blocks another 2 KiB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ftlib.errors import ArtifactError, UnsupportedError
from ftlib.files import read_json, write_json
from ftlib.models.layers import block_list
from ftlib.models.observing import Observer, hidden_size, num_heads
from ftlib.training import mapped
from ftlib.training.batches import Rows, reading_batches

if TYPE_CHECKING:
    import pyarrow as pa

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Lesson

HIDDEN, ATTENTION, INDEX = "hidden.bin", "attention.bin", "states.json"
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Shape:
    """What was kept of a teacher.

    Attributes:
        num_blocks: How many blocks the teacher has.
        layers: Which layers' hidden states are kept, ascending, 0 for the embeddings; () for none.
        blocks: Which blocks' attention scores, from 1.
        hidden_size: Numbers of a hidden state.
        num_heads: Heads of a block.
    """

    num_blocks: int
    layers: tuple[int, ...]
    blocks: tuple[int, ...]
    hidden_size: int
    num_heads: int

    @classmethod
    def of(cls, model: object, lesson: Lesson) -> Shape:
        """Return what a student needs of this teacher."""
        num_blocks = len(block_list(model))  # type: ignore[arg-type]
        chosen = layer_map(lesson.num_blocks or num_blocks, num_blocks)
        layers = tuple(sorted(set(chosen))) if lesson.hidden else ()
        blocks = tuple(sorted(set(chosen[1:]))) if lesson.attention else ()
        return cls(num_blocks, layers, blocks, hidden_size(model), num_heads(model))

    def num_values(self, lengths: np.ndarray) -> tuple[int, np.ndarray]:
        """Return how many numbers a token has in one file, and each row in the other."""
        return len(self.layers) * self.hidden_size, len(self.blocks) * self.num_heads * lengths**2


def layer_map(num_student_blocks: int, num_teacher_blocks: int) -> tuple[int, ...]:
    """Return which teacher layer each student layer imitates, from the embeddings up: evenly spaced, last with last.

    Jiao et al. (2020), "TinyBERT", https://arxiv.org/abs/1909.10351, section 3.1: g(m), uniform.
    """
    student, teacher = num_student_blocks, num_teacher_blocks
    return tuple((2 * m * teacher + student) // (2 * student) for m in range(student + 1))


class Kept:
    """The files, open.

    Args:
        folder: Where they are.
        shape: What they hold.
        lengths: Tokens of each row, in order.
        is_new: Whether they are made here.
    """

    def __init__(self, folder: Path, shape: Shape, lengths: np.ndarray, *, is_new: bool = False) -> None:
        self.shape, self.lengths = shape, lengths.astype(np.int64)
        width, areas = shape.num_values(self.lengths)
        self.starts, self.corners = (_starts(sizes) for sizes in (self.lengths, areas))
        access = mapped.created if is_new else mapped.opened
        self.hidden_states, self.scores = None, None
        if shape.layers:
            self.hidden_states = access(folder / HIDDEN, (int(self.starts[-1]), width), DTYPE)
        if shape.blocks:
            self.scores = access(folder / ATTENTION, (int(self.corners[-1]),), DTYPE)

    def write(self, rows: Tensor, real: Tensor, observer: Observer) -> None:
        """Note what a teacher's layers made of a batch of rows; `real` says which places are tokens."""
        check_places(observer.shape, real, "teacher")
        if self.hidden_states is not None:
            states = torch.stack([observer.states[layer] for layer in self.shape.layers], dim=2)
            values = states.cpu()[real].flatten(1).to(DTYPE)
            self.hidden_states[mapped.token_places(self.starts, rows, real)] = values
        if self.scores is not None:
            scores = torch.stack([observer.scores(block) for block in self.shape.blocks], dim=1).cpu()
            for row, found, (first, length) in zip(rows.tolist(), scores, _spans(real), strict=True):
                square = found[..., first : first + length, first : first + length]
                self.scores[self.corners[row] : self.corners[row + 1]] = square.flatten().to(DTYPE)

    def hidden(self, rows: Tensor, real: Tensor) -> dict[int, Tensor]:
        """Return layer -> the teacher's hidden states of the batch's tokens, shape (num_tokens, hidden_size)."""
        assert self.hidden_states is not None
        values = self.hidden_states[mapped.token_places(self.starts, rows, real)].float()
        return dict(zip(self.shape.layers, values.unflatten(1, (-1, self.shape.hidden_size)).unbind(1), strict=True))

    def attention(self, rows: Tensor, real: Tensor) -> dict[int, Tensor]:
        """Return block -> the teacher's scores, shape (batch_size, num_heads, length, length); 0 beside tokens."""
        assert self.scores is not None
        shape = (len(self.shape.blocks), self.shape.num_heads)
        filled = torch.zeros(len(rows), *shape, real.shape[1], real.shape[1])
        for row, line, (first, length) in zip(rows.tolist(), filled, _spans(real), strict=True):
            square = self.scores[self.corners[row] : self.corners[row + 1]].view(*shape, length, length)
            line[..., first : first + length, first : first + length] = square
        return dict(zip(self.shape.blocks, filled.unbind(1), strict=True))


class Writer:
    """Watches a model that reads rows once; while the context is open.

    Args:
        model: The teacher.
        rows: What it reads.
        folder: Where the files go.
        shape: What is kept.
    """

    def __init__(self, model: object, rows: Rows, folder: Path, shape: Shape) -> None:
        self.observer = Observer(model, hidden=shape.layers, attention=shape.blocks)
        self.rows, self.folder = rows, folder
        self.kept = Kept(folder, shape, rows.input_ids.lengths, is_new=True)
        self.batches = iter(reading_batches(rows.lengths))

    @classmethod
    def of(cls, checkpoint: Checkpoint, rows: pa.Table, problem: Problem, folder: Path, lesson: Lesson) -> Writer:
        """Return what writes down a teacher's layers as it reads encoded rows.

        Raises:
            UnsupportedError: If they cannot be imitated.
        """
        read = Rows.from_table(rows, checkpoint.tokenizer, problem)
        return cls(checkpoint.model, read, folder, Shape.of(checkpoint.model, lesson))

    def __enter__(self) -> Writer:
        """Begin to observe."""
        self.observer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Say what the files hold."""
        self.observer.__exit__(*error)
        write_json(self.folder / INDEX, {"tokens": _digest(self.rows), "shape": asdict(self.kept.shape)})

    def __call__(self, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        """Write what the layers made of the batch that the model has just read."""
        indices = next(self.batches)
        expected = self.rows.batch(indices)
        if not torch.equal(batch["input_ids"].cpu(), expected["input_ids"]):
            raise UnsupportedError("the teacher reads other lines than its rows: its layers cannot be kept by row.")
        self.kept.write(torch.from_numpy(indices), expected["attention_mask"].bool(), self.observer)
        self.observer.clear()

    def figures(self) -> dict[str, float]:
        """Return what was kept: "kept_bytes", and "kept_bytes_per_token"."""
        held = [part for part in (self.kept.hidden_states, self.kept.scores) if part is not None]
        total = float(sum(part.numel() * part.element_size() for part in held))
        return {"kept_bytes": total, "kept_bytes_per_token": total / max(1, int(self.kept.starts[-1]))}


def read(folder: Path, rows: Rows) -> Kept:
    """Open what `Writer` wrote of these rows.

    Raises:
        ArtifactError: If there is nothing, or it is of other tokens.
    """
    if not (folder / INDEX).is_file():
        raise ArtifactError(f"{folder} holds nothing of a teacher's layers; run its describe step again.")
    index = read_json(folder / INDEX)
    if index["tokens"] != _digest(rows):
        raise ArtifactError("the teacher's layers were kept of other tokens than the student reads; run again.")
    lists = {name: tuple(index["shape"][name]) for name in ("layers", "blocks")}
    return Kept(folder, Shape(**{**index["shape"], **lists}), rows.input_ids.lengths)


def _digest(rows: Rows) -> str:
    return hashlib.sha256(rows.input_ids.flat.tobytes() + rows.input_ids.starts.tobytes()).hexdigest()


def _starts(sizes: np.ndarray) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _spans(real: Tensor) -> list[tuple[int, int]]:
    """Return where each row's tokens begin in a batch, and how many they are."""
    return list(zip(real.int().argmax(1).tolist(), real.sum(1).tolist(), strict=True))


def check_places(read: Sequence[int], real: Tensor, who: str) -> None:
    """Refuse a model that reads other lines than its rows' tokens (UnsupportedError)."""
    if tuple(read) != tuple(real.shape):
        found, expected = (" x ".join(map(str, shape)) for shape in (read, real.shape))
        raise UnsupportedError(
            f"the {who} reads {found} tokens where its rows have {expected}: "
            f"virtual tokens or the like stand between; set hidden_weight and attention_weight to 0, or take a {who} "
            "without them."
        )
