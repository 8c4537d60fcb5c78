"""Full fine-tuning: every weight learns.

The strongest single strategy where there are some thousand labelled rows, and the yardstick for all others. With
a few hundred rows it varies from seed to seed more than strategies that train less; there, more epochs help.

Devlin et al. (2019), "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
https://arxiv.org/abs/1810.04805, section 4.1; on its stability: Mosbach et al. (2021),
https://arxiv.org/abs/2006.04884.
"""

from __future__ import annotations

from ftlib.strategies.base import Strategy


class Full(Strategy):
    """Every weight learns."""
