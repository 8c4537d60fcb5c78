"""Token averaging against decoding written out: every step by every model, from the beginning, without a cache."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flows.graph import steps
from ftlib.data.clean import Cleaning
from ftlib.ensembling import Scores
from ftlib.errors import ParamsError, UnsupportedError
from ftlib.evaluation.side_by_side import side_by_side
from ftlib.fusion.token_averaging import TokenAveraging
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.ensembles import Ensemble
from ftlib.models.layers import unwrapped
from ftlib.params.loading import load_experiment
from ftlib.prediction import predict, predict_jointly
from ftlib.problems._generation import Generation
from ftlib.problems.base import Problem
from ftlib.problems.text_generation import TextGeneration
from ftlib.problems.translation import Translation
from ftlib.serving import answering
from ftlib.serving.packing import pack
from ftlib.strategies.base import Strategy
from ftlib.targets.single_label import SingleLabel
from ftlib.targets.texts import Texts, candidates
from ftlib.training import stage
from tests import contracts

LIMIT = 8
BEAMS = {"num_beams": 3, "num_candidates": 3}


def problem_of(family: str, **generation: Any) -> Problem:
    """Return a problem that a family writes texts for."""
    settings = Generation.model_validate({"max_new_tokens": LIMIT, **generation})
    if family in ("t5", "bart"):
        return Translation(max_length=64, max_target_length=24, generation=settings)
    return TextGeneration(max_length=64, max_answer_tokens=24, generation=settings)


Members = Callable[..., list[Checkpoint]]


@pytest.fixture
def members(tiny_model: Callable[..., Path]) -> Members:
    """Return a function that opens members of one vocabulary, each with an opinion of its own."""

    def opened(family: str, *strategies: str) -> list[Checkpoint]:
        return [_disturbed(tiny_model(family), family, strategy, seed) for seed, strategy in enumerate(strategies)]

    return opened


def _disturbed(folder: Path, family: str, strategy: str, seed: int) -> Checkpoint:
    stage.set_seed(seed + 3)
    problem = problem_of(family)
    checkpoint = checkpoints.load(folder, problem)
    kind = {"num_virtual_tokens": 3} if strategy in ("prefix", "prompt_tuning") else {}
    chosen = Strategy.named(strategy)(**kind)
    model = chosen.adapt(checkpoint.model, problem)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or strategy != "prefix":
                parameter.add_(torch.randn_like(parameter) * (0.5 if "prompt" in name else 0.15))
    model = chosen.finish(model).eval().requires_grad_(False)
    return Checkpoint(model, checkpoint.tokenizer, {"problem": problem.model_dump(mode="json")})


def ensemble_of(members: Sequence[Checkpoint], **fusion: Any) -> Ensemble:
    joint = TokenAveraging(**fusion).joint(len(members))
    return Ensemble.of({f"m{i}": members[i] for i in joint.used}, joint)


def jointly(problem: Problem, members: Sequence[Checkpoint], rows: pa.Table, **fusion: Any) -> pa.Table:
    ensemble = ensemble_of(members, **fusion)
    return predict_jointly(ensemble, [rows] * len(ensemble.checkpoints), problem).table


def rows_of(problem: Problem, member: Checkpoint, limit: int = 5) -> pa.Table:
    return contracts.encoded_rows(problem, member.tokenizer, limit)


# -- decoding written out ------------------------------------------------------------------------------


def next_logs(problem: Problem, member: Checkpoint, rows: pa.Table, row: int, said: list[int]) -> np.ndarray:
    """Return one model's log-probabilities of the token behind what was said, by a pass without any cache."""
    from ftlib.training.batches import Rows

    known = [*said, 0]
    one = rows.slice(row, 1).select(["row_id", "input_ids"])
    if "prompt_ids" in rows.column_names:
        prompt = rows["prompt_ids"][row].as_py()
        ids, labels = [*prompt, *known], [*[-100] * len(prompt), *known]
        one = one.set_column(1, "input_ids", pa.array([ids], pa.list_(pa.int32())))
    else:
        labels = known
    one = one.append_column("labels", pa.array([labels], pa.list_(pa.int32())))
    batch = Rows.from_table(one, member.tokenizer, problem).batch(np.arange(1))
    with torch.no_grad():
        logits = problem.forward(member.model, batch)
    last = logits.reshape(-1, logits.shape[-1])[len(said)].double()
    return last.log_softmax(-1).numpy()[: len(member.tokenizer.get_vocab())]


def mean_logs(found: Sequence[np.ndarray], weights: Sequence[float], mean: str) -> np.ndarray:
    """The formula: the weighted mean of probabilities, or of log-probabilities, summing to 1."""
    size = min(map(len, found))
    if mean == "arithmetic":
        return np.log(sum(w * np.exp(one[:size]) for w, one in zip(weights, found, strict=True)))
    logs = sum(w * one[:size] for w, one in zip(weights, found, strict=True))
    return logs - np.log(np.exp(logs).sum())


def forced(
    problem: Problem, members: Sequence[Checkpoint], rows: pa.Table, row: int, text: list[int],
    weights: Sequence[float], mean: str = "arithmetic",
) -> float:  # fmt: skip
    """Return the log-probability of a text's tokens by the members' mean, each given those before it."""
    total = 0.0
    for at, token in enumerate(text):
        found = [next_logs(problem, member, rows, row, text[:at]) for member in members]
        total += float(mean_logs(found, weights, mean)[token])
    return total


def greedy(
    problem: Problem, members: Sequence[Checkpoint], rows: pa.Table, row: int, weights: Sequence[float], mean: str
) -> list[int]:
    said: list[int] = []
    end = members[0].tokenizer.eos_token_id
    must_end = unwrapped(members[0].model).generation_config.forced_eos_token_id is not None  # BART's
    while len(said) < LIMIT and (not said or said[-1] != end):
        found = [next_logs(problem, member, rows, row, said) for member in members]
        last = must_end and len(said) == LIMIT - 1
        said.append(end if last else int(mean_logs(found, weights, mean).argmax()))
    return said


def text_of(member: Checkpoint, tokens: list[int]) -> str:
    return str(member.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


CELLS = [
    ("t5", "arithmetic", ("full", "full", "full")),
    ("llama", "geometric", ("full", "full", "full")),
    ("t5", "geometric", ("prompt_tuning", "prefix", "full")),
    ("bart", "arithmetic", ("full", "prompt_tuning", "prefix")),
    ("llama", "arithmetic", ("full", "prefix", "prompt_tuning")),
    ("gpt2", "geometric", ("prefix", "full", "prompt_tuning")),
]


@pytest.mark.parametrize(("family", "mean", "strategies"), CELLS)
def test_greedy_decoding_takes_the_likeliest_token_of_the_mean_at_every_step(
    family: str, mean: str, strategies: tuple[str, ...], members: Members
) -> None:
    found, problem = members(family, *strategies), problem_of(family)
    rows, weights = rows_of(problem, found[0], 2), (0.5, 0.25, 0.25)
    told = jointly(problem, found, rows, weights=(2, 1, 1), mean=mean)
    expected = [greedy(problem, found, rows, i, weights, mean) for i in range(2)]
    assert told["texts"].to_pylist() == [[text_of(found[0], tokens)] for tokens in expected]
    logs = [forced(problem, found, rows, i, tokens, weights, mean) for i, tokens in enumerate(expected)]
    sure = [np.exp(log / len(tokens)) for log, tokens in zip(logs, expected, strict=True)]
    np.testing.assert_allclose([support[0] for support in told["support"].to_pylist()], sure, rtol=1e-4)


@pytest.mark.parametrize("family", ["t5", "bart", "llama"])
def test_members_answer_otherwise_together_than_each_alone(family: str, members: Members) -> None:
    found, problem = members(family, "full", "full", "full"), problem_of(family)
    rows = rows_of(problem, found[0])
    told = jointly(problem, found, rows)["texts"].to_pylist()
    assert all(told != predict(one, rows, problem).table["texts"].to_pylist() for one in found)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_caches_follow_the_beams(family: str, members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same search without any cache finds the same texts."""
    found, problem = members(family, "full", "prompt_tuning"), problem_of(family, **BEAMS)
    rows = rows_of(problem, found[0])
    with_caches = jointly(problem, found, rows, weights=(3, 1))
    for one in found:
        monkeypatch.setattr(one.model, "generate", partial(_uncached, one.model.generate))
    without = jointly(problem, found, rows, weights=(3, 1))
    assert with_caches["texts"].to_pylist() == without["texts"].to_pylist()
    np.testing.assert_allclose(_flat(with_caches["support"]), _flat(without["support"]), rtol=1e-4)


def _uncached(generate: Callable[..., Any], **given: Any) -> Any:
    return generate(**{**given, "use_cache": False})


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_a_beams_score_is_the_means_log_probability_of_its_tokens(
    family: str, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What transformers' search adds up, step by step, against every text forced through all members from its start."""
    found, problem = members(family, "full", "prefix"), problem_of(family, **BEAMS, length_penalty=0.5)
    rows = rows_of(problem, found[0], 1)
    told: list[Any] = []
    monkeypatch.setattr(found[0].model, "generate", partial(_telling, found[0].model.generate, told))
    jointly(problem, found, rows, weights=(3, 1))
    [(sequences, scores)] = told
    start = len(rows["prompt_ids"][0]) if "prompt_ids" in rows.column_names else 1
    end, is_forced = found[0].tokenizer.eos_token_id, family == "bart"  # its last token, whatever the members say
    for sequence, score in zip(sequences[:, start:].tolist(), scores.tolist(), strict=True):
        tokens = sequence[: sequence.index(end) + 1] if end in sequence else sequence
        by_choice = tokens[:-1] if is_forced and len(tokens) == LIMIT else tokens
        log = forced(problem, found, rows, 0, by_choice, (0.75, 0.25))
        assert score == pytest.approx(log / len(tokens) ** 0.5, rel=1e-4)


def _telling(generate: Callable[..., Any], told: list[Any], **given: Any) -> Any:
    found = generate(**given, return_dict_in_generate=True, output_scores=True)
    told.append((found.sequences, found.sequences_scores))
    return found.sequences


def _flat(column: pa.ChunkedArray) -> list[float]:
    return [value for row in column.to_pylist() for value in row]


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_virtual_tokens_take_no_share_of_the_mean_and_are_never_said(mean: str, members: Members) -> None:
    """The second member has two virtual tokens at the ids 5 and 6; only the first of them is a column of both."""
    ensemble = dataclasses.replace(
        ensemble_of(members("t5", "full", "full"), weights=(1, 3), mean=mean), virtual=((), (5, 6))
    )
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(4, 6, generator=random), torch.randn(4, 7, generator=random) * 3
    logs = [one.double().log_softmax(-1).numpy()[:, :5], other[:, :5].double().log_softmax(-1).numpy()]
    expected = 0.25 * np.exp(logs[0]) + 0.75 * np.exp(logs[1])
    if mean == "geometric":
        expected = np.exp(0.25 * logs[0] + 0.75 * logs[1])
    for found in (ensemble.mixed([one, other]).softmax(-1), ensemble.mixed([one, other])[:, :5].softmax(-1)):
        np.testing.assert_allclose(found[:, :5], expected / expected.sum(1, keepdims=True), rtol=1e-5)
        assert found[:, 5:].sum() == 0


# -- laws ----------------------------------------------------------------------------------------------

WAYS = ({}, BEAMS, {"do_sample": True, "num_candidates": 3, "temperature": 1.5, "no_repeat_ngram_size": 2})


@pytest.mark.parametrize("generation", WAYS, ids=["greedy", "beams", "draws"])
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_copies_of_one_member_say_what_it_says(
    family: str, generation: dict[str, Any], tiny_model: Callable[..., Path]
) -> None:
    copies = [_disturbed(tiny_model(family), family, "full", 0) for _ in range(3)]
    problem = problem_of(family, **generation)
    rows = rows_of(problem, copies[0])
    alone, together = predict(copies[0], rows, problem).table, jointly(problem, copies, rows)
    assert together["texts"].to_pylist() == alone["texts"].to_pylist()
    np.testing.assert_allclose(_flat(together["support"]), _flat(alone["support"]), rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "llama"])
def test_one_member_alone_or_with_all_the_weight_says_what_it_says(family: str, members: Members) -> None:
    one, other = members(family, "full", "prompt_tuning")
    problem = problem_of(family, **BEAMS)
    rows = rows_of(problem, one)
    alone = predict(one, rows, problem).table
    assert jointly(problem, [one], rows).equals(alone)
    assert jointly(problem, [one, other], rows, weights=(1, 0)).equals(alone)
    assert jointly(problem, [other, one], rows, weights=(0, 2.5), mean="geometric").equals(alone)


@pytest.mark.parametrize("generation", WAYS, ids=["greedy", "beams", "draws"])
def test_what_a_row_is_answered_does_not_depend_on_the_rows_beside_it(
    generation: dict[str, Any], members: Members
) -> None:
    found, problem = members("t5", "full", "prefix"), problem_of("t5", **generation)
    rows = rows_of(problem, found[0], 4)
    together = jointly(problem, found, rows)
    for i in range(len(rows)):
        alone = jointly(problem, found, rows.slice(i, 1))
        assert alone["texts"].to_pylist() == together["texts"].slice(i, 1).to_pylist()


def test_the_gold_answers_perplexity_is_that_of_the_mean(members: Members) -> None:
    found, problem = members("llama", "full", "full"), problem_of("llama")
    rows = rows_of(problem, found[0], 3)
    answers = [[t for t in line if t != -100] for line in rows["labels"].to_pylist()]
    logs = [forced(problem, found, rows, i, answer, (0.5, 0.5)) for i, answer in enumerate(answers)]
    expected = float(np.exp(-sum(logs) / sum(map(len, answers))))
    assert problem.own_metrics(jointly(problem, found, rows)) == {"perplexity": pytest.approx(expected, rel=1e-4)}


def test_an_error_in_one_member_ends_all_and_is_told(members: Members) -> None:
    found, problem = members("t5", "full", "full", "full"), problem_of("t5")
    rows, steps = rows_of(problem, found[0]), []

    def breaks(module: Any, arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            raise OSError("out of memory")

    found[1].model.register_forward_pre_hook(breaks)
    before = threading.active_count()
    with pytest.raises(OSError, match="out of memory"):
        jointly(problem, found, rows)
    assert threading.active_count() == before
    assert not any(one.model._forward_hooks for one in found)


# -- refused -------------------------------------------------------------------------------------------


def test_members_of_other_vocabularies_are_refused_by_name(tiny_model: Callable[..., Path]) -> None:
    members = {family: checkpoints.load(tiny_model(family), problem_of("t5")) for family in ("bart", "t5")}
    with pytest.raises(UnsupportedError, match=r"token_averaging needs .* vocabulary: 'bart' .* 't5'.*minimum_bayes"):
        Ensemble.of(members, TokenAveraging().joint(2))


def test_labels_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"token_averaging .* cannot combine single_label"):
        TokenAveraging().check(SingleLabel(("a", "b")))


def test_a_problem_whose_answers_are_not_written_says_so(members: Members) -> None:
    from ftlib.problems.text_classification import TextClassification

    ensemble = ensemble_of(members("t5", "full", "full"))
    with pytest.raises(UnsupportedError, match="text_classification: no answer is written token by token"):
        TextClassification().predict_jointly(ensemble, [])


@pytest.mark.parametrize(
    ("weights", "message"), [((1, 2, 3), "3 weights for 2 members"), ((0, 0), "all weights are 0")]
)
def test_weights_that_do_not_fit_the_members_are_refused(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        TokenAveraging(weights=weights).joint(2)


# -- in an experiment ----------------------------------------------------------------------------------

PARAMS = {
    "name": "pair",
    "base_model": "random:t5",
    "problem": "translation",
    "data": {"sources": {"all": {"name": "sample_translations", "num_rows": 100}}},
    "splitting": {"fusion_ratio": 0.1},
    "stages": [{"name": "one", "strategy": "full"}, {"name": "two", "strategy": "full"}],
    "fusions": ["token_averaging", "averaging"],
}


def planned(*overrides: str) -> dict[str, Any]:
    return {step.step_name: step for step in steps(load_experiment(PARAMS, overrides))}


def test_the_members_run_together_on_validation_and_test_and_nothing_else_waits_for_it() -> None:
    found = planned()
    receivers = {name: [s for s, step in found.items() if name in step.inputs.values()] for name in found}
    assert "predict-token_averaging-fusion" not in found
    assert receivers["predict-token_averaging-validation"] == ["fuse-token_averaging", "evaluate"]
    assert receivers["predict-token_averaging-test"] == ["evaluate"]
    assert "compare-token_averaging" not in found
    assert set(found["predict-token_averaging-test"].inputs.values()) == {"train-one", "train-two", "encode"}


def test_members_of_other_base_models_are_compared_before_anything_is_trained(tiny_model: Callable[..., Path]) -> None:
    found = planned("stages.1.base_model=random:bart")
    assert list(found).index("compare-token_averaging") < list(found).index("train-one")
    draft: Any = None  # it refuses before it writes
    with pytest.raises(UnsupportedError, match=r"token_averaging needs .*'one' .* 'two'"):
        found["compare-token_averaging"].run(draft, checkpoint_0=tiny_model("t5"), checkpoint_1=tiny_model("bart"))


def test_wrong_weights_are_told_with_their_place_in_the_file() -> None:
    with pytest.raises(ParamsError, match=r"fusions\.0\.method: token_averaging: 3 weights for 2 members"):
        planned("fusions.0={name: a, method: {name: token_averaging, weights: [1, 1, 1]}}")


def test_models_lie_side_by_side_over_all_candidates_and_choose_as_before() -> None:
    own = [(["a", "b"], [0.6, 0.4]), (["c"], [0.9])], [(["b"], [0.8]), (["d", "c"], [0.5, 0.4])]
    said = [(["e", "b"], [0.7, 0.2]), (["c"], [0.3])]
    values, layout = candidates(own)
    together, other = candidates([said, said])
    ids = np.arange(2)
    models = {"one": values[0], "two": values[1], "mean": values.mean(0), "joint": together[0]}
    found, wide = side_by_side(Scores(ids, values, layout), {"joint": Scores(ids, together, other)}, models)
    assert [found.units["text"].to_pylist()[a:b] for a, b in pairwise(found.splits)] == [["b", "a", "e"], ["c", "d"]]
    for name, scores in models.items():
        target = Texts().over(other if name == "joint" else layout)
        assert Texts().over(found).decode(wide[name]) == target.decode(scores)
        assert Texts().over(found).ranked(wide[name], 9) == target.ranked(scores, 9)
    assert Texts().over(found).decode(wide["joint"]) == ["e", "c"]


def test_a_served_model_writes_together_what_the_step_wrote(members: Members, tmp_path: Path) -> None:
    problem = problem_of("t5", **BEAMS)
    found = members("t5", "full", "prompt_tuning", "prefix")
    fusion = TokenAveraging(weights=(1, 0, 3), mean="geometric")
    target = problem.target
    fusion.fit(np.zeros((3, 0, 1)), np.zeros((0, 1)), target, seed=0).save(_made(tmp_path / "fitted"))
    for i, one in enumerate(found):
        checkpoints.save(one, _made(tmp_path / f"m{i}"))
    pack(
        _made(tmp_path / "packed"),
        best="together",
        problem=problem,
        cleaning=Cleaning(),
        members={f"m{i}": tmp_path / f"m{i}" for i in range(3)},
        fusions={"together": (fusion, tmp_path / "fitted")},
    )
    served = answering.load(tmp_path / "packed")
    raw = contracts.raw_rows(problem, 4)
    told = jointly(problem, found, rows_of(problem, found[0], 4), weights=(1, 0, 3), mean="geometric")
    answers = served.predict(raw)
    assert [member.name for member in served.members] == ["m0", "m2"]
    assert answers["prediction"].tolist() == [texts[0] for texts in told["texts"].to_pylist()]
    np.testing.assert_allclose(answers["score"], [support[0] for support in told["support"].to_pylist()], rtol=1e-5)
    alone = served.alone("m2").predict(raw)["prediction"].tolist()
    assert alone == [t[0] for t in predict(found[2], rows_of(problem, found[2], 4), problem).table["texts"].to_pylist()]
    assert alone != answers["prediction"].tolist()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
