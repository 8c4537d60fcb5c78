"""Broken params files: each gets exactly one helpful line for each problem, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.errors import ParamsError
from ftlib.params.loading import load_experiment
from ftlib.strategies.base import Strategy

Write = Callable[[str | bytes], Path]

# What the good file says, what this one says in its place, and the lines that must come.
# ruff: noqa: E501  exact lines are easier to read unbroken
BROKEN = [
    pytest.param(
        "name: tickets",
        "nmae: tickets",
        [
            "p.yaml: name: is missing; expected text. What the experiment, its runs and its model are called.",
            "p.yaml:2: nmae: unknown key 'nmae' of an experiment. Did you mean 'name'?",
        ],
        id="misspelt key",
    ),
    pytest.param(
        "name: tickets",
        "name: My Tickets",
        [
            "p.yaml:2: name: 'My Tickets' is no name; names are lower-case letters, digits, '-' and '_', at most 64. Write 'my-tickets'."
        ],
        id="name with a space",
    ),
    pytest.param(
        "name: tickets\n",
        "",
        ["p.yaml: name: is missing; expected text. What the experiment, its runs and its model are called."],
        id="missing name",
    ),
    pytest.param(
        "seed: 7",
        "seed: seven",
        ["p.yaml:3: seed: 'seven' is text; expected an integer, at least 0, below 2^31."],
        id="text for integer",
    ),
    pytest.param(
        "seed: 7",
        "seed: 4294967296",
        ["p.yaml:3: seed: is 4294967296; expected an integer, at least 0, below 2^31."],
        id="too large",
    ),
    pytest.param(
        "seed: 7",
        "seed: 7\nseed: 8",
        ["p.yaml:4: the key 'seed' is given twice in one section; keep one of the two."],
        id="duplicate key",
    ),
    pytest.param(
        "seed: 7",
        "seed: 7\nlearning_rate: 1e-4",
        ["p.yaml:4: learning_rate: unknown key 'learning_rate' of an experiment. It belongs in section 'training'."],
        id="key of another section",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: 5",
        ["p.yaml:4: base_model: is 5; expected text, at least 1 character. Put it in quotes: '5'."],
        id="number for text",
    ),
    pytest.param(
        "name: text_classification",
        "name: text_clasification",
        [
            "p.yaml:6: problem.name: unknown problem 'text_clasification'. Did you mean 'text_classification' or 'text_pair_classification' or 'token_classification'? `ftlib list problems` names all."
        ],
        id="unknown problem",
    ),
    pytest.param(
        "labels: [no, yes]",
        "labels: yes",
        ["p.yaml:7: problem.labels: 'yes' is text; expected a list (each item text). Write [yes]."],
        id="text for list",
    ),
    pytest.param(
        "labels: [no, yes]",
        "labels: [no, no]",
        ["p.yaml:7: problem.labels: 'no' is given twice; names are unique."],
        id="same label twice",
    ),
    pytest.param(
        "labels: [no, yes]",
        "multi_label: yes",
        ["p.yaml:7: problem.multi_label: 'yes' is text; expected true or false. Write true."],
        id="yes for true",
    ),
    pytest.param(
        "train: data/train.tsv",
        "trian: data/train.tsv",
        ["p.yaml:10: data.sources.trian: unknown key 'trian'. Did you mean 'train'?"],
        id="misspelt split",
    ),
    pytest.param(
        "train: data/train.tsv",
        "all: data/train.tsv",
        ["p.yaml:9: data.sources: 'all' is one source to be split; give it alone, or one source a split."],
        id="all beside test",
    ),
    pytest.param(
        "train: data/train.tsv",
        "validation: data/train.tsv",
        ["p.yaml:9: data.sources: needs 'train' (validation and test are taken from it where missing), or 'all'."],
        id="no train",
    ),
    pytest.param(
        "train: data/train.tsv",
        "train: data/train.pkl",
        [
            "p.yaml:10: data.sources.train: data/train.pkl: pickles are refused, since opening one runs what is in it. Save it as Parquet: df.to_parquet(...)"
        ],
        id="pickle",
    ),
    pytest.param(
        "{text: sentence, label: 1}",
        "{txt: sentence, label: 1}",
        [
            "p.yaml:12: data.columns.txt: unknown column 'txt'. Did you mean 'text'? text_classification reads text, label."
        ],
        id="unknown column",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "learning_rate: fast",
        ["p.yaml:14: training.learning_rate: 'fast' is text; expected a number, greater than 0."],
        id="text for number",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "learning_rate: -5e-5",
        ["p.yaml:14: training.learning_rate: is -5e-05; expected a number, greater than 0."],
        id="negative",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "learning_rate: 1e999",
        ["p.yaml:14: training.learning_rate: inf is no finite number; expected a number, greater than 0."],
        id="infinite",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "learning_rate: '5e-5'",
        [
            "p.yaml:14: training.learning_rate: '5e-5' is text; expected a number, greater than 0. Write 5e-5, without quotes or separators."
        ],
        id="quoted number",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "batch_size: 1_000",
        [
            "p.yaml:14: training.batch_size: '1_000' is text; expected an integer, at least 1. Write 1000, without quotes or separators."
        ],
        id="underscore",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "batch_size: 32.0",
        ["p.yaml:14: training.batch_size: is 32.0; expected an integer, at least 1. Write 32."],
        id="float for int",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "warmup_ratio: 10%",
        ["p.yaml:14: training.warmup_ratio: '10%' is text; expected a number, at least 0, below 1. Write 0.1."],
        id="per cent",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "precision: fp16",
        ["p.yaml:14: training.precision: unknown value 'fp16'. Expected one of: auto, bfloat16, float32."],
        id="unknown precision",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "  ",
        [
            "p.yaml:13: training: is empty; expected a mapping with the keys learning_rate, num_train_epochs, batch_size, batch_tokens, micro_batch_size, gradient_checkpointing, warmup_ratio, lr_scheduler_type and more. Remove the key to use the default."
        ],
        id="empty section",
    ),
    pytest.param(
        "strategy: full",
        "strategy: ful",
        [
            "p.yaml:17: stages.0.strategy: unknown strategy 'ful'. Did you mean 'full'? `ftlib list strategies` names all."
        ],
        id="near strategy",
    ),
    pytest.param(
        "{name: lora, r: 4}",
        "{name: lroa, r: 4}",
        [
            "p.yaml:19: stages.1.strategy.name: unknown strategy 'lroa'. Did you mean 'lora'? `ftlib list strategies` names all."
        ],
        id="misspelt",
    ),
    pytest.param(
        "{name: lora, r: 4}",
        "{name: lora, r: 0}",
        ["p.yaml:19: stages.1.strategy.r: is 0; expected an integer, at least 1."],
        id="zero rank",
    ),
    pytest.param(
        "strategy: full",
        "strategy: full\n    learning_rate: 1e-4",
        [
            "p.yaml:18: stages.0.learning_rate: unknown key 'learning_rate' of a stage. It belongs in section 'training'."
        ],
        id="training key in the stage",
    ),
    pytest.param(
        "strategy: full",
        "strategy: full\n    member: no",
        ["p.yaml:18: stages.0.member: 'no' is text; expected true or false. Write false."],
        id="no for false",
    ),
    pytest.param(
        "learning_rate: 5e-5",
        "learning_rate: 0,0001",
        [
            "p.yaml:14: training.learning_rate: '0,0001' is text; expected a number, greater than 0. "
            "Write 0.0001: a decimal point, no comma."
        ],
        id="decimal comma",
    ),
    pytest.param(
        "training:\n",
        "splitting: {validation_ratio: 0.6, fusion_ratio: 0.4}\ntraining:\n",
        [
            "p.yaml:13: splitting: validation_ratio 0.6, fusion_ratio 0.4 leave nothing to train on; "
            "their sum must be below 1."
        ],
        id="shares that leave nothing",
    ),
    pytest.param(
        "columns: {text: sentence, label: 1}",
        "columns: {text: sentence, label: sentence}",
        [
            "p.yaml:12: data.columns.label: 'sentence' is read as the text too; the answer would stand in the input. "
            "Name another column."
        ],
        id="label among the texts",
    ),
    pytest.param(
        "{name: csv, path: data/test.csv}",
        "{name: csv, path: data/test.csv, delimiter: '||'}",
        [
            "p.yaml:11: data.sources.test.delimiter: '||' is text; expected text, at least 1 character, "
            "at most 1 character. Write it as in ','."
        ],
        id="delimiter of two characters",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: ''",
        ["p.yaml:4: base_model: '' is text; expected text, at least 1 character."],
        id="no base model",
    ),
    pytest.param(
        "start_from: full",
        "start_from: ful",
        ["p.yaml:20: stages.1.start_from: unknown stage 'ful'. Did you mean 'full'?"],
        id="unknown start",
    ),
    pytest.param(
        "start_from: full",
        "start_from: small",
        ["p.yaml:15: stages: lora -> small -> lora is a cycle; a stage cannot wait for itself."],
        id="cycle",
    ),
    pytest.param(
        "start_from: full",
        "start_from: full\n    base_model: other",
        ["p.yaml:21: stages.1.base_model: goes with start_from: base only; this stage starts from 'full'."],
        id="base_model beside start_from",
    ),
    pytest.param(
        "teacher: [full, lora]",
        "teacher: [full, lroa]",
        ["p.yaml:23: stages.2.strategy.teacher: unknown stage 'lroa'. Did you mean 'lora'?"],
        id="unknown teacher",
    ),
    pytest.param(
        "name: lora\n",
        "name: full\n",
        ["p.yaml:18: stages.1.name: 'full' is taken already; names are unique."],
        id="stage name twice",
    ),
    pytest.param(
        "- averaging",
        "- greedi",
        ["p.yaml:25: fusions.0: unknown fusion 'greedi'. Did you mean 'greedy'? `ftlib list fusions` names all."],
        id="unknown fusion",
    ),
    pytest.param(
        "- averaging",
        "- name: full\n    method: averaging",
        ["p.yaml:25: fusions.0.name: 'full' is a stage's name already; names are unique."],
        id="fusion named as a stage",
    ),
    pytest.param(
        "fusions:",
        "evaluation: {metric: acuracy}\nfusions:",
        ["p.yaml:24: evaluation.metric: unknown metric 'acuracy'. Did you mean 'accuracy'?"],
        id="unknown metric",
    ),
    pytest.param(
        "fusions:",
        "tracking: {country: Germany}\nfusions:",
        [
            "p.yaml:24: tracking.country: 'Germany' does not fit (Whose electricity is assumed for carbon: ISO 3166 alpha-3); expected the form ^[A-Z]{3}$, such as 'USA'."
        ],
        id="country",
    ),
    pytest.param(
        "fusions:",
        "splitting: {test_ratio: 1.5}\nfusions:",
        ["p.yaml:24: splitting.test_ratio: is 1.5; expected a number, greater than 0, below 1."],
        id="ratio",
    ),
    pytest.param("seed: 7", "seed:\t7", ["p.yaml:3:6: holds a tab; YAML is indented with spaces."], id="tab"),
    pytest.param(
        "seed: 7",
        "seed: 7: 8",
        ["p.yaml:3:8: has a ':' where none can be; put a text with ': ' in quotes, or indent it."],
        id="two colons",
    ),
    pytest.param(
        "labels: [no, yes]",
        "labels: [no, yes",
        ["p.yaml:7:11: opens a list with [ and does not close it; a ',' or ']' is missing."],
        id="open list",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: 'models/tiny",
        ["p.yaml:4:13: opens a quote and never closes it."],
        id="open quote",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: @tiny",
        ["p.yaml:4:13: has a text that begins with '@'; put it in quotes."],
        id="at sign",
    ),
    pytest.param(
        "seed: 7",
        "seed 7",
        ["p.yaml:4:1: is not 'key: value'; a ':' and a space are missing here or on the line above."],
        id="no colon",
    ),
    pytest.param(
        "seed: 7",
        " seed: 7",
        ["p.yaml:3:6: has a ':' where none can be; put a text with ': ' in quotes, or indent it."],
        id="indent",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: *tiny",
        ["p.yaml:4:13: uses *tiny, but no &tiny comes before it."],
        id="alias",
    ),
    pytest.param(
        "base_model: models/tiny",
        "base_model: !!python/name:os.system x",
        ["p.yaml:4: the tag 'python/name:os.system' is refused; a params file holds plain values."],
        id="python tag",
    ),
]


def problems_of(path: Path, *changes: str) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load_experiment(path, changes)
    assert caught.value.__cause__ is None
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def test_the_good_file_is_good(good: str, params_file: Write):
    assert load_experiment(params_file(good)).name == "tickets"


@pytest.mark.parametrize(("said", "instead", "lines"), BROKEN)
def test_a_broken_file_is_told_in_a_line(said: str, instead: str, lines: list[str], good: str, params_file: Write):
    assert said in good
    assert problems_of(params_file(good.replace(said, instead, 1))) == lines


def test_all_problems_are_told_at_once_in_the_order_of_the_file(good: str, params_file: Write):
    text = good.replace("seed: 7", "seed: x").replace("start_from: full", "start_from: nobody")
    text = text.replace("{txt", "{text").replace("strategy: full", "strategy: fulll").replace("C: 2", "C: two")
    assert [line.split(": ")[1] for line in problems_of(params_file(text))] == [
        "seed",
        "stages.0.strategy",
        "stages.1.start_from",
        "fusions.1.method.C",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", "p.yaml: is empty; expected an experiment. `ftlib schema` describes what one holds."),
        (b"# nothing\n", "p.yaml: is empty; expected an experiment. `ftlib schema` describes what one holds."),
        (b"- a\n- b\n", "p.yaml:1: holds a list; expected a mapping, one 'key: value' a line."),
        (b"just words\n", "p.yaml:1: holds one value; expected a mapping, one 'key: value' a line."),
        (b"name: a\n---\nname: b\n", "p.yaml:2:1: begins a second document; a params file holds one experiment."),
        (b"name: caf\xe9\n", "p.yaml:1:10: is not UTF-8 (byte 0xe9 at offset 9). Save the file as UTF-8."),
        (b"name: a\x07b\n", "p.yaml:1:8: holds the control character 0x07; remove it."),
        (b"a: &a [*a]\n", "p.yaml:1: anchors repeat each other without end; write the values out."),
        (b"a: " + b"[" * 600, "p.yaml: is nested too deeply to be an experiment."),
    ],
)
def test_what_is_no_params_file_is_told_in_a_line(text: bytes, line: str, params_file: Write):
    assert problems_of(params_file(text)) == [line]


def test_anchors_that_multiply_do_not_fill_the_memory(params_file: Write):
    layers = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 9))
    [line] = problems_of(params_file(f"l0: &l0 [x, x, x]\n{layers}"))
    assert "anchors repeat each other" in line


def test_a_missing_file_is_answered_with_near_names(good: str, params_file: Write):
    params_file(good)
    assert problems_of(Path("q.yaml")) == ["q.yaml: there is no such file. Did you mean 'p.yaml'?"]


def test_a_folder_is_no_params_file(tmp_path: Path):
    [line] = problems_of(tmp_path)
    assert "is a folder" in line


def test_a_missing_strategy_is_answered_with_those_there_are(good: str, params_file: Write):
    [line] = problems_of(params_file(good.replace("    strategy: full\n", "", 1)))
    assert line.startswith("p.yaml:16: stages.0.strategy: is missing; expected a strategy: ")
    assert Strategy.available()[0] in line
    assert "`ftlib list strategies`" in line


def test_a_parameter_of_another_strategy_is_answered_with_this_ones(good: str, params_file: Write):
    [line] = problems_of(params_file(good.replace("r: 4", "temperature: 4")))
    assert line.startswith("p.yaml:19: stages.1.strategy.temperature: unknown key 'temperature' of strategy 'lora'.")
    assert "dropout" in line


def test_a_file_that_no_source_reads_is_answered_with_the_sources(good: str, params_file: Write):
    [line] = problems_of(params_file(good.replace("data/train.tsv", "data/train.xlsx")))
    assert line.startswith("p.yaml:10: data.sources.train: data/train.xlsx: no source")
    assert "parquet" in line


def test_a_problem_of_the_shared_training_section_is_told_once(good: str, params_file: Write):
    lines = problems_of(params_file(good.replace("learning_rate: 5e-5", "learning_rat: 5e-5")))
    assert lines == [
        "p.yaml:14: training.learning_rat: unknown key 'learning_rat' of training. Did you mean 'learning_rate'?"
    ]
