"""A base model of a family that a problem cannot be learned with is refused in one clear line."""

from __future__ import annotations

from typing import ClassVar

import pytest
from transformers import AutoConfig

from ftlib.errors import UnsupportedError
from ftlib.files import read_json, write_json
from ftlib.models import checkpoints, families
from ftlib.problems.base import Problem

KNOWN = {
    "bert": "encoder",
    "roberta": "encoder",
    "distilbert": "encoder",
    "deberta-v2": "encoder",
    "modernbert": "encoder",
    "electra": "encoder",
    "t5": "encoder_decoder",
    "bart": "encoder_decoder",
    "marian": "encoder_decoder",
    "pegasus": "encoder_decoder",
    "gpt2": "causal",
    "llama": "causal",
    "qwen2": "causal",
    "mistral": "causal",
    "clip": "image_text",
    "siglip": "image_text",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_published_architectures_are_known_by_their_config(kind: str):
    assert families.family_of(AutoConfig.for_model(kind).to_dict()) == KNOWN[kind]


def test_a_model_that_transformers_does_not_know_passes(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "of_our_own"})
    families.check(tmp_path, Problem.named("token_classification")())
    assert families.family_of({}) is None


@pytest.mark.parametrize(
    ("problem", "kind", "line"),
    [
        ("question_answering", "gpt2", r"needs an encoder, such as bert.*; got gpt2, a causal model\. Set another"),
        ("translation", "bert", r"needs an encoder-decoder, such as t5 or bart; got bert, an encoder\."),
        ("text_generation", "t5", r"needs a causal model, such as gpt2.*; got t5, an encoder-decoder\."),
        ("image_text_classification", "bert", r"needs a model of images and texts, such as clip; got bert"),
        ("text_classification", "clip", r"needs an encoder, .*, or a causal model, .*; got clip, a model of images"),
    ],
)
def test_another_family_is_refused_with_what_is_needed(problem: str, kind: str, line: str, tmp_path):
    write_json(tmp_path / "config.json", AutoConfig.for_model(kind).to_dict())
    with pytest.raises(UnsupportedError, match=rf"{problem} {line}"):
        families.check(tmp_path, Problem.named(problem)())


def test_a_checkpoint_is_not_opened_with_another_head_by_accident(tiny_model):
    with pytest.raises(UnsupportedError, match="text_generation needs a causal model"):
        checkpoints.load(tiny_model("bert"), Problem.named("text_generation")())


def test_an_adapter_is_known_by_its_base(tmp_path, tiny_model):
    (tmp_path / "base").mkdir()
    write_json(tmp_path / "base" / "config.json", read_json(tiny_model("bert") / "config.json"))
    with pytest.raises(UnsupportedError, match="got bert"):
        families.check(tmp_path, Problem.named("translation")())


def test_a_problem_that_names_no_such_family_takes_what_it_names(tmp_path):
    class Anything(type(Problem.named("text_classification")())):
        families: ClassVar[tuple[str, ...]] = ("image_text",)

    write_json(tmp_path / "config.json", AutoConfig.for_model("clip").to_dict())
    families.check(tmp_path, Anything())
