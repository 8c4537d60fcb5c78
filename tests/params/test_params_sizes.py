"""What a base model has no room for is refused with its line, where its config.json is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.errors import DataError, ParamsError
from ftlib.models.sizes import size_of
from ftlib.params.loading import check_inputs, load_experiment

Write = Callable[[str | bytes], Path]
BERT = {"model_type": "bert", "max_position_embeddings": 64, "num_hidden_layers": 3}
T5 = {"model_type": "t5", "n_positions": 64, "num_layers": 3, "is_encoder_decoder": True}
T5 |= {"relative_attention_num_buckets": 32}
PARAMS = """\
name: tickets
base_model: models/tiny
problem:
  name: text_classification
  max_length: {max_length}
data:
  sources: {{all: rows.csv}}
stages:
  - name: first
    strategy: {first}
  - name: second
    start_from: first
    strategy: {second}
"""


@pytest.fixture
def problems(params_file: Write) -> Callable[..., list[str]]:
    """Return what is told of an experiment with a base model that has this config.json."""

    def told(
        config: dict | None, *, first: str = "full", second: str = "full", max_length: int = 64, cut_at: int | None = 64
    ) -> list[str]:
        folder = Path("models/tiny")
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        if cut_at is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": cut_at}))
        try:
            load_experiment(params_file(PARAMS.format(first=first, second=second, max_length=max_length)))
        except ParamsError as error:
            return list(error.problems)
        return []

    return told


@pytest.mark.parametrize(
    ("config", "max_length", "cut_at", "is_refused"),
    [
        (BERT, 64, None, False),
        (BERT, 65, None, True),
        (BERT, 65, 64, False),  # the tokenizer cuts first
        (BERT, 80, 70, True),
        ({**BERT, "rope_theta": 1e4}, 80, None, False),
        (T5, 80, None, False),
        ({"n_positions": 64, "n_layer": 3}, 80, None, True),
        ({"text_config": {"max_position_embeddings": 64}}, 80, None, True),
        ({**BERT, "model_type": "roberta", "max_position_embeddings": 66}, 65, None, True),
        ({**BERT, "model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 0}, 65, None, False),
        ({}, 80, None, False),
        (None, 80, None, False),
    ],
)
def test_rows_longer_than_the_models_positions_are_refused(problems, config, max_length, cut_at, is_refused: bool):
    found = problems(config, max_length=max_length, cut_at=cut_at)
    line = (
        f"p.yaml:5: problem.max_length: {min(max_length, cut_at or max_length)} tokens, but the model has 64 "
        "positions; lower it. (base_model models/tiny)"
    )
    assert found == ([line] if is_refused else [])


def prompts(number: int, strategy: str = "prompt_tuning") -> str:
    return f"{{name: {strategy}, num_virtual_tokens: {number}}}"


VIRTUAL = "virtual tokens = 65 tokens, but the model has 64 positions; lower one of them."


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (prompts(25), "full", f"0.strategy: prompt_tuning: max_length 40 + 25 {VIRTUAL}"),
        (prompts(25, "prefix"), "full", f"0.strategy: prefix: max_length 40 + 25 {VIRTUAL}"),
        (prompts(24), "lora", None),
        (prompts(5), prompts(20), f"1.strategy: prompt_tuning: max_length 40 + 25 {VIRTUAL}"),
    ],
)
def test_virtual_tokens_of_all_stages_in_line_need_positions(problems, first: str, second: str, line: str | None):
    found = [text.partition(": stages.")[2] for text in problems(BERT, first=first, second=second, max_length=40)]
    assert found == ([line] if line else [])


def test_a_model_without_a_table_of_positions_takes_any_number_of_virtual_tokens(problems):
    assert problems(T5, first=prompts(25), max_length=40) == []


@pytest.mark.parametrize("config", [BERT, {**T5, "num_decoder_layers": None}])
@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        ("4", "1", "p.yaml:10: stages.0.strategy: 4 blocks are more than the model's 3; keep fewer."),
        ("[0, 3]", "1", "p.yaml:10: stages.0.strategy: block [3] is not in a model of 3; count from 0."),
        ("[0, 2]", "2", None),
        ("[0, 2]", "[0, 2]", "p.yaml:13: stages.1.strategy: block [2] is not in a model of 2; count from 0."),
        ("2", "[0, 2]", "p.yaml:13: stages.1.strategy: block [2] is not in a model of 2; count from 0."),
    ],
)
def test_blocks_that_the_start_of_a_stage_does_not_have_are_refused(problems, config, first, second, line):
    def cut(blocks: str) -> str:
        return f"{{name: distillation, teacher: teacher, student_blocks: {blocks}}}"

    found = problems(config, first=cut(first), second=f"{cut(second)}\n  - {{name: teacher, strategy: full}}")
    assert found == ([line] if line else [])


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "bart", "t5", "gpt2", "llama"])
def test_a_config_says_of_a_model_what_the_model_has(family: str, tiny_model: Callable[..., Path]):
    import torch
    from transformers import AutoModel

    from ftlib.models.layers import block_lists

    model = AutoModel.from_pretrained(tiny_model(family))
    size = size_of(str(tiny_model(family)))
    assert size is not None
    if size.ends_there:  # one row of as many tokens runs, and none of more
        model(torch.full((1, size.positions), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, size.positions + 1), 7))
    else:
        assert size.positions == getattr(model.config, "max_position_embeddings", None)
    assert size.blocks == tuple(len(blocks) for blocks in block_lists(model))
    assert size.ends_there == (family not in ("t5", "llama"))


def test_patterns_that_name_no_weight_of_the_base_model_are_told_with_the_near_ones(params_file: Write):
    folder = Path("models/tiny")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 11}
    (folder / "config.json").write_text(json.dumps({**BERT, **sizes}))
    Path("rows.csv").write_text("text,label\nfine,yes\n")
    text = PARAMS.format(first="{name: partial, patterns: ['layer\\.2\\.outputt']}", second="full", max_length=64)
    experiment = load_experiment(params_file(text))
    with pytest.raises(DataError, match=r"stage 'first': partial: pattern .* near: bert.encoder.layer.2.output.dense"):
        check_inputs(experiment)


def test_settings_that_a_strategy_has_no_use_for_are_refused(problems: Callable[..., list[str]]):
    (line,) = problems(BERT, first="few_shot\n    training: {regularization: {label_smoothing: 0.1}}")
    assert "few_shot cannot use regularization.label_smoothing: its loss is of pairs of texts" in line


@pytest.mark.parametrize(
    ("strategy", "line"),
    [
        ("{name: partial, first_blocks: 4}", "partial: 4 blocks are to learn, but the model has 3; choose fewer."),
        ("{name: partial, last_blocks: 3}", None),
        (
            "{name: adaptive_hierarchical, level_bounds: [1, 3]}",
            "adaptive_hierarchical: level_bounds [1, 3] leave no block for paragraphs: the model has 3 blocks; lower "
            "them or leave them out.",
        ),
        ("{name: adaptive_hierarchical, level_bounds: [1, 2]}", None),
    ],
)
def test_more_blocks_than_the_model_has_are_refused(problems, strategy: str, line: str | None):
    assert problems(BERT, first=strategy) == ([f"p.yaml:10: stages.0.strategy: {line}"] if line else [])


def test_blocks_are_counted_after_what_the_stage_before_leaves(problems):
    cut = "{name: distillation, teacher: teacher, student_blocks: 2}"
    found = problems(BERT, first=cut, second="{name: partial, last_blocks: 3}\n  - {name: teacher, strategy: full}")
    assert found == ["p.yaml:13: stages.1.strategy: partial: 3 blocks are to learn, but the model has 2; choose fewer."]


def test_an_encoder_decoder_has_the_blocks_of_both_halves(problems):
    [line] = problems(T5, first="{name: partial, last_blocks: 7}")
    assert line.endswith("7 blocks are to learn, but the model has 6; choose fewer.")
