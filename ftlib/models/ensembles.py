"""Ensembles: several models that answer together, by the mean of what each would say of the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from ftlib.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftlib.fusion.base import Joint, Mean
    from ftlib.models.checkpoints import Checkpoint


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models with one vocabulary, each opened by itself.

    Attributes:
        checkpoints: The models; the first one's settings, such as when a search ends, hold for all.
        shares: Each one's weight, above 0; they sum to 1.
        mean: What is averaged: see `mixed`.
        virtual: The ids of each one's virtual tokens, which stand for no text.
    """

    checkpoints: tuple[Checkpoint, ...]
    shares: tuple[float, ...] = (1.0,)
    mean: Mean = "arithmetic"
    virtual: tuple[tuple[int, ...], ...] = ((),)

    @classmethod
    def alone(cls, checkpoint: Checkpoint) -> Ensemble:
        """Return one model as an ensemble of its own."""
        return cls((checkpoint,))

    @classmethod
    def of(cls, members: Mapping[str, Checkpoint], joint: Joint) -> Ensemble:
        """Return members as a fusion has them answer.

        Args:
            members: Name -> model; those with a share, in their order.
            joint: How they answer.

        Raises:
            UnsupportedError: If their vocabularies differ.
        """
        check_vocabularies({name: one.tokenizer for name, one in members.items()}, asked_by=joint.fusion)
        checkpoints = tuple(members.values())
        shares = tuple(joint.shares[i] for i in joint.used)
        return cls(checkpoints, shares, joint.mean, tuple(_virtual_ids(one) for one in checkpoints))

    @property
    def first(self) -> Checkpoint:
        """The model that the others follow."""
        return self.checkpoints[0]

    def mixed(self, logits: Sequence[Tensor]) -> Tensor:
        """Return logits whose softmax is the mean of the models' distributions, the logits of one model as they are.

        The arithmetic mean of probabilities, or the geometric one (of log-probabilities, normalised anew), in float32.
        Columns that not every model has are those of virtual tokens, or stand for nothing: they cannot be said.

        Args:
            logits: One a model, shape (..., its vocabulary size).

        Returns:
            As wide as the first model's.
        """
        import torch
        from torch.nn import functional as F

        if len(logits) == 1:
            return logits[0]
        never = torch.finfo(torch.float32).min
        width, size = logits[0].shape[-1], min(one.shape[-1] for one in logits)
        total = None
        for one, share, virtual in zip(logits, self.shares, self.virtual, strict=True):
            ids = torch.tensor(virtual, dtype=torch.long, device=one.device)
            said = one.float().index_fill(-1, ids, never).log_softmax(-1)[..., :size]
            if self.mean == "geometric":
                total = share * said if total is None else total + share * said
            else:
                total = said + log(share) if total is None else torch.logaddexp(total, said + log(share))
        known = sorted({i for ids in self.virtual for i in ids if i < size})
        ids = torch.tensor(known, dtype=torch.long, device=logits[0].device)
        return F.pad(total.index_fill(-1, ids, never), (0, width - size), value=never)  # type: ignore[union-attr]


def check_vocabularies(tokenizers: Mapping[str, PreTrainedTokenizerBase], *, asked_by: str) -> None:
    """Refuse members whose tokens differ: the same id would stand for different pieces of text.

    Args:
        tokenizers: Member -> its tokenizer; virtual tokens do not count.
        asked_by: The fusion that needs one vocabulary.

    Raises:
        UnsupportedError: If they differ.
    """
    known = {name: _vocabulary(tokenizer) for name, tokenizer in tokenizers.items()}
    first = next(iter(known))
    for name, vocabulary in known.items():
        if vocabulary != known[first]:
            shared = len(vocabulary.items() & known[first].items())
            raise UnsupportedError(
                f"{asked_by} needs members that share a vocabulary: {first!r} has {len(known[first]):,} tokens and "
                f"{name!r} {len(vocabulary):,}, of which {shared:,} are the same. Give their stages one base_model, "
                "or use minimum_bayes_risk, which compares whole texts."
            )


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    from ftlib.models.virtual_tokens import is_name

    return {token: i for token, i in tokenizer.get_vocab().items() if not is_name(token)}


def _virtual_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    from ftlib.models.virtual_tokens import attached

    virtual = attached(checkpoint.model)
    return virtual.ids if virtual else ()
