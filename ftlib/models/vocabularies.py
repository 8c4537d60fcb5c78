"""Tokenizers for untrained models: laid out as each family's own, their vocabulary learned from given texts.

Byte-level families read any text without an unknown token. BERT and DistilBERT have WordPiece, as the published
ones do: letters of the Latin, Greek and Cyrillic alphabets, digits and signs are known; what lies beyond is [UNK].
Equal texts give equal tokenizers, byte for byte.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception("unknown role '" ~ message['role'] ~ "'; expected system, user or assistant") -}}
{%- endif -%}
{{- '<|' ~ message['role'] ~ '|>' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] ~ '<|end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] ~ '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""A turn is its role's mark, what was said, and <|end|>; the answer with its <|end|> is what a model learns."""

ALPHABET_RANGES = ((0x21, 0x7F), (0xA1, 0x180), (0x386, 0x3D0), (0x400, 0x460), (0x2010, 0x2040), (0x20A0, 0x20B6))
LONGEST_WORD = 100
LONGEST_PART = 6
PART_WORTH = 0.25


def build(
    family: str, texts: Callable[[], Iterable[str]], vocabulary_size: int, max_length: int
) -> PreTrainedTokenizerBase:
    """Return a family's tokenizer.

    Args:
        family: A key of `LAYOUTS`.
        texts: Gives the texts that the vocabulary is learned from.
        vocabulary_size: The most tokens, special ones included; fewer where the texts have no more to give.
        max_length: What the tokenizer says the model reads at most.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=LAYOUTS[family](texts(), vocabulary_size),
        model_max_length=max_length,
        padding_side="right",
        **SETTINGS[family],
    )


# -- WordPiece -----------------------------------------------------------------------------------------

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _bert(texts: Iterable[str], size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: dict[str, int] = {}
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            counts[word] = counts.get(word, 0) + 1
    vocabulary = _word_pieces(counts, size)
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return backend


def _word_pieces(counts: dict[str, int], size: int) -> dict[str, int]:
    """Return a vocabulary: the special tokens, each character at the beginning of a word and inside, then pieces.

    Written here since the library's trainer numbers pieces in the order of a hash table, another at every run.
    A piece is worth the tokens that it saves over all texts; a beginning or an ending less, since whole words that
    are known save them already.
    """
    characters = _alphabet()
    fixed = [*BERT_SPECIAL, *characters, *(f"##{c}" for c in characters)]
    worth: dict[str, float] = {}
    for word, count in counts.items():
        _add(worth, word, count * (len(word) - 1))
        for length in range(2, min(len(word), LONGEST_PART + 1)):
            _add(worth, word[:length], PART_WORTH * count * (length - 1))
            _add(worth, f"##{word[-length:]}", PART_WORTH * count * (length - 1))
    known = set(fixed)
    pieces = sorted((p for p in worth if p not in known and worth[p] > 0), key=lambda p: (-worth[p], p))
    return {piece: i for i, piece in enumerate([*fixed, *pieces[: max(0, size - len(fixed))]])}


def _add(worth: dict[str, float], piece: str, value: float) -> None:
    worth[piece] = worth.get(piece, 0.0) + value


def _alphabet() -> list[str]:
    """Return the characters that survive lower-casing and the loss of accents."""
    points = [chr(point) for first, last in ALPHABET_RANGES for point in range(first, last)]
    return [c for c in points if c.lower() == c and unicodedata.normalize("NFD", c) == c and c.isprintable()]


# -- byte-level BPE ------------------------------------------------------------------------------------


def _byte_level(texts: Iterable[str], size: int, special: tuple[str, ...], *, lowercase: bool = False) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _template(backend: Tokenizer, single: str, pair: str, *names: str) -> Tokenizer:
    from tokenizers import processors

    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, backend.token_to_id(name)) for name in names]
    )
    return backend


def _roberta(texts: Iterable[str], size: int) -> Tokenizer:
    backend = _byte_level(texts, size, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
    return _template(backend, "<s> $A </s>", "<s> $A </s> </s> $B </s>", "<s>", "</s>")


def _t5(texts: Iterable[str], size: int) -> Tokenizer:
    backend = _byte_level(texts, size, ("<pad>", "</s>", "<unk>"))
    return _template(backend, "$A </s>", "$A </s> $B </s>", "</s>")


def _gpt2(texts: Iterable[str], size: int) -> Tokenizer:
    return _byte_level(texts, size, ("<|endoftext|>", "<|pad|>"))


def _llama(texts: Iterable[str], size: int) -> Tokenizer:
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    backend = _byte_level(texts, size, ("<s>", "</s>", "<pad>", *roles))
    return _template(backend, "<s> $A", "<s> $A $B", "<s>")


def _clip(texts: Iterable[str], size: int) -> Tokenizer:
    first, last = "<|startoftext|>", "<|endoftext|>"
    backend = _byte_level(texts, size, (first, last, "<|pad|>"), lowercase=True)
    return _template(backend, f"{first} $A {last}", f"{first} $A {last} $B {last}", first, last)


LAYOUTS: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {
    "bert": _bert,
    "distilbert": _bert,
    "roberta": _roberta,
    "bart": _roberta,
    "t5": _t5,
    "gpt2": _gpt2,
    "llama": _llama,
    "clip": _clip,
}
"""Each family's tokenizer."""

_READ = ["input_ids", "attention_mask"]
_BERT_NAMES = {f"{name.strip('[]').lower()}_token": name for name in BERT_SPECIAL}
_ROBERTA = {
    "model_input_names": _READ,
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_END = "<|endoftext|>"
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {"model_input_names": [*_READ, "token_type_ids"], **_BERT_NAMES},
    "distilbert": {"model_input_names": _READ, **_BERT_NAMES},
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "t5": {"model_input_names": _READ, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "gpt2": {"model_input_names": _READ, "bos_token": _END, "eos_token": _END, "pad_token": "<|pad|>"},
    "llama": {
        "model_input_names": _READ,
        "bos_token": "<s>",
        "eos_token": "<|end|>",
        "pad_token": "<pad>",
        "chat_template": CHAT_TEMPLATE,
    },
    "clip": {"model_input_names": _READ, "bos_token": "<|startoftext|>", "eos_token": _END, "pad_token": "<|pad|>"},
}
"""What each family's tokenizer calls its special tokens, and what its model reads."""
