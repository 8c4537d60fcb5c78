"""Fusions that merge weights, against the papers' formulas written out, and the whole way of a merged model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flows.graph import steps
from ftlib.artifacts import Artifact, Store
from ftlib.errors import ParamsError, UnsupportedError
from ftlib.files import read_json, read_table, write_table
from ftlib.fusion.base import Fusion, Ingredients
from ftlib.fusion.greedy_soup import GreedySoup
from ftlib.fusion.slerp import Slerp
from ftlib.fusion.ties import Ties
from ftlib.fusion.uniform_soup import UniformSoup
from ftlib.models import checkpoints
from ftlib.models.checkpoints import Checkpoint
from ftlib.models.merging import Rows, merge, put, weights_of
from ftlib.params.loading import load_experiment
from ftlib.prediction import predict
from ftlib.problems.base import Problem
from ftlib.problems.text_classification import TextClassification
from ftlib.serving import answering
from ftlib.steps import execute
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from tests import contracts

SHAPES = {"head.weight": (3, 4), "head.bias": (3,), "block.weight": (5, 7)}
State = dict[str, torch.Tensor]


def drawn(seed: int, scale: float = 1.0, start: Mapping[str, torch.Tensor] | None = None) -> State:
    generator = torch.Generator().manual_seed(seed)
    noise = {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: value + (start or {}).get(name, 0.0) for name, value in noise.items()}


def flat(state: Mapping[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([state[name].numpy().ravel() for name in SHAPES])


def merged(fusion: Fusion, members: Sequence[State], start: State | None = None, **scoring: Any) -> Any:
    given = {"values": (), "value_of": lambda weights: 0.0, **scoring}
    return fusion.merge(Ingredients(weights=members, start=start or {}, **given))


# -- the formulas --------------------------------------------------------------------------------------


def test_a_uniform_soup_is_the_mean_of_the_state_dicts() -> None:
    members = [drawn(seed) for seed in range(3)]
    found = merged(UniformSoup(), members)
    expected = sum(flat(one).astype(np.float64) for one in members) / 3
    np.testing.assert_allclose(flat(found.weights), expected, rtol=1e-7)
    assert found.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))


@pytest.mark.parametrize("fusion", [UniformSoup(), Slerp(t=0.3), Ties(density=0.4)], ids=lambda f: f.name)
def test_copies_of_one_member_give_the_member(fusion: Fusion) -> None:
    member = drawn(1)
    found = merged(fusion, [member, member], start={n: v for n, v in member.items() if n != "head.bias"})
    np.testing.assert_allclose(flat(found.weights), flat(member), rtol=1e-6)


def recipe(members: list[np.ndarray], quality: Callable[[np.ndarray], float]) -> tuple[list[int], np.ndarray]:
    """Recipe 1 of Wortsman et al. (2022), line by line."""
    order = sorted(range(len(members)), key=lambda i: quality(members[i]), reverse=True)
    ingredients: list[int] = []
    for i in order:
        with_it = np.mean([members[k] for k in (*ingredients, i)], axis=0)
        if not ingredients or quality(with_it) >= quality(np.mean([members[k] for k in ingredients], axis=0)):
            ingredients.append(i)
    return ingredients, np.mean([members[k] for k in ingredients], axis=0)


@pytest.mark.parametrize("seed", range(6))
def test_a_greedy_soup_is_that_of_the_papers_recipe(seed: int) -> None:
    members = [drawn(10 * seed + i) for i in range(5)]
    ideal = np.random.default_rng(seed).normal(size=flat(members[0]).size)

    def quality(weights: np.ndarray) -> float:
        return -float(np.abs(weights - ideal).round(1).sum().round(0))  # rounded: ties occur, as of accuracies

    expected, soup = recipe([flat(one).astype(np.float64) for one in members], quality)
    found = merged(
        GreedySoup(), members, values=[quality(flat(m)) for m in members], value_of=lambda w: quality(flat(w))
    )
    assert [i for i, share in enumerate(found.shares) if share] == sorted(expected)
    assert len(expected) > 1
    np.testing.assert_allclose(flat(found.weights), soup, rtol=1e-6, atol=1e-7)


def test_a_greedy_soup_leaves_out_what_makes_it_worse_and_says_where_one_is_left() -> None:
    members = [drawn(seed) for seed in range(3)]
    found = merged(GreedySoup(), members, values=[0.7, 0.9, 0.8], value_of=lambda weights: 0.5)
    assert found.shares == (0.0, 1.0, 0.0)
    assert "alone in the soup" in found.note
    np.testing.assert_array_equal(flat(found.weights), flat(members[1]))
    equal = merged(GreedySoup(), members, values=[0.7, 0.9, 0.8], value_of=lambda weights: 0.9)
    assert equal.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert equal.note == ""


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_slerp_is_shoemakes_formula_tensor_by_tensor(t: float) -> None:
    one, two = drawn(1), drawn(2)
    found = merged(Slerp(t=t), [one, two]).weights
    for name in SHAPES:
        p, q = one[name].double().numpy(), two[name].double().numpy()
        omega = np.arccos((p * q).sum() / np.sqrt((p * p).sum() * (q * q).sum()))
        expected = (np.sin((1 - t) * omega) * p + np.sin(t * omega) * q) / np.sin(omega)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_slerp_keeps_the_length_that_the_mean_loses_and_is_the_line_where_there_is_no_arc() -> None:
    one = drawn(1)
    turned = {name: value.flip(0) for name, value in one.items()}
    found = merged(Slerp(), [one, turned]).weights
    for name, value in one.items():
        assert float(found[name].norm()) == pytest.approx(float(value.norm()), rel=1e-6)
        assert float(((value + turned[name]) / 2).norm()) < 0.95 * float(value.norm())
    opposite = {name: -2 * value for name, value in one.items()}
    np.testing.assert_allclose(flat(merged(Slerp(), [one, opposite]).weights), -0.5 * flat(one), rtol=1e-6)
    none = {name: 0 * value for name, value in one.items()}
    np.testing.assert_allclose(flat(merged(Slerp(), [one, none]).weights), 0.5 * flat(one), rtol=1e-6)


def algorithm(start: np.ndarray, members: list[np.ndarray], density: float, scaling: float) -> np.ndarray:
    """Algorithm 1 of Yadav et al. (2023), number by number."""
    kept = int(density * len(start))
    trimmed = []
    for member in members:
        change = member - start
        largest = np.argsort(-np.abs(change))[:kept]
        trimmed.append([change[i] if i in set(largest.tolist()) else 0.0 for i in range(len(start))])
    result = np.empty(len(start))
    for i, origin in enumerate(start):
        positive = sum(change[i] for change in trimmed if change[i] > 0)
        negative = -sum(change[i] for change in trimmed if change[i] < 0)
        sign = 1 if positive > negative else -1
        agreeing = [change[i] for change in trimmed if change[i] * sign > 0]
        result[i] = origin + scaling * (sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return result


@pytest.mark.parametrize(("density", "scaling"), [(0.2, 1.0), (0.5, 1.5), (1.0, 0.8)])
def test_ties_is_the_papers_algorithm_over_the_whole_model(density: float, scaling: float) -> None:
    start = drawn(0)
    members = [drawn(seed, scale=0.1 * seed, start=start) for seed in (1, 2, 3)]
    found = flat(merged(Ties(density=density, scaling=scaling), members, start).weights)
    expected = algorithm(flat(start), [flat(one) for one in members], density, scaling)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(expected, np.mean([flat(one) for one in members], axis=0), atol=1e-3)


@pytest.mark.filterwarnings("ignore:The density")
def test_ties_is_pefts_on_the_flattened_changes() -> None:
    from peft.utils.merge_utils import ties

    start = drawn(0)
    members = [drawn(seed, scale=0.2, start=start) for seed in (4, 5, 6, 7)]
    changes = [torch.from_numpy(flat(one) - flat(start)) for one in members]
    expected = torch.from_numpy(flat(start)) + 1.3 * ties(changes, torch.ones(4), density=0.3)
    found = flat(merged(Ties(density=0.3, scaling=1.3), members, start).weights)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_ties_averages_what_the_start_does_not_have() -> None:
    start = {name: value for name, value in drawn(0).items() if name.startswith("block")}
    members = [drawn(seed) for seed in (1, 2)]
    found = merged(Ties(), members, start).weights
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(found[name], (members[0][name] + members[1][name]) / 2)
    assert list(found) == list(members[0])


# -- checkpoints ---------------------------------------------------------------------------------------


@pytest.fixture
def members(tiny_model: Callable[..., Path], tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Return a function that saves trained-looking members: one start, each moved its own way."""

    def saved(problem: Problem, *strategies: str, family: str = "bert") -> dict[str, Path]:
        found = {}
        for i, strategy in enumerate(strategies):
            found[f"m{i}"] = tmp_path / f"m{i}"
            checkpoints.save(_moved(tiny_model(family), problem, strategy, i), found[f"m{i}"])
        return found

    return saved


def _moved(folder: Path, problem: Problem, strategy: str, seed: int) -> Checkpoint:
    stage.set_seed(1)
    checkpoint = checkpoints.load(folder, problem)
    kind = {"num_virtual_tokens": 2} if strategy in ("prefix", "prompt_tuning") else {}
    chosen = Strategy.named(strategy)(**kind)
    model = chosen.adapt(checkpoint.model, problem)
    stage.set_seed(seed + 10)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    facts = {"problem": problem.model_dump(mode="json"), "num_parameters": 9, "inference_parameters": 5}
    return Checkpoint(chosen.finish(model).eval(), checkpoint.tokenizer, {**facts, "strategy": strategy})


def rows_of(problem: Problem, folder: Path, tmp_path: Path, members: Mapping[str, Path]) -> Rows:
    rows = contracts.encoded_rows(problem, problem.load_tokenizer(folder))
    folders = []
    for name, member in members.items():
        folders.append(tmp_path / f"predicted-{name}")
        folders[-1].mkdir()
        said = predict(checkpoints.load(member, problem), rows, problem).table
        write_table(folders[-1] / "predictions.parquet", said)
    return Rows(rows, rows, folders)


PROBLEM = contracts.bound(TextClassification())


def test_a_merged_checkpoint_opens_in_plain_transformers_with_the_mean_of_plain_weights(
    members: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    found = members(PROBLEM, "full", "lora", "full")
    checkpoints.save(merge(UniformSoup(), found, rows_of(PROBLEM, found["m0"], tmp_path, {}), PROBLEM), tmp_path / "s")
    states = [AutoModelForSequenceClassification.from_pretrained(folder).state_dict() for folder in found.values()]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "s").state_dict()
    for name, value in plain.items():
        torch.testing.assert_close(value, sum(state[name] for state in states) / 3, rtol=1e-5, atol=1e-7)
    facts = read_json(tmp_path / "s" / "ftlib.json")
    assert facts["merged"]["weights"] == pytest.approx({"m0": 1 / 3, "m1": 1 / 3, "m2": 1 / 3})
    assert (facts["fusion"], facts["inference_parameters"]) == ("uniform_soup", 5)
    assert "strategy" not in facts


def test_mixes_are_scored_as_the_predict_step_scores_members(members: Any, tmp_path: Path) -> None:
    found = members(PROBLEM, "full", "full", "lora")
    rows = rows_of(PROBLEM, found["m0"], tmp_path, found)
    seen: list[tuple[Any, ...]] = []

    class Watched(GreedySoup):
        def merge(self, ingredients: Ingredients) -> Any:
            again = tuple(ingredients.value_of(one) for one in ingredients.weights)
            seen.append((tuple(ingredients.values), again))
            return super().merge(ingredients)

    merge(Watched(metric="log_loss"), found, rows, PROBLEM)
    (said, again), gold = seen[0], PROBLEM.references(rows.scored, None)
    assert again == pytest.approx(said)
    for value, folder in zip(said, rows.predictions, strict=True):
        logits = np.stack(read_table(folder / "predictions.parquet")["logits"].to_numpy())
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        assert value == pytest.approx(np.log(chances[np.arange(len(gold)), gold]).mean(), rel=1e-5)  # minus log-loss


@pytest.mark.parametrize(("name", "family"), [("translation", "t5"), ("image_text_classification", "clip")])
def test_weights_put_into_a_model_are_those_it_predicts_with(
    members: Any, tmp_path: Path, name: str, family: str
) -> None:
    """Tied weights follow, and nothing that was remembered of the old ones is used."""
    problem = contracts.bound(Problem.named(name)())
    found = members(problem, "full", "full", family=family)
    rows = contracts.encoded_rows(problem, problem.load_tokenizer(found["m0"]), 3)
    vessel, other = (checkpoints.load(folder, problem) for folder in found.values())
    before = predict(vessel, rows, problem).table
    put(vessel, weights_of(other))
    expected = predict(checkpoints.load(found["m1"], problem), rows, problem).table
    assert predict(vessel, rows, problem).table.equals(expected)
    assert not expected.equals(before)


def test_ties_starts_from_what_the_base_model_has_and_averages_heads_drawn_anew(
    members: Any, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    found = members(PROBLEM, "full", "full")
    rows = rows_of(PROBLEM, found["m0"], tmp_path, {})
    result = merge(Ties(density=1.0, scaling=1e-9), found, rows, PROBLEM, start=tiny_model("bert"))
    base = checkpoints.load(tiny_model("bert"), PROBLEM).model.state_dict()
    states = [checkpoints.load(folder, PROBLEM).model.state_dict() for folder in found.values()]
    for name, value in result.model.state_dict().items():
        expected = (states[0][name] + states[1][name]) / 2 if name == "classifier.weight" else base[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_heads_that_have_little_in_common_are_noted(members: Any, tmp_path: Path) -> None:
    found = members(PROBLEM, "full", "full")
    rows = rows_of(PROBLEM, found["m0"], tmp_path, {})
    assert merge(UniformSoup(), found, rows, PROBLEM).settings["merged"]["note"] == ""
    other = checkpoints.load(found["m1"], PROBLEM)
    with torch.no_grad():
        other.model.classifier.weight.copy_(-other.model.classifier.weight)
    checkpoints.save(other, found["m1"])
    note = merge(UniformSoup(), found, rows, PROBLEM).settings["merged"]["note"]
    assert "heads of 'm0' and 'm1' have little in common (cosine -0." in note


# -- refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategies", "message"),
    [
        (("full", "prefix"), r"'m0' and 'm1': the latter keeps a prefix beside its weights\. Leave one out.*averaging"),
        (("full", "full", "prompt_tuning"), "'m0' and 'm2': their virtual tokens differ"),
    ],
)
def test_members_that_are_built_otherwise_are_refused_by_name(
    members: Any, tmp_path: Path, strategies: tuple[str, ...], message: str
) -> None:
    found = members(PROBLEM, *strategies)
    with pytest.raises(UnsupportedError, match=message):
        merge(UniformSoup(), found, rows_of(PROBLEM, found["m0"], tmp_path, {}), PROBLEM)


def test_other_architectures_vocabularies_blocks_and_labels_are_refused(
    tiny_model: Callable[..., Path], members: Any, tmp_path: Path
) -> None:
    from ftlib.models.layers import keep_blocks
    from ftlib.models.merging import check_alike

    def opened(family: str = "bert") -> Checkpoint:
        return checkpoints.load(tiny_model(family), PROBLEM)

    words, labels, student = opened(), opened(), opened()
    words.tokenizer.add_tokens(["anew"])
    labels.model.config.id2label = {0: "no", 1: "yes", 2: "perhaps"}
    keep_blocks(student.model, 1)
    cases = {
        "the former is a BertForSequence.*, the latter a RobertaForSequence": opened("roberta"),
        r"vocabularies of \d+ and \d+ tokens share \d+": words,
        "the latter no, yes, perhaps": labels,
        r"only the former has the weight bert\.encoder\.layer\.1": student,
    }
    for message, other in cases.items():
        with pytest.raises(UnsupportedError, match=rf"slerp cannot make one model of 'a' and 'b': .*{message}"):
            check_alike({"a": opened(), "b": other}, asked_by="slerp")
    found = members(PROBLEM, "full", "full")
    checkpoints.save(student, tmp_path / "start")
    with pytest.raises(UnsupportedError, match=r"ties adds up .*members and start are built otherwise.*uniform_soup"):
        merge(Ties(), found, rows_of(PROBLEM, found["m0"], tmp_path, {}), PROBLEM, start=tmp_path / "start")


PARAMS: dict[str, Any] = {
    "name": "soups",
    "base_model": "random:bert",
    "problem": {"name": "text_classification", "max_length": 48},
    "data": {"sources": {"all": {"name": "support_requests", "num_rows": 160}}},
    "training": {"num_train_epochs": 1.0, "learning_rate": 1e-3},
    "stages": [
        {"name": "warm", "strategy": "full", "member": False},
        {"name": "one", "strategy": "full", "start_from": "warm"},
        {"name": "two", "strategy": "lora", "start_from": "warm"},
    ],
    "fusions": ["uniform_soup", "greedy_soup", "ties", {"name": "arc", "method": {"name": "slerp", "t": 0.25}}],
}


def planned(*overrides: str) -> dict[str, Any]:
    return {step.step_name: step for step in steps(load_experiment(PARAMS, overrides))}


THIRD = "stages.2={name: two, %s}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [THIRD % "strategy: full, base_model: random:roberta"],
            "the former descends from .*, the latter from random:r",
        ),
        ([THIRD % "strategy: prefix"], "'one' and 'two': the latter keeps a prefix"),
        (
            [THIRD % "start_from: one, strategy: {name: distillation, teacher: one, student_blocks: 1}"],
            "the former has 2 blocks, the latter 1",
        ),
        (
            [THIRD % "start_from: one, strategy: {name: distillation, teacher: one, student_hidden_size: 16}"],
            "the former has hidden states of 32, .* and 64 neurons, the latter hidden states of 16, ",
        ),
        ([THIRD % "strategy: {name: prompt_tuning, num_virtual_tokens: 4}"], "0 virtual tokens, the latter 4"),
        (["fusions.0={name: uniform_soup, method: {name: uniform_soup, members: [one, tow]}}"], "'tow'.*'two'"),
        (["fusions.0={name: s, method: {name: ties, members: [one, one]}}"], "'one' is named twice"),
        (["stages.0.member=true"], "slerp merges two members; the experiment has 3"),
        (["fusions.1={name: g, method: {name: greedy_soup, metric: acuracy}}"], "acuracy"),
    ],
)
def test_what_stages_tell_is_refused_before_any_work(
    overrides: list[str], message: str, tiny_model: Callable[..., Path]
) -> None:
    base = f"base_model={tiny_model('bert')}"
    with pytest.raises(ParamsError, match=rf"fusions\.\d\.method.*({message})"):
        planned(base, *overrides)


def test_what_differs_with_each_candidate_is_refused_before_one_is_chosen(tiny_model: Callable[..., Path]) -> None:
    bert, roberta = str(tiny_model("bert")), str(tiny_model("roberta"))
    longer = THIRD % "strategy: {name: prompt_tuning, num_virtual_tokens: 4}"
    with pytest.raises(ParamsError) as caught:
        planned(f"base_model=[{bert}, {roberta}]", longer, "fusions=[uniform_soup]")
    assert [line.rpartition("(candidate ")[2] for line in caught.value.problems] == [f"{bert})", f"{roberta})"]
    assert all("0 virtual tokens, the latter 4" in line for line in caught.value.problems)


def test_what_differs_whatever_is_chosen_is_told_once(tiny_model: Callable[..., Path]) -> None:
    bases = f"base_model=[{tiny_model('bert')}, {tiny_model('roberta')}]"
    with pytest.raises(ParamsError) as caught:
        planned(bases, THIRD % "strategy: prefix", "fusions=[uniform_soup]")
    [line] = caught.value.problems
    assert "the latter keeps a prefix" in line


def test_ties_refuses_a_start_with_other_virtual_tokens_before_any_work(tiny_model: Callable[..., Path]) -> None:
    base = f"base_model={tiny_model('bert')}"
    tuned = "{name: %s, start_from: warm, strategy: {name: prompt_tuning, num_virtual_tokens: 4}}"
    changes = [f"stages.1={tuned % 'one'}", f"stages.2={tuned % 'two'}"]
    with pytest.raises(ParamsError, match=r"fusions\.2\.method: ties adds up.* 4 virtual tokens, the latter 0"):
        planned(base, *changes)
    planned(base, *changes, "fusions=[uniform_soup]")


# -- in an experiment ----------------------------------------------------------------------------------


def test_merging_waits_for_its_members_alone_and_its_model_stands_in_their_place() -> None:
    found = planned()
    assert found["merge-uniform_soup"].inputs == {
        "encoded": "encode",
        "checkpoint_0": "train-one",
        "checkpoint_1": "train-two",
    }
    assert found["merge-ties"].inputs["start"] == "train-warm"
    assert found["merge-greedy_soup"].inputs["predictions_1"] == "predict-two-validation"
    assert found["predict-arc-test"].inputs["checkpoint"] == "merge-arc"
    assert found["fuse-arc"].inputs == {"splits": "split", "fitting_0": "predict-arc-validation"}
    assert found["register"].inputs["merged_3"] == "merge-arc"
    held_out = planned("splitting.fusion_ratio=0.1")["merge-greedy_soup"]
    assert (held_out.scored_split, held_out.inputs["predictions_0"]) == ("fusion", "predict-one-fusion")
    assert planned("stages.2.start_from=base")["merge-ties"].inputs["start"] == "fetch"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> dict[str, Path]:
    """Return the folders of a whole experiment's artifacts; the greedy soup is what is registered."""
    store = Store(tmp_path_factory.mktemp("store"))
    experiment = load_experiment({**PARAMS, "base_model": str(tiny_model("bert"))})
    done: dict[str, Artifact] = {}
    for step in steps(experiment):
        done[step.step_name] = execute(step, {k: done[v] for k, v in step.inputs.items()}, store, scope="t").artifact
    return {name: store.open(artifact) for name, artifact in done.items()}


def test_a_merged_model_costs_one_member_and_says_what_it_is_made_of(ran: dict[str, Path]) -> None:
    evaluation = read_json(ran["evaluate"] / "evaluation.json")
    found = {entry["name"]: entry for entry in evaluation["fusions"]}
    for name in ("uniform_soup", "greedy_soup", "ties", "arc"):
        assert found[name]["inference_cost_ratio"] == 1
    assert found["uniform_soup"]["weights"] == {"one": 0.5, "two": 0.5}
    assert found["arc"]["weights"] == {"one": 0.75, "two": 0.25}
    assert found["ties"]["weights"] is None
    assert found["ties"]["members_used"] == ["one", "two"]
    soup = checkpoints.load(ran["merge-arc"], problem_in(ran))
    rows = read_table(ran["encode"] / "test.parquet")
    gold = problem_in(ran).references(rows, None)
    accuracy = float((contracts.logits(soup, rows, problem_in(ran)).argmax(1) == gold).mean())
    assert found["arc"]["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)


def problem_in(ran: Mapping[str, Path]) -> Problem:
    return Problem.model_validate(read_json(ran["split"] / "problem.json"))


def test_a_merged_model_is_packed_alone_served_as_it_was_measured_and_explained(
    ran: dict[str, Path], tmp_path: Path
) -> None:
    from ftlib.data.clean import Cleaning
    from ftlib.evaluation.comparison import read_answers
    from ftlib.explaining.errors import explain_errors
    from ftlib.serving.packing import pack

    problem, fusions = problem_in(ran), {"arc": (Slerp(t=0.25), ran["fuse-arc"])}
    folders = {name: ran[f"train-{name}"] for name in ("one", "two")}
    one = {"problem": problem, "members": folders, "fusions": fusions, "merged": {"arc": ran["merge-arc"]}}
    pack(tmp_path, best="arc", cleaning=Cleaning(), **one)
    assert [path.name for path in (tmp_path / "members").iterdir()] == ["arc"]
    served, test = answering.load(tmp_path), read_table(ran["split"] / "test.parquet")
    said = read_table(ran["predict-arc-test"] / "predictions.parquet").sort_by("row_id")
    logits = np.stack(said["logits"].to_numpy()).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(test["row_id"].to_numpy())
    scored = served.score(test.select(["text"]).take(pa.array(order)))
    np.testing.assert_allclose(scored.scores, expected, rtol=1e-4, atol=1e-6)
    told = explain_errors(read_table(ran["evaluate"] / "errors.parquet"), best="arc", number=1, **one)
    assert told["reason"] is None
    assert len(told["explanations"]) == 1
    summary = read_json(ran["evaluate"] / "evaluation.json")
    answers = read_answers({**ran, "evaluate": _best_is(tmp_path / "evaluate", summary, "arc")})
    np.testing.assert_allclose(answers.scores[order], expected, rtol=1e-6)


def _best_is(folder: Path, summary: dict[str, Any], name: str) -> Path:
    from ftlib.files import write_json

    folder.mkdir()
    write_json(folder / "evaluation.json", {**summary, "best": {**summary["best"], "name": name}})
    return folder
