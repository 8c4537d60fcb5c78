"""What a step costs in the word embeddings: every row in use moved, or those that the batch reads (`lazy_rows`).

    python -m benchmarks.word_embeddings
    python -m benchmarks.word_embeddings --rows 20000 --width 768

Rows are read as often as words are in a language (Zipf's law). A step reads them, takes a gradient back to them, clips
it and moves them: milliseconds of processor time, the median over the steps; both ways in turns. Beside it: how far the
two ways end apart, root of the mean square and the largest, where one step moves a weight by up to the rate, 1e-3.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from ftlib.training.embeddings import RowEmbedding
from ftlib.training.lazy_rows import LazyAdamW

RATE = 1e-3


def main() -> None:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 10_000, 20_000, 40_000], help="in use")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=1_024, help="read by a step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'rows':>8}{'read':>7}{'dense ms':>10}{'lazy ms':>9}{'ratio':>7}  apart: {'mean':>8}{'largest':>9}")
    for num_rows in options.rows:
        print(_line(num_rows, options), flush=True)


def _line(num_rows: int, options: argparse.Namespace) -> str:
    kinds = [_Kind(num_rows, options.width, options.steps, lazy=lazy) for lazy in (False, True)]
    frequencies = 1 / torch.arange(1, num_rows + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    num_read = []
    for number in range(options.steps):
        ids = torch.multinomial(frequencies, options.tokens, replacement=True, generator=generator).view(32, -1)
        gradient = torch.randn(*ids.shape, options.width, generator=generator) * 1e-3
        num_read.append(len(ids.unique()))
        for kind in kinds:
            kind.step(ids, gradient, RATE * (1 - number / options.steps))
    dense, lazy = (statistics.median(kind.seconds) * 1e3 for kind in kinds)
    apart = (kinds[0].embedding.merged() - kinds[1].embedding.merged()).abs()
    return (
        f"{num_rows:>8,}{statistics.median(num_read):>7.0f}{dense:>10.2f}{lazy:>9.2f}{dense / lazy:>7.2f}"
        f"         {apart.square().mean().sqrt():>8.0e}{apart.max():>9.0e}"
    )


class _Kind:
    """One of the two ways: its embedding, its optimizer and the seconds of its steps."""

    def __init__(self, num_rows: int, width: int, max_steps: int, *, lazy: bool) -> None:
        torch.manual_seed(0)
        self.embedding = RowEmbedding(nn.Embedding(num_rows, width), torch.arange(num_rows)).train()
        self.embedding.covers_all = True
        groups = [{"params": [self.embedding.rows], "lr": RATE, "weight_decay": 0.01}]
        self.optimizer = (
            LazyAdamW(groups, RATE, self.embedding, max_steps) if lazy else torch.optim.AdamW(groups, fused=True)
        )
        self.seconds: list[float] = []

    def step(self, ids: Tensor, gradient: Tensor, rate: float) -> None:
        """Take a step with the gradient that what was read has."""
        self.optimizer.param_groups[0]["lr"] = rate
        started = time.process_time()
        self.embedding.begin_step()
        self.embedding(ids).backward(gradient)
        nn.utils.clip_grad_norm_([self.embedding.rows, *self.embedding.in_their_stead()], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.process_time() - started)


if __name__ == "__main__":
    main()
