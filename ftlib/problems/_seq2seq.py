"""What problems share that an encoder-decoder learns: a text is read, another is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError, DataError
from ftlib.problems import _generation, _lockstep
from ftlib.problems._generation import Generation
from ftlib.targets.losses import IGNORED, PLAIN, LossShape, cross_entropy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import LogitsProcessor, PreTrainedTokenizerBase

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.ensembles import Ensemble
    from ftlib.models.forward import Watch
    from ftlib.problems.base import Problem
    from ftlib.targets.text_metrics import Quality
    from ftlib.training.precision import Precision

INPUTS = ("input_ids",)
TARGETS = ("labels", "teacher_labels")
PADDING = {"labels": IGNORED, "teacher_labels": IGNORED}

MOST_LOGITS = 1 << 25
"""Numbers that a model may write at once where nothing is learned: 128 MiB."""

ROWS_AT_ONCE = 64
TOKENS_AT_ONCE = 4096
"""Of one batch of texts to be generated, beams counted."""


# -- rows ----------------------------------------------------------------------------------------------


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, languages: Mapping[str, str | None]) -> None:
    """Refuse a tokenizer without an end of text, or without a language that is named (CheckpointError)."""
    name = type(tokenizer).__name__
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"{name} has no token that ends a text (eos_token), so no answer would end; choose an encoder-decoder's."
        )
    for field, language in languages.items():
        if language is None:
            continue
        if not hasattr(tokenizer, "src_lang"):
            raise CheckpointError(
                f"problem.{field}: {name} knows no languages; leave it out, or name an NLLB or mBART."
            )
        if tokenizer.convert_tokens_to_ids(language) in (None, tokenizer.unk_token_id):
            raise CheckpointError(f"problem.{field} {language!r}: {name} has no such language; write it as it does.")


def in_languages(tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer set to two languages, as NLLB and mBART have them; others as they are."""
    if source:
        tokenizer.src_lang = source  # type: ignore[attr-defined]
    if target:
        tokenizer.tgt_lang = target  # type: ignore[attr-defined]
    return tokenizer


def with_prefix(rows: pa.Table, column: str, prefix: str) -> pa.Table:
    """Return rows with an instruction before each text, such as T5's "summarize: "."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not prefix or column not in rows.column_names:
        return rows
    texts = pc.binary_join_element_wise(pa.scalar(prefix), pc.fill_null(rows[column].cast(pa.string()), ""), "")
    return rows.set_column(rows.column_names.index(column), column, texts)


def token_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> pa.Array:
    """Return texts as a decoder learns them, each with its end, list<int32>; longer ones cut."""
    import pyarrow as pa

    end = tokenizer.eos_token_id
    found = tokenizer(text_target=list(texts), truncation=True, max_length=limit, verbose=False)["input_ids"]
    ended = [ids if end in ids[-2:] else [*ids[: limit - 1], end] for ids in found]
    return pa.array(ended, pa.list_(pa.int32()))


def teach(
    rows: pa.Table,
    predictions: Sequence[pa.Table],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    utility: Quality,
    limit: int,
) -> pa.Table:
    """Return encoded rows with `teacher_labels`, the tokens of the text that the teachers give: see `lessons`."""
    if tokenizer is None:
        raise DataError("a teacher's texts are learned as the student's tokens; its tokenizer is needed.")
    return rows.append_column("teacher_labels", token_ids(_generation.lessons(predictions, utility), tokenizer, limit))


# -- the model -----------------------------------------------------------------------------------------


def forward(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the decoder's logits, given the texts it is to write up to each token.

    Where there is a teacher's text beside the gold one, both are read: the logits of the gold texts, then of the
    teacher's, shape (2 * batch_size, length, vocabulary).
    """
    import torch

    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = batch["labels"]
    if "teacher_labels" in batch:
        labels = stacked(labels, batch["teacher_labels"])
        inputs = {name: torch.cat((values, values)) for name, values in inputs.items()}
    written = model(**inputs, decoder_input_ids=shifted(model, labels), use_cache=False)
    return without_virtual(model, written.logits)


def shifted(model: Any, labels: Tensor) -> Tensor:
    """Return what the decoder has read when it writes each token: the texts, begun as the model begins them."""
    import torch

    from ftlib.models.layers import unwrapped

    inner = unwrapped(model)
    own = getattr(inner, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)
    start = torch.full_like(labels[:, :1], inner.config.decoder_start_token_id)
    return torch.cat((start, labels[:, :-1]), 1).masked_fill(labels == IGNORED, inner.config.pad_token_id)


def without_virtual(model: Any, logits: Tensor) -> Tensor:
    """Return logits in which virtual tokens, which stand for no text, cannot be written."""
    import torch

    from ftlib.models.virtual_tokens import attached

    virtual = attached(model)
    if virtual is None:
        return logits
    ids = torch.tensor(virtual.ids, device=logits.device)
    return logits.index_fill(-1, ids, torch.finfo(logits.dtype).min)


def stacked(one: Tensor, other: Tensor) -> Tensor:
    """Return two batches of labels as one, the shorter filled up."""
    import torch
    from torch.nn import functional as F

    length = max(one.shape[1], other.shape[1])
    return torch.cat([F.pad(labels, (0, length - labels.shape[1]), value=IGNORED) for labels in (one, other)])


def gold_part(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of the gold texts."""
    rows, length = batch["labels"].shape
    return logits[:rows, :length]


def teacher_part(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of the teacher's texts."""
    rows, length = batch["teacher_labels"].shape
    return logits[-rows:, :length]


def loss(logits: Tensor, labels: Tensor, shape: LossShape = PLAIN, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of the labels' tokens.

    Args:
        logits: Shape (batch_size, length, vocabulary_size).
        labels: Shape (batch_size, length).
        shape: How tokens count.
        smoothing: The problem's own label smoothing, where the shape asks for none: 0.1 for translation in Vaswani et
            al. (2017), https://arxiv.org/abs/1706.03762, section 5.4. Tokens that can never be said get no share.
    """
    if smoothing and not shape.label_smoothing:
        shape = replace(shape, label_smoothing=smoothing)
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), shape)


# -- reading and writing -------------------------------------------------------------------------------


def measure(problem: Problem, checkpoint: Checkpoint, rows: pa.Table, precision: Precision) -> dict[str, float]:
    """Return the loss a token of encoded rows, without smoothing; texts are not generated, which would be slow."""
    from ftlib.models.ensembles import Ensemble
    from ftlib.training.batches import Rows

    known, alone = Rows.from_table(rows, checkpoint.tokenizer, problem), Ensemble.alone(checkpoint)
    total, tokens = 0.0, 0
    for indices in _scoring_batches(known.lengths, known.lists["labels"].lengths, alone):
        found = log_probabilities(problem, alone, [known.batch(indices)], precision)
        total -= float(found.sum())
        tokens += int(known.lists["labels"].lengths[indices].sum())
    return {"loss": total / max(1, tokens)}


def _scoring_batches(read: np.ndarray, written: np.ndarray, ensemble: Ensemble) -> list[np.ndarray]:
    from ftlib.training.batches import reading_batches

    words = int(getattr(ensemble.first.model.config, "vocab_size", 1 << 15)) * len(ensemble.checkpoints)
    longest = int(written.max(initial=1))
    return reading_batches(read + written, max_rows=max(1, min(256, MOST_LOGITS // (words * longest))))


def log_probabilities(
    problem: Problem, ensemble: Ensemble, batches: Sequence[Mapping[str, Tensor]], precision: Precision
) -> Tensor:
    """Return the log-probability of each row's labels by the models' mean, summed, shape (batch_size,).

    Args:
        problem: Whose `forward` gives the logits.
        ensemble: The models.
        batches: What each one reads, the same labels in all.
        precision: What to compute in.
    """
    from torch.nn import functional as F

    from ftlib.training.precision import reading

    found = []
    for checkpoint, batch in zip(ensemble.checkpoints, batches, strict=True):
        model = checkpoint.model.eval()
        device = next(model.parameters()).device
        batch = {name: values.to(device) for name, values in batch.items()}
        with reading(precision, device):
            found.append(problem.forward(model, batch).float())
    logits, labels = ensemble.mixed(found), batches[0]["labels"].to(found[0].device)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -losses.view(labels.shape).sum(1)


def predict(
    problem: Problem,
    ensemble: Ensemble,
    rows: Sequence[pa.Table],
    settings: Generation,
    *,
    limit: int,
    language: str | None = None,
    precision: Precision,
    watch: Watch | None,
) -> pa.Table:
    """Return what models write together for encoded rows: row_id, texts and their support, best first.

    Args:
        problem: Whose `forward` gives the logits of texts.
        ensemble: One model or several.
        rows: What each one reads: the same rows, encoded.
        settings: How texts are generated.
        limit: Most tokens of a text.
        language: What every text is in, as the tokenizer writes it.
        precision: What to compute in.
        watch: Called with every batch.
    """
    from ftlib.training.batches import Rows, reading_batches

    known = [
        Rows.from_table(table.select(["row_id", *INPUTS]), checkpoint.tokenizer, problem)
        for table, checkpoint in zip(rows, ensemble.checkpoints, strict=True)
    ]
    found: list[Any] = [None] * len(rows[0])
    times = settings.num_candidates if settings.do_sample else settings.num_beams
    sizes = {"max_tokens": max(1, TOKENS_AT_ONCE // times), "max_rows": max(1, ROWS_AT_ONCE // times)}
    for indices in reading_batches(known[0].lengths, **sizes):
        batches = [each.batch(indices) for each in known]
        told = _candidates(problem, ensemble, batches, settings, limit, language, precision)
        for place, row in zip(indices, told, strict=True):
            found[place] = row
        if watch:
            watch(batches[0], batches[0]["input_ids"])
    return _generation.predictions_table(rows[0]["row_id"], found)


def _candidates(
    problem: Problem,
    ensemble: Ensemble,
    batches: Sequence[Mapping[str, Tensor]],
    settings: Generation,
    limit: int,
    language: str | None,
    precision: Precision,
) -> list[tuple[list[str], list[float]]]:
    """Return each row's distinct texts and their support."""
    import numpy as np

    tokenizer = ensemble.first.tokenizer
    written = _write(ensemble, batches, settings, limit, language, precision)
    labels = _labels(written[:, 1:], tokenizer.eos_token_id)
    texts = [text.strip() for text in tokenizer.batch_decode(
        written, skip_special_tokens=True, clean_up_tokenization_spaces=False)]  # fmt: skip
    times = settings.num_candidates
    repeated = [{name: values.repeat_interleave(times, 0) for name, values in batch.items()} for batch in batches]
    logs = _scored(problem, ensemble, [{**batch, "labels": labels} for batch in repeated], precision)
    lengths = (labels != IGNORED).sum(1).cpu().numpy()
    starts = np.arange(0, len(texts), times)
    return [
        _generation.weighed(texts[i : i + times], logs[i : i + times], lengths[i : i + times], settings)
        for i in starts.tolist()
    ]


def _write(
    ensemble: Ensemble,
    batches: Sequence[Mapping[str, Tensor]],
    settings: Generation,
    limit: int,
    language: str | None,
    precision: Precision,
) -> Tensor:
    """Return the tokens of each row's candidates, begun as the first model begins them."""
    import torch

    from ftlib.models.layers import unwrapped
    from ftlib.training.precision import autocast, resolve

    first: Any = ensemble.first.tokenizer.convert_tokens_to_ids(language) if language else None
    end = unwrapped(ensemble.first.model).generation_config.eos_token_id  # type: ignore[union-attr]

    def write(number: int, *, last: LogitsProcessor | None = None, follows: bool = False) -> Tensor:
        model = ensemble.checkpoints[number].model.eval()
        device = next(model.parameters()).device
        batch = {name: values.to(device) for name, values in batches[number].items()}
        more = {"eos_token_id": end} if follows else None
        with torch.inference_mode(), autocast(resolve(precision), device):
            return _generation.generate(
                model, batch, settings, limit=limit, first=first, more=more, last=last, follows=follows
            )

    return _lockstep.written(ensemble, write)


def _labels(written: Tensor, end: int) -> Tensor:
    """Return generated tokens as labels: what follows a text's first end counts for nothing."""
    ends = written.eq(end).int()
    after = (ends.cumsum(1) - ends) > 0
    return written.masked_fill(after, IGNORED)


def _scored(
    problem: Problem, ensemble: Ensemble, batches: Sequence[Mapping[str, Tensor]], precision: Precision
) -> np.ndarray:
    """Return texts' log-probabilities, float64, as many at a time as memory allows."""
    import numpy as np

    size = len(batches[0]["labels"])
    lengths = np.full(size, batches[0]["input_ids"].shape[1]), np.full(size, batches[0]["labels"].shape[1])
    logs = np.empty(size)
    for indices in _scoring_batches(*lengths, ensemble):
        parts = [{name: values[indices] for name, values in batch.items()} for batch in batches]
        logs[indices] = log_probabilities(problem, ensemble, parts, precision).cpu().numpy()
    return logs
