from __future__ import annotations

import pytest
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ftlib.problems.base import Problem

settings.register_profile("unhurried", settings.default, deadline=None)  # first calls import scipy and the like
settings.load_profile("unhurried")

TEXTS = [
    name
    for name in Problem.available()
    if Problem.named(name).auto_class == "AutoModelForSequenceClassification"
    and not Problem.named(name).other_columns
    and Problem.named(name).label_column == "label"
]
"""Problems on one text or a pair, which the tokenizer joins, with one answer."""

WORDS = sorted(
    {
        word
        for name in TEXTS
        for row in Problem.named(name).examples()
        for column in Problem.named(name).text_columns
        for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(row[column])
    }
)


def make_tokenizer(**settings: object) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that joins pairs as BERT does."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", **settings
    )


@pytest.fixture(scope="session")
def bert_like() -> PreTrainedTokenizerFast:
    return make_tokenizer(model_max_length=512, model_input_names=["input_ids", "token_type_ids", "attention_mask"])


@pytest.fixture(scope="session")
def roberta_like() -> PreTrainedTokenizerFast:
    return make_tokenizer(model_max_length=12, model_input_names=["input_ids", "attention_mask"])
