"""What a stage saves opens without ftlib, and a later stage can start from it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from ftlib import compatibility
from ftlib.errors import UnsupportedError
from ftlib.models import checkpoints
from ftlib.models.layers import block_list, unwrapped
from ftlib.models.peft_models import has_beyond_plain, merged
from ftlib.models.virtual_tokens import name as virtual_name
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.stage import Training
from tests import contracts

SINGLE = "text_classification"
PAIR = "text_pair_classification"
REFUSED = compatibility.strategies().refusals
TRAINS = [name for name in Strategy.available() if (SINGLE, name) not in REFUSED]


def strategy(name: str, **fields) -> Strategy:
    return Strategy.named(name)(**fields)


def trained(name: str, start, tmp_path, problem: str = SINGLE, **fields) -> contracts.Trained:
    return contracts.train_on_examples(
        strategy(name, **fields), Problem.named(problem)(), start, tmp_path, num_epochs=1.0
    )


def plain_logits(folder, problem: Problem) -> np.ndarray:
    """Return what plain transformers gives for the raw texts, row by row: no padding, no ftlib."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with checkpoints.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return raw_logits(model, tokenizer, problem)


def raw_logits(model, tokenizer, problem: Problem) -> np.ndarray:
    rows = contracts.raw_rows(problem, 8)
    given = []
    with torch.no_grad():
        for texts in zip(*(rows.column(c).to_pylist() for c in problem.text_columns), strict=True):
            given.append(model(**tokenizer(*texts, return_tensors="pt")).logits[0].numpy())
    return np.stack(given)


@pytest.mark.parametrize("problem", [SINGLE, PAIR])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("name", ["full", "lora", "prompt_tuning"])
def test_a_saved_stage_is_a_plain_checkpoint(name, architecture, problem, tiny_model, tmp_path):
    result = trained(name, tiny_model(architecture), tmp_path, problem)
    ours = contracts.logits(result.reloaded, result.rows, result.problem)
    np.testing.assert_allclose(plain_logits(result.folder, result.problem), ours, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("name", "fields"), [("prefix", {}), ("prefix", {"prefix_projection": True}), ("lora", {"merge": False})]
)
def test_a_saved_adapter_opens_with_plain_peft(name, fields, architecture, tiny_model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from ftlib.models.peft_models import known_warnings

    result = trained(name, tiny_model(architecture), tmp_path, **fields)
    with checkpoints.quiet(), known_warnings():
        base = AutoModelForSequenceClassification.from_pretrained(result.folder / "base")
        model = PeftModel.from_pretrained(base, result.folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(result.folder)
    ours = contracts.logits(result.reloaded, result.rows, result.problem)
    np.testing.assert_allclose(raw_logits(model, tokenizer, result.problem), ours, rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(contracts.logits(result.result.checkpoint, result.rows, result.problem), ours, atol=1e-6)


@pytest.mark.parametrize("name", TRAINS)
def test_no_saved_file_names_a_folder_of_this_machine(name, tiny_model, tmp_path):
    start = contracts.start_model(Problem.named(SINGLE)(), tiny_model, name)
    result = trained(name, start, tmp_path)
    for path in result.folder.rglob("*.json"):
        text = path.read_text()
        assert str(tmp_path) not in text, path
        assert str(start) not in text, path


def test_virtual_tokens_stay_where_the_tokenizers_own_class_would_lay_out_special_tokens_anew(tiny_model, tmp_path):
    """BertTokenizer, as most checkpoints name it, builds its template itself and not from tokenizer.json."""
    start = tmp_path / "start"
    shutil.copytree(tiny_model("bert"), start)
    config = json.loads((start / "tokenizer_config.json").read_text())
    (start / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "BertTokenizer"}))
    assert type(AutoTokenizer.from_pretrained(start)).__name__ == "BertTokenizer"
    result = trained("prompt_tuning", start, tmp_path)
    written = AutoTokenizer.from_pretrained(result.folder)
    tokens = written.convert_ids_to_tokens(written("charged twice")["input_ids"])
    assert tokens[:3] == [written.cls_token, virtual_name(0), virtual_name(1)]
    ours = contracts.logits(result.reloaded, result.rows, result.problem)
    np.testing.assert_allclose(plain_logits(result.folder, result.problem), ours, rtol=1e-5, atol=3e-5)


def test_a_frozen_trunk_is_left_exactly_as_it_was(tiny_model, tmp_path):
    for name, fields in (("prompt_tuning", {}), ("prefix", {}), ("lora", {"merge": False})):
        result = trained(name, tiny_model("bert"), tmp_path / name, **fields)
        saved = checkpoints._plain_state(unwrapped(result.reloaded.model))
        for key, before in result.start.items():
            if "classifier" not in key:
                after = saved[key].numpy()
                np.testing.assert_array_equal(after[: len(before)], before, err_msg=f"{name}: {key}")


def test_full_fine_tuning_moves_every_weight_that_a_row_passes_through(tiny_model, tmp_path):
    result = trained("full", tiny_model("bert"), tmp_path)
    after = contracts.weights(result.reloaded.model)
    still = {k for k in after if np.array_equal(after[k], result.start[k])}
    assert still == set()


@pytest.mark.parametrize("second", TRAINS)
@pytest.mark.parametrize(("first", "fields"), [("prompt_tuning", {}), ("prefix", {}), ("lora", {"merge": False})])
def test_a_later_stage_starts_from_any_other_or_refuses_by_name(first, fields, second, tiny_model, tmp_path):
    start = trained(first, tiny_model("bert"), tmp_path / "first", **fields)
    left = strategy(first, **fields).leaves
    assert has_beyond_plain(merged(start.reloaded.model)) == left  # what is declared is what is there
    if left & strategy(second).refuses.keys() or second in contracts.STARTS:
        with pytest.raises(UnsupportedError, match=second):
            trained(second, start.folder, tmp_path / "second")
        return
    result = trained(second, start.folder, tmp_path / "second")
    contracts.check_reload(result)
    assert has_beyond_plain(merged(result.reloaded.model)) == left | strategy(second).leaves
    if first == "prompt_tuning":
        expected = 40 if second in ("prompt_tuning", "p_tuning", "prefix") else 20
        assert result.reloaded.settings["num_virtual_tokens"] == expected


def test_a_prompted_stage_keeps_its_prompt_when_all_is_trained_after_it(tiny_model, tmp_path):
    first = trained("prompt_tuning", tiny_model("roberta"), tmp_path / "first", PAIR)
    second = trained("full", first.folder, tmp_path / "second", PAIR)
    ours = contracts.logits(second.reloaded, second.rows, second.problem)
    np.testing.assert_allclose(plain_logits(second.folder, second.problem), ours, rtol=1e-5, atol=3e-5)
    assert json.loads((second.folder / "ftlib.json").read_text())["virtual_tokens"]["position"] == 1


def test_a_prompt_stays_out_of_the_pooled_place(tiny_model, tmp_path):
    result = trained("prompt_tuning", tiny_model("bert"), tmp_path)
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(result.folder).tokenize("a refund", add_special_tokens=True)
    assert tokens[0] == "[CLS]"
    assert tokens[1] == "<|virtual_0|>"
    assert tokens[20] == "<|virtual_19|>"


def test_virtual_tokens_are_cut_out_of_outputs_that_have_a_place_per_token(tiny_model):
    from transformers import AutoModelForTokenClassification

    from ftlib.models.virtual_tokens import VirtualTokens, attach

    with checkpoints.quiet():
        model = AutoModelForTokenClassification.from_pretrained(tiny_model("bert"), num_labels=3).eval()
    ids = torch.tensor([[2, 9, 10, 11, 3]])
    attach(model, VirtualTokens((7, 8), 1))
    by_hand = torch.tensor([[2, 7, 8, 9, 10, 11, 3]])
    inserted = model(input_ids=ids).logits
    assert inserted.shape == (1, 5, 3)
    attach(model, VirtualTokens((99,), 3))
    from ftlib.models.virtual_tokens import detach

    detach(model)
    expected = model(input_ids=by_hand).logits
    torch.testing.assert_close(inserted, torch.cat((expected[:, :1], expected[:, 3:]), 1))


def test_padding_does_not_change_what_a_prefixed_model_says(tiny_model, tmp_path):
    result = trained("prefix", tiny_model("bert"), tmp_path)
    together = contracts.logits(result.reloaded, result.rows, result.problem)
    alone = [
        contracts.logits(result.reloaded, result.rows.slice(i, 1), result.problem)[0] for i in range(len(result.rows))
    ]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=3e-5)


def test_prefix_refuses_by_name_a_model_that_takes_no_keys_from_outside(tiny_model, tmp_path):
    with pytest.raises(UnsupportedError, match="prefix cannot train DistilBert"):
        trained("prefix", tiny_model("distilbert"), tmp_path)


@pytest.mark.parametrize("name", ["prefix", "prompt_tuning"])
def test_too_many_virtual_tokens_are_refused_with_the_numbers(name, tiny_model, tmp_path):
    with pytest.raises(UnsupportedError, match=r"max_length 96 \+ .*400"):
        trained(name, tiny_model("bert"), tmp_path, num_virtual_tokens=400)


def test_a_student_is_cut_out_of_its_start_checkpoint(tiny_model, tmp_path):
    result = trained("distillation", tiny_model("bert"), tmp_path, student_blocks=1)
    assert len(block_list(result.reloaded.model)) == 1
    assert result.reloaded.model.config.num_hidden_layers == 1
    contracts.check_reload(result)
    with pytest.raises(UnsupportedError, match="block"):
        trained("distillation", tiny_model("bert"), tmp_path / "wrong", student_blocks=(0, 5))


def test_distillation_weighs_the_teacher_against_the_labels():
    problem = contracts.bound(Problem.named(SINGLE)())
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    batch = {"labels": labels, "teacher_logits": torch.randn(4, 3)}
    gold = strategy("full").loss(logits, batch, problem)
    soft = problem.target.distillation_loss(logits, batch["teacher_logits"], 3.0)
    mixed = strategy("distillation", temperature=3.0, alpha=0.7).loss(logits, batch, problem)
    torch.testing.assert_close(mixed, 0.7 * soft + 0.3 * gold)
    assert strategy("distillation", teacher=("a", "b")).teachers == ("a", "b")


def test_a_wrapped_stage_counts_what_it_trains(tiny_model, tmp_path):
    result = trained("prompt_tuning", tiny_model("bert"), tmp_path)
    head = sum(p.numel() for p in result.reloaded.model.classifier.parameters())
    assert result.result.figures["num_trainable_parameters"] == 20 * 32 + head


def test_training_needs_rows(tiny_model, tmp_path):
    from ftlib.errors import DataError

    problem = contracts.bound(Problem.named(SINGLE)())
    checkpoint = checkpoints.load(tiny_model("bert"), problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    with pytest.raises(DataError, match="no rows"):
        stage.train(checkpoint, rows.slice(0, 0), rows, problem=problem, strategy=strategy("full"),
                       settings=Training(), seed=1, scratch=tmp_path, name="train-x")  # fmt: skip
