"""Tiny models and rows, built on the fly: random weights, two blocks, no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread only waits

import pytest

ARCHITECTURES = ("bert", "distilbert", "roberta", "bert_lm", "distilbert_lm", "roberta_lm")
CORPUS = (
    "I was charged twice in May and want a refund of the second invoice.",
    "The app crashes when I open a photo; search finds nothing since the update.",
    "How do I change the email address or the password of my login?",
    "A man is playing a guitar on the stage. The weather is cold and it rains.",
    "It was good, great, wonderful, bad, awful, boring film and a lovely story.",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that gives the folder of a tiny pretrained model (no head) and its tokenizer.

    ``tiny_model("bert" | "distilbert" | "roberta", dropout=0.0)``; "bert_lm" and the like have the head that predicts
    words, too; any other family of `ftlib.models.untrained` is
    written by it, without dropout. Each is built once a session.
    """
    built: dict[tuple[str, float], Path] = {}

    def folder(architecture: str = "bert", dropout: float = 0.0) -> Path:
        key = (architecture, dropout)
        if key not in built:
            built[key] = tmp_path_factory.mktemp(f"{architecture}-{dropout}")
            write = write_tiny_model if architecture in ARCHITECTURES else write_untrained_model
            write(built[key], architecture, dropout)
        return built[key]

    return folder


def write_tiny_model(folder: Path, architecture: str = "bert", dropout: float = 0.0) -> None:
    """Write a tiny random model and its tokenizer, as a pretrained checkpoint has them."""
    import torch
    from transformers import AutoModelForMaskedLM

    kind = architecture.removesuffix("_lm")
    tokenizer = tiny_tokenizer(kind)
    torch.manual_seed(7)
    model = _MODELS[kind](len(tokenizer), tokenizer.pad_token_id, dropout)
    if architecture != kind:
        model = AutoModelForMaskedLM.from_config(model.config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_untrained_model(folder: Path, architecture: str, dropout: float = 0.0) -> None:
    """Write the smallest untrained model of another family."""
    from ftlib.files import read_json, write_json
    from ftlib.models import untrained

    untrained.write(f"{untrained.RANDOM}{architecture}", folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", _with_dropout(config, dropout))


def _with_dropout(config: dict, dropout: float) -> dict:
    """Return a config with every dropout in it set, those of its parts too."""
    chosen = {}
    for name, value in config.items():
        if isinstance(value, dict):
            chosen[name] = _with_dropout(value, dropout)
        else:
            chosen[name] = dropout if "dropout" in name or name.endswith("pdrop") else value
    return chosen


def tiny_tokenizer(architecture: str = "bert"):
    """Return a small tokenizer laid out as the architecture's own: WordPiece with [CLS], or byte-level BPE with <s>."""
    from transformers import PreTrainedTokenizerFast

    if architecture == "roberta":
        names = {
            "bos": "<s>",
            "cls": "<s>",
            "eos": "</s>",
            "sep": "</s>",
            "unk": "<unk>",
            "pad": "<pad>",
            "mask": "<mask>",
        }
        backend = _byte_level()
    else:
        names = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
        backend = _word_piece()
    columns = ["input_ids", "attention_mask", *(["token_type_ids"] if architecture == "bert" else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=columns,
        model_max_length=256,
        **{f"{k}_token": v for k, v in names.items()},
    )


def _word_piece():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    # written, not learned: the library's trainer finds other pieces at every run
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in CORPUS for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = set("".join(words))
    endings = {f"##{word[at:]}" for word in words for at in range(1, len(word)) if len(word) - at <= 3}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = sorted(words | letters | {f"##{letter}" for letter in letters} | endings)
    vocabulary = {piece: i for i, piece in enumerate([*special, *pieces])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def _byte_level():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_SPREAD = 0.4  # of the random weights: with the usual 0.02 a frozen trunk gives every row the same vector


def _bert(vocab_size: int, pad: int, dropout: float):
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=vocab_size, **_SHAPE, hidden_dropout_prob=dropout,
                                attention_probs_dropout_prob=dropout, max_position_embeddings=256,
                                initializer_range=_SPREAD, pad_token_id=pad))  # fmt: skip


def _distilbert(vocab_size: int, pad: int, dropout: float):
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(DistilBertConfig(vocab_size=vocab_size, max_position_embeddings=256,
                                            n_layers=2, n_heads=4, dim=32, hidden_dim=64,
                                            dropout=dropout, attention_dropout=dropout, seq_classif_dropout=dropout,
                                            initializer_range=_SPREAD, pad_token_id=pad))  # fmt: skip


def _roberta(vocab_size: int, pad: int, dropout: float):
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(vocab_size=vocab_size, **_SHAPE, hidden_dropout_prob=dropout,
                                      attention_probs_dropout_prob=dropout, max_position_embeddings=258,
                                      type_vocab_size=1, initializer_range=_SPREAD, pad_token_id=pad,
                                      bos_token_id=0, eos_token_id=2))  # fmt: skip


_MODELS = {"bert": _bert, "distilbert": _distilbert, "roberta": _roberta}
