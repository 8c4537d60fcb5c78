"""Cloze: forms are filled as by hand, logits are the language model's own, words are found as by brute force."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from ftlib.errors import ParamsError, UnsupportedError
from ftlib.explaining.attribution import attribute
from ftlib.models import checkpoints, cloze
from ftlib.models.cloze_templates import Template
from ftlib.models.sizes import size_of
from ftlib.params.loading import load_experiment
from ftlib.problems.base import Problem
from ftlib.serving import answering
from ftlib.strategies.cloze import Cloze
from ftlib.training.label_words import assign, search
from tests import contracts

SINGLE = Problem.named("text_classification")(labels=("bad", "good"))
PAIR = Problem.named("text_pair_classification")(labels=("different", "same"))
TEXTS = ["The app crashes when I open a photo.", "a lovely story", "Search finds nothing since the update!"]
OTHERS = ["a man is playing a guitar", "I want a refund of the second invoice, since the weather is cold.", "a photo"]
WORDS = {"bad": ["boring", "awful"], "good": ["great"]}
PAIR_WORDS = {"different": ["bad"], "same": ["good"]}
CASES = [
    ("bert_lm", SINGLE, "{text} It was {mask}.", WORDS),
    ("bert_lm", SINGLE, "{mask}: {text}", WORDS),
    ("bert_lm", PAIR, "{text}? {mask}, {text_pair}", PAIR_WORDS),
    ("distilbert_lm", PAIR, "{text}? {mask}, {text_pair}", PAIR_WORDS),
    ("roberta_lm", SINGLE, "{text} It was {mask}.", {"bad": ["a"], "good": ["I"]}),
    ("roberta_lm", PAIR, "{text}? {mask}, {text_pair}", {"different": ["a"], "same": ["I"]}),
    ("gpt2", SINGLE, "{text} It is {mask}.", {"bad": ["a"], "good": ["I"]}),
    ("llama", SINGLE, "{text} It is {mask}", {"bad": ["a"], "good": ["I"]}),
]
IDS = [f"{case[0]}-{case[2]}" for case in CASES]


def rows_of(problem) -> pa.Table:
    return pa.table({"text": TEXTS, "text_pair": OTHERS}).select(list(problem.input_columns))


def encoded(problem, checkpoint, rows: pa.Table, labels=(0, 1, 1)) -> pa.Table:
    table = problem.encode(rows, checkpoint.tokenizer)
    return table.append_column("labels", pa.array(labels)).append_column("row_id", pa.array(range(len(rows))))


def by_hand(folder, problem, template: str, verbalizer: dict, rows: list[dict]) -> np.ndarray:
    """Return the labels' logits as plain transformers gives them of whole sentences, row by row."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    is_masked = json.loads((folder / "config.json").read_text())["model_type"] in ("bert", "distilbert", "roberta")
    with checkpoints.quiet():
        model = (AutoModelForMaskedLM if is_masked else AutoModelForCausalLM).from_pretrained(folder).eval()
    found = []
    for row in rows:
        if is_masked:
            ids = tokenizer(template.format(mask=tokenizer.mask_token, **row), return_tensors="pt")
            place = int((ids["input_ids"][0] == tokenizer.mask_token_id).nonzero())
        else:
            ids = tokenizer(template[: template.index(" {mask}")].format(**row), return_tensors="pt")
            place = -1
        with torch.no_grad():
            logits = model(**ids).logits[0, place]
        found.append([np.mean([logits[token(tokenizer, word, template)] for word in verbalizer[label]])
                      for label in problem.labels])  # fmt: skip
    return np.array(found)


def token(tokenizer, word: str, template: str) -> int:
    """Return the token of a word, with the space before it where the tokenizer has that inside."""
    vocabulary = tokenizer.get_vocab()
    return vocabulary.get(f"Ġ{word}" if not template.startswith("{mask}") else word, vocabulary.get(word))


@pytest.mark.parametrize(("family", "problem", "template", "verbalizer"), CASES, ids=IDS)
def test_logits_are_those_of_a_plain_language_model_on_the_sentence_filled_by_hand(
    family, problem, template, verbalizer, tiny_model
):
    folder, rows = tiny_model(family), rows_of(problem)
    checkpoint = Cloze(template=template, verbalizer=verbalizer).open(folder, problem)
    ours = contracts.logits(checkpoint, encoded(problem, checkpoint, rows), problem)
    np.testing.assert_allclose(ours, by_hand(folder, problem, template, verbalizer, rows.to_pylist()), atol=1e-5)


def test_a_row_that_is_too_long_loses_the_end_of_its_text_and_keeps_its_gap(tiny_model):
    problem = SINGLE.model_copy(update={"max_length": 256})
    strategy = Cloze(template="{text} It was {mask}.", verbalizer=WORDS)
    checkpoint = strategy.open(tiny_model("bert_lm"), problem)
    ours = contracts.logits(
        checkpoint, encoded(problem, checkpoint, pa.table({"text": ["great " * 300]}), [0]), problem
    )
    fitting = 256 - len(checkpoint.tokenizer("It was [MASK].")["input_ids"])
    cut = [{"text": ("great " * fitting).strip()}]
    expected = by_hand(tiny_model("bert_lm"), problem, "{text} It was {mask}.", WORDS, cut)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_of_two_texts_the_longer_one_is_cut(tiny_model):
    tokenizer = checkpoints.load_tokenizer(tiny_model("bert_lm"))
    template = Template.of("{text}? {mask}, {text_pair}", PAIR.text_columns, tokenizer, is_causal=False)
    for lengths, kept in (((9, 3), (4, 3)), ((3, 9), (3, 4)), ((9, 9), (3, 4))):
        row, gap = template.fill(([11] * lengths[0], [12] * lengths[1]), template.num_tokens + 7)
        assert (row.count(11), row.count(12)) == kept
        assert row[gap] == tokenizer.mask_token_id


def test_training_starts_at_the_cross_entropy_of_the_words_and_is_saved_as_a_plain_language_model(tiny_model, tmp_path):
    from transformers import AutoModelForMaskedLM

    problem = Problem.named("text_classification")(labels=("account", "billing", "bug"))
    verbalizer = {"account": ["login"], "billing": ["invoice", "refund"], "bug": ["app"]}
    strategy = Cloze(template="{text} It was {mask}.", verbalizer=verbalizer)
    trained = contracts.train_on_examples(strategy, problem, tiny_model("bert_lm"), tmp_path, num_epochs=1.0)
    rows = contracts.raw_rows(problem, 8).to_pylist()
    plain = by_hand(tiny_model("bert_lm"), problem, strategy.template, verbalizer, rows)
    gold = torch.tensor(trained.rows["labels"].to_pylist())
    assert trained.first_loss == pytest.approx(float(cross_entropy(torch.tensor(plain), gold)), abs=1e-5)
    assert trained.result.history[-1]["validation_loss"] < trained.first_loss
    saved = by_hand(trained.folder, problem, strategy.template, verbalizer, rows)
    np.testing.assert_allclose(contracts.logits(trained.reloaded, trained.rows, trained.problem), saved, atol=2e-5)
    settings = json.loads((trained.folder / "ftlib.json").read_text())
    assert settings["cloze"] == {"template": strategy.template, "verbalizer": verbalizer}
    assert settings["num_virtual_tokens"] == 4  # it was [MASK] .
    with checkpoints.quiet():
        _, found = AutoModelForMaskedLM.from_pretrained(trained.folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    served = answering.load(trained.folder).predict([row["text"] for row in rows])
    assert served["prediction"].tolist() == [problem.labels[i] for i in saved.argmax(1)]


def test_without_training_the_pretrained_weights_answer_as_they_are(tiny_model, tmp_path):
    strategy = Cloze(verbalizer={"account": "login", "billing": "refund", "bug": "app"}, train=False)
    problem = Problem.named("text_classification")()
    trained = contracts.train_on_examples(strategy, problem, tiny_model("bert_lm"), tmp_path)
    assert trained.result.figures["num_trainable_parameters"] == 0
    assert trained.result.history[-1]["validation_loss"] == pytest.approx(trained.first_loss)
    for name, before in trained.start.items():
        np.testing.assert_array_equal(contracts.weights(trained.reloaded.model)[name], before)


@pytest.mark.parametrize(
    ("second", "fields"),
    [("full", {}), ("lora", {"merge": False}), ("prompt_tuning", {}), ("cloze", {})],
)
def test_a_later_stage_goes_on_with_template_and_words(second, fields, tiny_model, tmp_path):
    from ftlib.strategies.base import Strategy

    problem, words = (
        Problem.named("text_classification")(),
        {"account": ["login"], "billing": ["refund"], "bug": ["app"]},
    )
    strategy = Cloze(verbalizer=words)
    first = contracts.train_on_examples(strategy, problem, tiny_model("bert_lm"), tmp_path / "1", num_epochs=0.1)
    later = contracts.train_on_examples(
        Strategy.named(second)(**fields), problem, first.folder, tmp_path / "2", num_epochs=1.0
    )
    contracts.check_reload(later)
    assert later.reloaded.settings["cloze"] == first.reloaded.settings["cloze"]
    assert later.reloaded.settings["num_virtual_tokens"] == 4 + 20 * (second == "prompt_tuning")
    assert later.result.history[-1]["validation_loss"] < later.first_loss
    if "merge" not in fields:  # plain transformers reads it alike, virtual tokens and all
        rows = contracts.raw_rows(problem, 8).to_pylist()
        plain = by_hand(later.folder, later.problem, "{text} It was {mask}.", words, rows)
        np.testing.assert_allclose(contracts.logits(later.reloaded, later.rows, later.problem), plain, atol=3e-5)


def test_a_prefix_refuses_a_stage_with_a_template(tiny_model, tmp_path):
    from ftlib.strategies.prefix import Prefix

    with pytest.raises(UnsupportedError, match="prefix cannot start from a checkpoint with a cloze template"):
        Prefix().check_start({"cloze template"}, "first")


@pytest.mark.parametrize("family", ["bert_lm", "llama"])
def test_what_a_texts_tokens_add_to_an_answer_adds_up_through_a_template(family, tiny_model):
    strategy = Cloze(template="{text} It is {mask}", verbalizer={"bad": "a", "good": "I" if family == "llama" else "i"})
    checkpoint = strategy.open(tiny_model(family), SINGLE)
    rows = rows_of(SINGLE).slice(0, 1)
    questions = SINGLE.questions(np.array([[0.3, 0.7]]), rows, None)
    (posed,) = SINGLE.pose(checkpoint, rows, questions)
    found = attribute(checkpoint, posed, SINGLE, steps=64)
    assert found.values.sum() + found.added == pytest.approx(found.score - found.baseline, abs=0.02)
    assert np.count_nonzero(found.values) == len(checkpoint.tokenizer.tokenize(TEXTS[0]))
    assert found.added == 0


# -- words -----------------------------------------------------------------------------------------------


def test_searched_words_are_those_of_a_brute_force_over_the_vocabulary(tiny_model):
    """Every pair of different words, by how many rows they get right, then by the paper's equation 4."""
    from transformers import AutoModelForMaskedLM

    template, labels = "{text} It was {mask}.", np.array([0, 1, 1, 0, 1, 0, 0, 1])
    texts = [row["text"] for row in Problem.named("text_classification").examples()[:8]]
    checkpoint = Cloze(template=template).open(tiny_model("bert_lm"), SINGLE.bind(()))
    rows = encoded(SINGLE, checkpoint, pa.table({"text": texts}), labels)
    found = search(checkpoint, rows, SINGLE, num_candidates=1000, num_rows=1000, name="test")

    tokenizer = checkpoint.tokenizer
    with checkpoints.quiet():
        model = AutoModelForMaskedLM.from_pretrained(tiny_model("bert_lm")).eval()
    with torch.no_grad():
        read = [tokenizer(template.format(text=t, mask="[MASK]"), return_tensors="pt") for t in texts]
        gaps = [int((ids["input_ids"][0] == tokenizer.mask_token_id).nonzero()) for ids in read]
        logits = torch.stack([model(**ids).logits[0, gap] for ids, gap in zip(read, gaps, strict=True)]).double()
    likely = [logits.log_softmax(-1)[torch.tensor(labels) == label].mean(0) for label in (0, 1)]
    words = [i for word, i in tokenizer.get_vocab().items() if word.isalpha() and not word.startswith("[")]

    def worth(pair: tuple[int, int]) -> tuple[int, float]:
        right = int((logits[:, list(pair)].argmax(1).numpy() == labels).sum())
        return right, float(likely[0][pair[0]] + likely[1][pair[1]])

    best = max(itertools.permutations(words, 2), key=worth)
    assert list(found) == tokenizer.convert_ids_to_tokens(list(best))
    assert cloze.attached(checkpoint.model).words is not None  # the form is as it was


def test_words_of_many_labels_are_exchanged_one_by_one_until_no_other_is_better():
    random = np.random.default_rng(5)
    labels = np.repeat(np.arange(6), 20)
    logits = random.normal(size=(120, 40))
    logits[np.arange(120), labels * 5] += 4  # the words that tell the labels apart
    likelihood = random.normal(size=(6, 40))
    found = assign(logits, labels, [range(40)] * 6, likelihood)
    assert found == tuple(range(0, 30, 5))


def test_labels_that_are_words_stand_for_themselves_and_others_are_searched(tiny_model):
    def form(*labels):
        return cloze.attached(Cloze().open(tiny_model("bert_lm"), SINGLE.model_copy(update={"labels": labels})).model)

    assert form("bad", "good").verbalizer == {"bad": ("bad",), "good": ("good",)}
    assert not form("bad", "good").is_provisional
    assert form("0", "1").is_provisional  # a number says nothing
    assert form("bad", "very_good").is_provisional


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{text} It was good.", "{mask} {text} {mask}"])
def test_a_template_without_just_one_gap_is_refused_with_an_example(template):
    with pytest.raises(ValidationError, match=r"needs one \{mask\}.* such as '\{text\} It was \{mask\}\.'"):
        Cloze(template=template)


@pytest.mark.parametrize(
    ("problem", "fields", "line"),
    [
        (SINGLE, {"template": "It was {mask}."}, r"has \{text\} 0 times"),
        (SINGLE, {"template": "{txt} It was {mask}."}, r"unknown place 'txt'\. Did you mean 'text'"),
        (PAIR, {"template": "{text_pair}? {mask}, {text}"}, "in the order text, then text_pair"),
        (SINGLE, {"verbalizer": {"bad": "awful"}}, "no word for label 'good'"),
        (SINGLE, {"verbalizer": {"bad": "awful", "god": "great"}}, "unknown label 'god'. Did you mean 'good'"),
        (SINGLE.model_copy(update={"multi_label": True}), {}, "words compete for one gap"),
    ],
)
def test_a_form_that_does_not_go_with_the_problem_is_refused_before_a_model_is_opened(problem, fields, line):
    with pytest.raises(UnsupportedError, match=line):
        Cloze(**fields).check(problem)


@pytest.mark.parametrize(
    ("family", "problem", "fields", "line"),
    [
        (
            "bert_lm",
            SINGLE,
            {"verbalizer": {"bad": "greatly", "good": "good"}},
            "'greatly' of label 'bad' .*'great', '##l",
        ),
        ("bert_lm", SINGLE, {"verbalizer": {"bad": "ж", "good": "good"}}, r"'ж' of label 'bad' .*'\[UNK\]'"),
        ("bert", SINGLE, {}, "lacks cls.predictions.*such as bert-base-uncased"),
        ("gpt2", SINGLE, {"template": "{mask}: {text}"}, "put {mask} last, such as '{text} It was {mask}'"),
        ("gpt2", PAIR, {"template": "{text} {text_pair} {mask}"}, "puts nothing between them"),
        ("t5", SINGLE, {}, "cloze needs an encoder.*got t5"),
    ],
)
def test_a_model_or_a_word_that_does_not_go_is_refused_in_one_line(family, problem, fields, line, tiny_model):
    with pytest.raises(UnsupportedError, match=line) as refused:
        Cloze(**fields).open(tiny_model(family), problem)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_a_mask_is_refused(tiny_model, tmp_path):
    tokenizer = checkpoints.load_tokenizer(tiny_model("bert_lm"))
    tokenizer.mask_token = None
    with pytest.raises(UnsupportedError, match="needs a tokenizer with a mask token"):
        Template.of("{text} It was {mask}.", ("text",), tokenizer, is_causal=False)


def test_a_params_file_is_told_of_a_start_without_a_language_model(tiny_model, tmp_path):
    def told(base: str, stages: str) -> str:
        path = tmp_path / "p.yaml"
        path.write_text(
            f"name: x\nproblem: text_classification\nbase_model: {base}\n"
            f"data: {{sources: {{train: {{name: support_requests}}}}}}\nstages:\n{stages}"
        )
        with pytest.raises(ParamsError) as caught:
            load_experiment(path)
        return str(caught.value)

    cloze_stage = "  - {name: second, strategy: cloze, start_from: %s}\n"
    full = "  - {name: first, strategy: full}\n" + cloze_stage % "first"
    assert "cloze cannot start from stage 'first'" in told(str(tiny_model("bert_lm")), full)
    assert "names a class without" in told(str(tiny_model("bert")), cloze_stage % "base")
    assert size_of(str(tiny_model("bert_lm"))).predicts_words
