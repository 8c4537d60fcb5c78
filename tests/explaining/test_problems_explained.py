"""Explanations of every problem's answers: the score is the one that the model is known by, and its words add up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ftlib.data.clean import Cleaning
from ftlib.explaining.explain import Explanation, explain
from ftlib.fusion._mean import WeightedMean
from ftlib.problems.base import Problem
from ftlib.serving.answering import Served
from tests.contracts import FIRST, bound

TAGS = {"name": "token_classification", "labels": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]}
QUESTIONS = {"name": "question_answering", "max_length": 64, "stride": 8}
SHORT = {"max_new_tokens": 4, "min_new_tokens": 2}


def checked(found: list[Explanation]) -> list[Explanation]:
    """Return explanations whose words stand where they are said to, and add up."""
    for one in found:
        assert one.gap == pytest.approx(0, abs=0.0101 * max(1, abs(one.score - one.baseline)))
        assert all(one.texts[w.column][w.start : w.end] == w.text for w in one.words if w.column != "image")
    return found


def inputs(problem: Problem, number: int = 2) -> list[dict[str, Any]]:
    return [{name: row[name] for name in problem.input_columns} for row in problem.examples()[:number]]


@pytest.mark.parametrize("name", Problem.available())
def test_every_problem_s_answers_are_explained_by_what_was_read(name: str, member):
    problem = bound(Problem.model_validate({"name": name} | ({"generation": SHORT} if _writes(name) else {})))
    one = member(problem, architecture=FIRST[problem.families[0]])
    found = checked(explain(Served("m0", problem, Cleaning(), (one,), None, 1), inputs(problem)))
    assert {e.row for e in found} == {0, 1}
    assert all(e.is_exact for e in found)
    assert any(w.attribution for e in found for w in e.words)
    assert all(json.dumps(e.texts) for e in found)


def _writes(name: str) -> bool:
    return "generation" in Problem.named(name).model_fields


# -- words -----------------------------------------------------------------------------------------------


def test_a_span_is_explained_by_the_score_that_a_client_is_told(served):
    model = served(TAGS, architecture="roberta")
    model.members[0].checkpoint.model.classifier.bias.data[0] = -9.0
    for tokens in (["Ada", "Byron", "went", "to", "Rome", "."], "Ada Byron went  to Rome."):
        told = model.predict([{"tokens": tokens}])["entities"][0]
        known = sorted((e["score"], f"{e['text']}: {e['type']}") for e in told)[:3]
        found = checked(explain(model, [{"tokens": tokens}]))
        assert [e.explained for e in found] == [name for _, name in known]
        assert [e.score for e in found] == pytest.approx([score for score, _ in known], abs=1e-5)
        assert [w.text for w in found[0].words] == ["Ada", "Byron", "went", "to", "Rome", "."]


def test_a_row_without_a_span_is_asked_why_the_likeliest_is_none(served):
    model = served(TAGS)
    model.members[0].checkpoint.model.classifier.bias.data[0] = 40.0
    scores = model.score([{"tokens": ["Ada", "Byron"]}]).scores
    found = explain(model, [{"tokens": ["Ada", "Byron"]}])
    assert len(found) == 1
    assert found[0].score == pytest.approx(scores[:, 1:].max(), abs=1e-6)
    assert found[0].instead.endswith(": O")


def test_a_word_far_into_a_row_is_explained_in_the_window_that_tags_it(served):
    model = served({**TAGS, "max_length": 24, "stride": 6})
    words = ["It", "rains", "in", "May", "and", "Search", "finds", "nothing"] * 6
    found = explain(model, [{"tokens": words}], label="B-PER")
    assert len(found) == 1
    scores = model.score([{"tokens": words}]).scores[:, 3]
    assert found[0].score == pytest.approx(scores.max(), abs=1e-6)
    moved = [i for i, w in enumerate(checked(found)[0].words) if w.attribution]
    assert 2 < len(moved) < 24
    assert moved[0] <= int(scores.argmax()) <= moved[-1]
    assert moved[-1] - moved[0] < 24


def test_averaged_tags_are_explained_across_tokenizers_by_the_weighted_sum(member):
    problem = Problem.model_validate(TAGS)
    members = tuple(member(problem, i, of, i) for i, of in enumerate(("bert", "roberta")))
    model = Served("f", problem, Cleaning(), members, WeightedMean("single_label", "scores", (0.25, 0.75)), 2)
    rows = [{"tokens": ["Ada", "Byron", "went", "to", "Rome", "."]}]
    both = checked(explain(model, rows, label="B-LOC"))[0]
    scores = model.score(rows).scores[:, 1]
    assert both.is_exact
    assert both.score == pytest.approx(scores.max(), abs=1e-5)


# -- answers in a text -------------------------------------------------------------------------------------


CONTEXT = "Search finds nothing since the update. The app crashes when I open a photo. " * 4


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("times", [1, 4])
def test_an_answer_s_score_is_its_confidence_also_over_several_windows(no_answer: bool, times: int, served):
    model = served({**QUESTIONS, "no_answer": no_answer})
    rows = [{"question": "What crashes?", "context": CONTEXT[: len(CONTEXT) // 4 * times]}]
    encoded = model.problem.encode(model.score(rows).rows, model.members[0].checkpoint.tokenizer)
    assert (len(encoded) > 1) == (times > 1)
    told = model.predict(rows)
    one = checked(explain(model, rows, steps=64))[0]
    assert one.is_exact
    assert one.score == pytest.approx(told["confidence"][0], abs=1e-6)
    assert one.explained == (told["prediction"][0] or "no answer")
    assert any(w.attribution for w in one.words if w.column == "question")
    assert any(w.attribution for w in one.words if w.column == "context")


def test_no_answer_is_explained_too(served):
    model = served({**QUESTIONS, "no_answer": True})
    model.members[0].checkpoint.settings["tuned"] = {"no_answer_bias": 30.0}
    rows = [{"question": "What crashes?", "context": CONTEXT}]
    one = checked(explain(model, rows))[0]
    assert one.explained == "no answer"
    assert one.score == pytest.approx(model.predict(rows)["confidence"][0], abs=1e-6)


# -- choices -----------------------------------------------------------------------------------------------


def test_a_choice_is_explained_by_its_own_words_by_the_others_and_by_the_text(served):
    model = served({"name": "multiple_choice"})
    rows = [{"text": "I open the app and", "choices": ["search nothing.", "the photo crashes.", "it rains."]}]
    one = checked(explain(model, rows))[0]
    told = model.predict(rows)
    assert (one.explained, one.score) == (told["prediction"][0], pytest.approx(told["confidence"][0], abs=1e-6))
    assert list(one.texts) == ["text", "choices 1", "choices 2", "choices 3"]
    assert {w.column for w in one.words if w.attribution} == set(one.texts)


def test_what_words_of_a_choice_add_to_the_choices_probabilities_cancels_out(served):
    """Probabilities of the choices sum to 1 with any words, so what a word adds to all of them is nothing."""
    from ftlib.explaining.attribution import attribute
    from ftlib.problems._questions import Question

    model = served({"name": "multiple_choice"})
    rows = [{"text": "I open the app and", "choices": ["search nothing.", "the photo crashes."]}] * 2
    table = model.score(rows).rows
    posed = model.problem.pose(model.members[0].checkpoint, table, [Question(i, "", None, i) for i in range(2)])
    values = [attribute(model.members[0].checkpoint, one, model.problem).values for one in posed]
    np.testing.assert_allclose(values[0], -values[1], atol=1e-4)


# -- texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_a_written_text_s_score_is_its_log_probability_as_transformers_has_it(architecture: str, served):
    import torch

    model = served({"name": "summarization", "generation": SHORT}, architecture=architecture)
    rows = [{"text": "The app crashes when I open a photo."}]
    one = checked(explain(model, rows, steps=64))[0]
    network, tokenizer = model.members[0].checkpoint.model, model.members[0].checkpoint.tokenizer
    labels = tokenizer(text_target=[one.prediction], return_tensors="pt")["input_ids"]
    if labels[0, -1] != tokenizer.eos_token_id:
        labels = torch.cat((labels, torch.tensor([[tokenizer.eos_token_id]])), 1)
    ids = tokenizer(rows[0]["text"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = network(input_ids=ids, labels=labels).loss
    assert one.scale == "log_probability"
    assert one.score == pytest.approx(-float(loss) * labels.shape[1], rel=1e-4)
    assert one.texts == rows[0]


def test_an_instruction_before_a_text_stays_as_it_is(served):
    problems = ({"name": "summarization", "generation": SHORT, "prefix": prefix} for prefix in ("", "summarize: "))
    plain, asked = (explain(served(problem, architecture="t5"), [{"text": "bad app"}])[0] for problem in problems)
    assert plain.texts == asked.texts == {"text": "bad app"}
    assert [w.text for w in asked.words] == ["bad", "app"]
    assert asked.rest == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_of_a_causal_model_the_prompt_is_weighed_and_the_answer_s_own_tokens_are_not(architecture: str, served):
    """Against plain steps through the model itself: Sundararajan et al. (2017), equation 3."""
    import torch

    model = served({"name": "text_generation", "generation": SHORT}, architecture=architecture)
    one = checked(explain(model, [{"prompt": "Name the product: lamp"}], steps=128))[0]
    network, tokenizer = model.members[0].checkpoint.model, model.members[0].checkpoint.tokenizer
    prompt = tokenizer("Name the product: lamp\n")["input_ids"]
    prompt = prompt[:-1] if prompt[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id else prompt
    answer = [*tokenizer(one.prediction, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([[*prompt, *answer]])
    table = network.get_input_embeddings().weight.detach()
    last = len(tokenizer("Name the product: lamp")["input_ids"])
    places = [i for i in range(last) if ids[0, i] not in tokenizer.all_special_ids]
    blank = ids.clone()
    blank[0, places] = tokenizer.pad_token_id if table[tokenizer.pad_token_id].any() else tokenizer.eos_token_id
    start, end = table[blank], table[ids]
    steps = (torch.arange(400)[:, None, None] + 0.5) / 400
    points = (start + steps * (end - start)).requires_grad_()
    logs = network(inputs_embeds=points).logits[:, len(prompt) - 1 : -1].log_softmax(-1)
    total = torch.autograd.grad(logs[:, range(len(answer)), answer].sum(), points)[0].mean(0)
    expected = (total * (end - start)[0]).sum(-1)
    assert sum(w.attribution for w in one.words) == pytest.approx(float(expected.sum()), abs=0.02, rel=0.01)
    assert one.score - one.baseline == pytest.approx(float(expected.sum()), abs=0.02, rel=0.01)


def test_of_a_conversation_each_message_is_weighed_and_the_template_is_not(served):
    said = ["The app crashes.", "Since the update?", "the app crashes, and search finds nothing."]
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    one = checked(
        explain(served({"name": "dialogue", "generation": SHORT}, architecture="llama"), [{"messages": messages}])
    )[0]
    assert one.texts == dict(zip(("messages 1 user", "messages 2 assistant", "messages 3 user"), said, strict=True))
    assert {w.column for w in one.words if w.attribution} == set(one.texts)
    assert one.rest == pytest.approx(0, abs=0.01 * abs(one.score - one.baseline))


# -- tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [8, 128])
def test_the_least_expected_token_is_explained_by_the_words_before_it(max_length: int, served):
    model = served({"name": "causal_language_modeling", "max_length": max_length}, architecture="llama")
    rows = [{"text": "The app crashes when I open a photo; search finds nothing since the update."}]
    scored = model.score(rows)
    one = checked(explain(model, rows, steps=64))[0]
    units = scored.layout.units
    gold = np.log(scored.scores[units["token"].to_numpy() < 0, 0])
    assert one.score == pytest.approx(gold.min(), abs=1e-4)
    moved = [w for w in one.words if w.attribution]
    at = rows[0]["text"].find(one.explained, moved[-1].end if moved else 0)
    assert at >= 0 or one.explained == "the end"
    assert not any(w.attribution for w in one.words if at >= 0 and w.start >= at)


def test_a_guess_is_explained_by_the_words_around_it_with_the_score_that_a_client_is_told(served):
    model = served({"name": "masked_language_modeling"})
    rows = [{"text": "The app [MASK] when I open a [MASK]."}]
    told = model.predict(rows)["candidates"][0]
    found = checked(explain(model, rows))
    assert [e.explained for e in found] == [place[0]["token"] for place in told]
    assert [e.score for e in found] == pytest.approx([place[0]["score"] for place in told], abs=1e-5)
    assert [w.text for w in found[0].words if w.attribution][:2] == ["The", "app"]


def test_a_hidden_word_is_named_beside_its_guess(served):
    found = checked(explain(served({"name": "masked_language_modeling"}), [{"text": "The app crashes."}]))
    hidden = found[0].explained.partition(", hidden: ")[2]
    assert hidden
    assert hidden in "The app crashes."


# -- images ------------------------------------------------------------------------------------------------


def picture(colours: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def image_model(served, **settings: Any) -> Served:
    return served({"name": "image_text_classification", "labels": ["red", "blue"], **settings}, architecture="clip")


def test_patches_of_the_mean_colour_add_nothing_and_the_others_add_up(served):
    from ftlib.problems._images import byte_values

    model = image_model(served)
    tokenizer, vision = model.members[0].checkpoint.tokenizer, model.members[0].checkpoint.model.config.vision_config
    mean = abs(byte_values(tokenizer.image_processor)).argmin(1)
    colours = np.tile(mean, (vision.image_size, vision.image_size, 1))
    patch, side = vision.patch_size, vision.image_size // vision.patch_size
    colours[patch : 2 * patch, 2 * patch : 3 * patch] = (250, 10, 10)
    one = checked(explain(model, [{"image": picture(colours)}]))[0]
    assert one.content == "the image"
    assert len(one.words) == side**2
    assert [w.text for w in one.words if abs(w.attribution) > 1e-7] == ["row 2 column 3"]
    assert one.texts["image"].count("\n") == side - 1


def test_image_and_text_are_weighed_together(served):
    model = image_model(served, use_text=True)
    rows = inputs(model.problem, 1)
    one = checked(explain(model, rows))[0]
    assert one.score == pytest.approx(model.predict(rows)["confidence"][0], abs=1e-5)
    assert list(one.texts) == ["text", "image"]
    assert {w.column for w in one.words if w.attribution} == {"text", "image"}
    assert one.content == "words and the image"
