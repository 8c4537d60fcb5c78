"""What problems whose answers are generated texts share: how texts are searched or drawn, kept, aligned and told.

A model's candidates for a row come with a support each: the share of the candidate among them, by their
probabilities (or how often it was drawn), times how sure the model is in this row (the geometric mean of its best
text's token probabilities). So a model alone answers with its best text, and of several the sure one counts for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ftlib.errors import ArtifactError
from ftlib.plugins import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import LogitsProcessor

    from ftlib.targets.layout import Layout
    from ftlib.targets.text_metrics import Quality
    from ftlib.targets.texts import Texts

DRAW_ORDER = 1e-3
"""What part of one draw is dealt by probability: enough to break ties, too little to outweigh a draw."""

TOLD = 5
"""Candidates that a client is told of a row."""


class Generation(Section):
    """How texts are generated. The defaults are the cheapest: one text, the most probable token at each step."""

    num_beams: int = Field(1, ge=1, le=64)
    """Beam search: texts followed at once. 1 is greedy; 4 or 5 is usual for translation, and as many times the work."""

    num_candidates: int = Field(1, ge=1, le=1024)
    """Texts kept of each row, for fusions to choose from: at most num_beams, but with do_sample."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Longest text in tokens; the problem's longest answer unless given."""

    min_new_tokens: int = Field(0, ge=0)
    """Shortest text in tokens."""

    length_penalty: float = 1.0
    """Power of the length that a text's log-probability is divided by: above 1 favours long texts (beam search)."""

    no_repeat_ngram_size: int = Field(0, ge=0)
    """No run of so many tokens occurs twice in a text; 0 allows any. 3 is usual for summaries."""

    do_sample: bool = False
    """Draw texts at random rather than search for the most probable."""

    temperature: float = Field(1.0, gt=0)
    """With do_sample: above 1 draws more widely."""

    top_p: float = Field(1.0, gt=0, le=1)
    """With do_sample: draw from the fewest tokens that have this probability together; 1 from all."""

    seed: int = Field(0, ge=0)
    """With do_sample: what is drawn is a function of this and of the row's tokens alone."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.do_sample and self.num_candidates > self.num_beams:
            raise PydanticCustomError(
                "num_candidates",
                "num_candidates {wanted} is more than num_beams {beams}; raise num_beams, or set do_sample: true",
                {"wanted": self.num_candidates, "beams": self.num_beams},
            )
        if self.do_sample and self.num_beams > 1:
            raise PydanticCustomError("num_beams", "num_beams and do_sample exclude each other; leave one out", {})
        return self


# -- generating ----------------------------------------------------------------------------------------


def generate(
    model: Any,
    inputs: Mapping[str, Tensor],
    settings: Generation,
    *,
    limit: int,
    first: int | None = None,
    more: Mapping[str, Any] | None = None,
    last: LogitsProcessor | None = None,
    follows: bool = False,
) -> Tensor:
    """Return a model's candidates, token ids as transformers' `generate` gives them.

    Args:
        model: A transformers model that generates, or a peft one around it; virtual tokens are inserted once.
        inputs: input_ids and attention_mask.
        settings: How.
        limit: Most new tokens, unless the settings say.
        first: The token that every text begins with, such as a language's.
        more: Further arguments of transformers' `generate`, such as eos_token_id; those that are None are left out.
        last: What is done with the scores of the next tokens after all else.
        follows: Whether another model decides, by `last`: then nothing is drawn here, and no search ends of itself
            before the other one's.

    Returns:
        Shape (batch_size * num_candidates, length), a row's candidates one after the other.
    """
    from transformers import LogitsProcessorList

    from ftlib.models.checkpoints import quiet
    from ftlib.models.virtual_tokens import attach, attached, detach, inserted

    virtual = attached(model)
    given: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    rows, real = given["input_ids"], given["attention_mask"] > 0
    if virtual:
        given = inserted(given, virtual)
        given["suppress_tokens"] = list(virtual.ids)
        detach(model)  # the hook would insert them again into what has them already
    if first is not None:
        given["forced_bos_token_id"] = first
    given |= {name: value for name, value in (more or {}).items() if value is not None}
    processors: list[LogitsProcessor] = []
    if settings.do_sample:
        given = {k: _repeated(v, settings.num_candidates) for k, v in given.items()}
        processors += [] if follows else _drawing([row[kept] for row, kept in zip(rows, real, strict=True)], settings)
    else:
        given |= {"num_beams": settings.num_beams, "num_return_sequences": settings.num_candidates}
        given |= {"early_stopping": "never"} if follows and settings.num_beams > 1 else {}
    try:
        with quiet():
            return model.generate(
                **given,
                logits_processor=LogitsProcessorList([*processors, *([last] if last else [])]),
                do_sample=False,
                use_cache=True,
                max_length=None,
                max_new_tokens=settings.max_new_tokens or limit,
                min_new_tokens=settings.min_new_tokens or None,
                length_penalty=settings.length_penalty,
                no_repeat_ngram_size=settings.no_repeat_ngram_size,
            )
    finally:
        if virtual:
            attach(model, virtual)


def _repeated(value: Any, times: int) -> Any:
    return value.repeat_interleave(times, 0) if hasattr(value, "repeat_interleave") else value


def _drawing(rows: list[Tensor], settings: Generation) -> list[LogitsProcessor]:
    """Return what makes greedy search draw: noise on the logits, by which the highest one is a draw from them.

    Not transformers' own sampling, which draws from one stream for a whole batch: then what a row is answered would
    depend on the rows beside it. The Gumbel-max trick: Maddison et al. (2014), https://arxiv.org/abs/1411.0030.
    """
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    chosen: list[LogitsProcessor] = []
    if settings.temperature != 1:
        chosen.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_p < 1:
        chosen.append(TopPLogitsWarper(settings.top_p))
    return [*chosen, _noise(rows, settings)]


def _noise(rows: list[Tensor], settings: Generation) -> LogitsProcessor:
    import zlib

    import numpy as np
    import torch
    from transformers import LogitsProcessor

    keys = [zlib.crc32(row.cpu().numpy().astype(np.int32).tobytes()) for row in rows]
    streams = [np.random.default_rng([settings.seed, key, n]) for key in keys for n in range(settings.num_candidates)]

    class Noise(LogitsProcessor):
        """Adds every text's own noise."""

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            """Return perturbed scores."""
            drawn = np.stack([stream.gumbel(size=scores.shape[1]) for stream in streams])
            return scores + torch.from_numpy(drawn).to(scores)

    return Noise()


# -- predictions ---------------------------------------------------------------------------------------


def weighed(
    texts: Sequence[str], log_probabilities: np.ndarray, lengths: np.ndarray, settings: Generation
) -> tuple[list[str], list[float]]:
    """Return one row's distinct texts, best first, and their support: see the module's docstring.

    Args:
        texts: The candidates.
        log_probabilities: Of each whole text, shape (num_candidates,).
        lengths: Their tokens.
        settings: How they were generated.
    """
    import numpy as np
    from scipy.special import softmax

    lengths = np.maximum(lengths, 1)
    best = int(np.argmax(log_probabilities / lengths**settings.length_penalty))
    # On the scale of whole texts, so that shares are as sharp as the model is; in the order of beam search.
    shares = softmax(log_probabilities * (lengths[best] / lengths) ** settings.length_penalty)
    if settings.do_sample:
        shares = (1 + DRAW_ORDER * shares) / (len(texts) + DRAW_ORDER)
    sure = float(np.exp(log_probabilities[best] / lengths[best]))
    summed: dict[str, float] = {}
    for text, share in zip(texts, shares.tolist(), strict=True):
        summed[text] = summed.get(text, 0.0) + share * sure
    ordered = sorted(summed.items(), key=lambda item: (-item[1], item[0]))
    return [text for text, _ in ordered], [share for _, share in ordered]


def predictions_table(row_ids: pa.ChunkedArray, found: Sequence[tuple[list[str], list[float]]]) -> pa.Table:
    """Return the predictions artifact: row_id, texts (best first) and their support."""
    import pyarrow as pa

    return pa.table(
        {
            "row_id": row_ids,
            "texts": pa.array([texts for texts, _ in found], pa.list_(pa.string())),
            "support": pa.array([support for _, support in found], pa.list_(pa.float32())),
        }
    )


def align(predictions: Sequence[pa.Table]) -> tuple[np.ndarray, Layout]:
    """Return the members' support of all distinct texts of each row: see `ftlib.targets.texts.candidates`.

    Raises:
        ArtifactError: If predictions hold no texts, or support that is not finite.
    """
    import numpy as np

    from ftlib.targets.texts import candidates

    for table in predictions:
        if not {"texts", "support"} <= set(table.column_names):
            raise ArtifactError(f"predictions hold {', '.join(table.column_names)}; expected texts and support.")
    values, layout = candidates(
        [list(zip(t["texts"].to_pylist(), t["support"].to_pylist(), strict=True)) for t in predictions]
    )
    if broken := int((~np.isfinite(values)).sum()):
        raise ArtifactError(
            f"predictions: {broken:,} texts have support that is not finite: the member's training diverged. "
            "Lower its learning_rate."
        )
    return values, layout


def lessons(predictions: Sequence[pa.Table], utility: Quality) -> list[str]:
    """Return the text of each row that a student learns: one teacher's best, or of several the one in the middle.

    Kim & Rush (2016), "Sequence-Level Knowledge Distillation", https://aclanthology.org/D16-1139, section 3.2; with
    several teachers, minimum Bayes risk over their candidates.
    """
    from ftlib.targets.text_metrics import expected_utility

    if len(predictions) == 1:
        return [texts[0] for texts in predictions[0]["texts"].to_pylist()]
    values, layout = align(predictions)
    texts, mean = layout.units["text"].to_pylist(), values[..., 0].mean(0)  # type: ignore[index]
    ends = zip(layout.splits[:-1].tolist(), layout.splits[1:].tolist(), strict=True)
    return [texts[a + int(expected_utility(texts[a:b], mean[a:b], utility).argmax())] for a, b in ends]


def answers(scores: np.ndarray, target: Texts) -> dict[str, Sequence[Any]]:
    """Return what a client is told: prediction, score, and alternatives (text and score each, best first)."""
    ranked = target.ranked(scores, TOLD)
    return {
        "prediction": [row[0][0] if row else "" for row in ranked],
        "score": [row[0][1] if row else 0.0 for row in ranked],
        "alternatives": [[{"text": text, "score": score} for text, score in row[1:]] for row in ranked],
    }
