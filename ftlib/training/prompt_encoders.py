"""Networks that make the embeddings of virtual tokens while these are trained; afterwards only what they made is kept.

The layers are peft's; its own prompt encoder puts what it makes before the whole input, so only they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from ftlib.training.embeddings import RowEmbedding

Kind = Literal["mlp", "lstm"]


class PromptEncoder(nn.Module):
    """Makes embeddings out of trainable vectors, all in float32.

    Args:
        lstm: Reads the vectors in both directions; None: each is made by itself.
        mlp: What follows.
    """

    def __init__(self, lstm: nn.LSTM | None, mlp: nn.Module) -> None:
        super().__init__()
        self.lstm, self.mlp = lstm, mlp

    def forward(self, vectors: Tensor) -> Tensor:
        """Return embeddings, shape (num_virtual_tokens, hidden_size), of as many vectors."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self.mlp(vectors if self.lstm is None else self.lstm(vectors)[0])


def make_rows(embedding: RowEmbedding, kind: Kind, hidden_size: int | None) -> None:
    """Let a network make the rows of word embeddings that learn; its weights and its input learn in their place.

    Args:
        embedding: Changed in place; `embedding.rows` is what the network makes, at each forward pass.
        kind: A multilayer perceptron, or a bidirectional LSTM with one on top.
        hidden_size: The network's width, of the LSTM in each direction; None: that of the embeddings.
    """
    from peft import PromptEncoder as Layers
    from peft import PromptEncoderConfig

    number, width = embedding.rows.shape
    config = PromptEncoderConfig(
        num_virtual_tokens=number,
        token_dim=width,
        num_transformer_submodules=1,
        encoder_reparameterization_type=kind.upper(),  # type: ignore[arg-type]
        encoder_hidden_size=hidden_size or width,  # type: ignore[arg-type]
    )
    layers = Layers(config)
    with torch.no_grad():
        embedding.rows.copy_(layers.embedding.weight)
    network = PromptEncoder(getattr(layers, "lstm_head", None), layers.mlp_head)
    parametrize.register_parametrization(embedding, "rows", network.to(embedding.rows.device))
