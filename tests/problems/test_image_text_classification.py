"""Images by the prompts of their labels: the same pixels, logits and files as plain transformers has."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from ftlib.data.clean import Cleaning, clean
from ftlib.data.encode import encode
from ftlib.data.sources._shapes import Drawing, png
from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.files import read_table
from ftlib.models import checkpoints
from ftlib.models.image_text import embed_images
from ftlib.prediction import predict
from ftlib.problems._images import open_image
from ftlib.problems.base import Problem
from ftlib.problems.image_text_classification import ImageTextClassification
from ftlib.strategies.base import Strategy
from ftlib.training import stage
from ftlib.training.batches import Rows
from tests import contracts, samples

LABELS = ("blue square", "green triangle", "red circle")


@pytest.fixture
def clip(tiny_model):
    return tiny_model("clip")


def picture(mode: str = "RGB", size: tuple[int, int] = (41, 29), kind: str = "PNG") -> bytes:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values, "RGBA").convert("RGB").convert(mode).save(buffer, kind)
    return buffer.getvalue()


def processor(folder):
    from transformers import AutoTokenizer, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def images(rows: pa.Table) -> list[Image.Image]:
    return [Image.open(io.BytesIO(content)) for content in rows["image"].to_pylist()]


def encoded(problem: ImageTextClassification, tokenizer, rows: pa.Table) -> pa.Table:
    return problem.encode(rows, tokenizer).append_column("row_id", pa.array(range(len(rows))))


def logits(problem, checkpoint, rows: pa.Table) -> np.ndarray:
    table = predict(checkpoint, encoded(problem, checkpoint.tokenizer, rows), problem).table
    return np.stack(table["logits"].to_numpy(zero_copy_only=False))


def plain_logits(folder, rows: pa.Table, prompts: list[str]) -> np.ndarray:
    """Return what transformers alone makes of a saved checkpoint."""
    import torch
    from transformers import CLIPModel

    read = processor(folder)(images=images(rows), text=prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return CLIPModel.from_pretrained(folder)(**read).logits_per_image.numpy()


# -- images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_pixels_are_what_the_clip_processor_makes_to_the_last_bit(clip, mode):
    import torch

    from ftlib.models.image_text import _normalised

    problem = ImageTextClassification(labels=LABELS)
    checkpoint = checkpoints.load(clip, problem)
    rows = pa.table({"image": [picture(mode, size, "TIFF") for size in ((41, 29), (32, 32), (7, 90), (300, 200))]})
    table = problem.encode(rows, checkpoint.tokenizer)
    batch = Rows.from_table(table, checkpoint.tokenizer, problem).batch(np.arange(4))["pixel_values"]
    assert batch.dtype == torch.uint8
    expected = processor(clip)(images=images(rows), return_tensors="pt")["pixel_values"]
    assert torch.equal(_normalised(batch, checkpoint.model.image_text), expected)


def test_a_photo_is_turned_as_its_camera_says():
    from transformers.image_utils import load_image

    upright = Image.open(io.BytesIO(picture()))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", exif=exif)
    found = open_image(buffer.getvalue())
    assert found.size == upright.size[::-1]
    assert np.array_equal(found, load_image(Image.open(io.BytesIO(buffer.getvalue()))))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>404</html>", "unreadable image: no known image format"),
        (picture(size=(200, 200))[:3000], "unreadable image: damaged"),
        (picture(kind="JPEG", size=(200, 200))[:2000], "unreadable image: damaged"),
        (None, "empty image"),
    ],
)
def test_an_unreadable_image_is_a_row_rejected_with_its_reason(content, reason):
    fine = [row["image"] for row in ImageTextClassification.examples()[:3]]
    rows = pa.table({"row_id": range(4), "split": ["all"] * 4, "image": pa.array([*fine, content], pa.large_binary()),
                     "label": ["a", "b", "c", "a"]})  # fmt: skip
    cleaned = clean(rows, ImageTextClassification(), Cleaning())
    assert cleaned.table["row_id"].to_pylist() == [0, 1, 2]
    assert cleaned.rejected["reason"][0].as_py().startswith(reason)
    assert list(cleaned.summary["rejected"]) == [" ".join(reason.split(":")[0].split()[:2])]


def test_equal_images_are_duplicates_and_contradict_each_other():
    one, other = (row["image"] for row in ImageTextClassification.examples()[:2])
    rows = pa.table({"row_id": range(5), "split": ["all"] * 5, "image": pa.array([one, other, one, other, picture()]),
                     "label": ["a", "b", "a", "c", "d"]})  # fmt: skip
    cleaned = clean(rows, ImageTextClassification(), Cleaning(max_rejected_ratio=1))
    assert cleaned.rejected["reason"].to_pylist() == [
        "conflicting labels 'b', 'c'", "duplicate of row 0", "conflicting labels 'b', 'c'"]  # fmt: skip


# -- the model -----------------------------------------------------------------------------------------


def test_logits_are_those_of_plain_clip(clip):
    problem = ImageTextClassification(labels=LABELS)
    rows = contracts.raw_rows(problem)
    prompts = [f"a photo of a {label}." for label in LABELS]
    assert [p for group in problem.prompts() for p in group] == prompts
    found = logits(problem, checkpoints.load(clip, problem), rows)
    np.testing.assert_allclose(found, plain_logits(clip, rows, prompts), rtol=1e-4, atol=1e-5)


def test_templates_are_averaged_as_clip_s_authors_do(clip):
    import torch
    from transformers import CLIPModel

    templates = ("a photo of a {label}.", "{label}", "the {label} in a very long and winding sentence.")
    problem = ImageTextClassification(labels=LABELS, templates=templates, wordings={"red circle": "disc {of} red"})
    rows, plain, read = contracts.raw_rows(problem), CLIPModel.from_pretrained(clip), processor(clip)
    weights = []
    with torch.no_grad():
        for word in ("blue square", "green triangle", "disc {of} red"):  # the notebook's zeroshot_classifier
            texts = read(text=[t.replace("{label}", word) for t in templates], padding=True, return_tensors="pt")
            embeddings = plain.get_text_features(**texts).pooler_output
            mean = (embeddings / embeddings.norm(dim=-1, keepdim=True)).mean(dim=0)
            weights.append(mean / mean.norm())
        features = plain.get_image_features(**read(images=images(rows), return_tensors="pt")).pooler_output
        features = features / features.norm(dim=-1, keepdim=True)
        expected = (plain.logit_scale.exp() * features @ torch.stack(weights, dim=1)).numpy()
    found = logits(problem, checkpoints.load(clip, problem), rows)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_with_several_labels_each_is_weighed_against_the_neutral_prompt(clip):
    problem = ImageTextClassification(labels=LABELS, multi_label=True)
    rows = contracts.raw_rows(problem)
    plain = plain_logits(clip, rows, [*(f"a photo of a {label}." for label in LABELS), "a photo."])
    pairs = np.exp(plain[:, :-1]) / (np.exp(plain[:, :-1]) + np.exp(plain[:, -1:]))
    found = problem.target.scores(logits(problem, checkpoints.load(clip, problem), rows))
    np.testing.assert_allclose(found, pairs, rtol=1e-4)


def test_a_text_is_added_to_the_image_and_an_empty_one_leaves_it_alone(clip):
    import torch

    problem = ImageTextClassification(labels=LABELS, use_text=True)
    assert problem.input_columns == ("image", "text")
    checkpoint = checkpoints.load(clip, problem)
    rows = contracts.raw_rows(problem)
    texts = ["a drawing", "", None, "two words", "  ", "x", "y", "z"]
    rows = rows.set_column(1, "text", pa.array(texts))
    alone = ImageTextClassification(labels=LABELS)
    found, images_alone = logits(problem, checkpoint, rows), logits(alone, checkpoint, rows.select(["image"]))
    empty = np.array([not (t or "").strip() for t in texts])
    np.testing.assert_allclose(found[empty], images_alone[empty], rtol=1e-5)
    assert (np.abs(found - images_alone)[~empty].max(1) > 1e-3).all()
    with torch.no_grad():
        read = processor(clip)(text="a drawing", return_tensors="pt")
        text = checkpoint.model.get_text_features(**read).pooler_output
        pixels = Rows.from_table(problem.encode(rows, checkpoint.tokenizer), checkpoint.tokenizer, problem)
        image = embed_images(checkpoint.model, pixels.batch(np.arange(1))["pixel_values"])
        row = image + text / text.norm()
        labels = checkpoint.model.image_text.memory[1]
        expected = checkpoint.model.logit_scale.exp() * (row / row.norm()) @ labels.T
    np.testing.assert_allclose(found[0], expected[0].numpy(), rtol=1e-4)


def test_rows_count_by_the_places_they_take_and_need_no_tokens(clip):
    problem = contracts.bound(ImageTextClassification())
    tokenizer = problem.load_tokenizer(clip)
    table, summary = encode(contracts.labelled_rows(problem), problem, tokenizer)
    assert table.column_names == ["row_id", "pixel_values", "length", "labels"]
    assert table.schema.field("pixel_values").type == pa.binary(3 * 32 * 32)
    assert summary["length"]["max"] == 5
    rows = Rows.from_table(table, tokenizer, problem)
    assert (len(rows), rows.lengths.tolist()) == (8, [5] * 8)
    assert sorted(rows.batch(np.arange(2))) == ["labels", "pixel_values"]


# -- what is saved -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """Return a stage that has learned the examples by heart."""
    return contracts.train_on_examples(
        Strategy.named("full")(), ImageTextClassification(), tiny_model("clip"), tmp_path_factory.mktemp("full"),
        num_epochs=4, learning_rate=1e-3)  # fmt: skip


def test_a_saved_stage_opens_with_plain_transformers_and_answers_alike(trained):
    rows = contracts.raw_rows(trained.problem)
    found = logits(trained.problem, trained.reloaded, rows)
    prompts = [text for group in trained.problem.prompts() for text in group]
    np.testing.assert_allclose(found, plain_logits(trained.folder, rows, prompts), rtol=1e-4, atol=1e-4)
    assert [LABELS[i] for i in found.argmax(1)] == [row["label"] for row in trained.problem.examples()]


def test_validation_sees_the_prompts_as_they_are_after_each_step(trained):
    """Fused AdamW changes weights without a sign: remembered prompts would be those of an earlier step."""
    last = [row for row in trained.result.history if "validation_loss" in row][-1]
    best = min(row["validation_loss"] for row in trained.result.history if "validation_loss" in row)
    assert best == last["validation_loss"] < 0.05
    assert trained.problem.measure(trained.reloaded, trained.rows)["loss"] == pytest.approx(best, rel=1e-3)


def test_learned_words_stand_in_the_prompts_of_plain_transformers_too(trained, tmp_path):
    tuned = contracts.train_on_examples(
        Strategy.named("prompt_tuning")(num_virtual_tokens=4), trained.problem, trained.folder, tmp_path,
        num_epochs=2, learning_rate=1e-2)  # fmt: skip
    assert tuned.result.checkpoint.settings["num_trainable_parameters"] == 4 * 64
    rows = contracts.raw_rows(trained.problem)
    found = logits(tuned.problem, tuned.reloaded, rows)
    prompts = [text for group in tuned.problem.prompts() for text in group]
    np.testing.assert_allclose(found, plain_logits(tuned.folder, rows, prompts), rtol=1e-4, atol=1e-4)
    assert np.abs(found - logits(trained.problem, trained.reloaded, rows)).max() > 1e-3


def test_published_configs_that_misname_the_last_token_read_texts_at_it(clip, tmp_path):
    """They say 2, and transformers then reads the highest id: a learned word would have a higher one."""
    import json
    import shutil

    folder = shutil.copytree(clip, tmp_path / "legacy")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    problem = ImageTextClassification(labels=LABELS)
    opened = checkpoints.load(folder, problem)
    assert opened.model.text_model.eos_token_id == opened.tokenizer.eos_token_id != 2
    rows = contracts.raw_rows(problem)
    assert np.array_equal(logits(problem, opened, rows), logits(problem, checkpoints.load(clip, problem), rows))


# -- strategies ----------------------------------------------------------------------------------------


def test_zero_shot_trains_nothing_and_says_how_good_the_model_is(clip, tmp_path):
    problem = contracts.bound(ImageTextClassification())
    checkpoint = checkpoints.load(clip, problem)
    before = contracts.weights(checkpoint.model)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    found = stage.train(checkpoint, rows, rows, problem=problem, strategy=Strategy.named("zero_shot")(),
                        settings=stage.Training(precision="float32"), seed=1, scratch=tmp_path, name="t")  # fmt: skip
    after = contracts.weights(found.checkpoint.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert found.figures["num_trainable_parameters"] == found.figures["steps"] == 0
    measured = problem.measure(checkpoint, rows)
    assert [row["validation_accuracy"] for row in found.history] == [measured["accuracy"]]


def test_zero_shot_refuses_what_has_a_head_to_train():
    with pytest.raises(UnsupportedError, match="its model begins with a head drawn at random; choose full or lora"):
        Strategy.named("zero_shot")().check(Problem.named("text_regression")())


def test_prefix_refuses_with_the_reason():
    with pytest.raises(UnsupportedError, match="take no keys and values from outside"):
        Strategy.named("prefix")().check(ImageTextClassification())


def test_a_text_that_leaves_no_room_for_learned_words_is_refused(clip):
    problem = ImageTextClassification(labels=LABELS, use_text=True)
    model = checkpoints.load(clip, problem).model
    with pytest.raises(UnsupportedError, match=r"max_length 77 \+ 20 virtual tokens = 97 tokens, but .* 77 positions"):
        Strategy.named("prompt_tuning")().adapt(model, problem)


# -- bad input -----------------------------------------------------------------------------------------


def test_a_template_without_a_place_for_the_label_is_refused():
    with pytest.raises(ValidationError, match=r"'a photo' has no place for the label; write it with \{label\}"):
        ImageTextClassification(templates=("a photo",))


def test_a_prompt_that_is_too_long_is_one_line(clip):
    problem = ImageTextClassification(labels=("cat", "dog " * 90 + "dog"))
    with pytest.raises(CheckpointError, match=r"the prompt 'a photo of a dog .* tokens, but the model reads 77"):
        checkpoints.load(clip, problem)


def test_a_model_of_texts_alone_is_refused(tiny_model):
    with pytest.raises((CheckpointError, UnsupportedError), match="images"):
        checkpoints.load(tiny_model("bert"), ImageTextClassification(labels=LABELS))


def test_drawings_differ_by_colour_shape_and_place():
    drawing = Drawing("red", "circle", 16, 16, 8)
    others = [replace(drawing, colour="blue"), replace(drawing, shape="cross"), replace(drawing, x=12)]
    assert len({png(d) for d in (drawing, *others)}) == 4


# -- the whole road ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_sample_runs_to_a_served_model_that_answers_as_training_did(tmp_path):
    fewer = ["data.sources.all.num_rows=200", "training.num_train_epochs=2"]
    fewer += [f"stages.{i}.training.num_train_epochs=1" for i in (2, 3)]
    run = samples.run_sample("image_text_classification", tmp_path, fewer)
    samples.check_one_answer(run)
    names = {found["name"] for kind in ("members", "fusions") for found in run.evaluation[kind]}
    assert names >= {"zero_shot", "full", "lora", "prompt", "distilled", "averaging", "stacking", "greedy"}
    page = (run.folder("report") / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') >= 5
    assert len(page) < 2_000_000
    rejected = read_table(run.folder("clean") / "rejected.parquet")
    assert any(reason.startswith("unreadable image") for reason in rejected["reason"].to_pylist())

    content = run.test_rows()["image"][0].as_py()
    (tmp_path / "one.png").write_bytes(content)
    answers = run.served.predict([{"image": content}, {"image": str(tmp_path / "one.png")}, {"image": "gone.png"}])
    assert answers["prediction"][0] == answers["prediction"][1]
    assert answers["reason"].tolist() == [None, None, "unreadable image: no such file 'gone.png'"]
