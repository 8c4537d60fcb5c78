"""``base_model: random:FAMILY``: small models drawn at random, the same bytes every time, of every family."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftlib.errors import CheckpointError
from ftlib.models import checkpoints, untrained
from ftlib.problems.base import Problem
from tests import contracts

FAMILIES = tuple(untrained.FAMILIES)
BYTE_LEVEL = tuple(f for f in FAMILIES if f not in ("bert", "distilbert"))
STRANGE = "Größe ☃ 漢字: naïve Æsop costs €5 \x07 @#$"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that gives the folder of an untrained model."""
    done: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in done:
            done[family] = tmp_path_factory.mktemp(family.replace("/", "-"))
            checkpoints.fetch(f"random:{family}", done[family])
        return done[family]

    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_plain_transformers_opens(family, written):
    from transformers import AutoModel, AutoTokenizer

    folder = written(family)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= contents(folder).keys()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    rows = tokenizer(["A red square.", "Why was I charged twice?"], padding=True, return_tensors="pt")
    if family in ("t5", "bart"):
        rows["decoder_input_ids"] = rows["input_ids"]
    if family == "clip":
        states = model.get_text_features(**rows).pooler_output
    else:
        states = model(**rows).last_hidden_state
    assert torch.isfinite(states).all()
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) if family != "clip" else True
    assert tokenizer.pad_token_id == (model.config.get_text_config().pad_token_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_recipe_gives_the_same_bytes_and_leaves_the_random_state_alone(family, written, tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    checkpoints.fetch(f"random:{family}-tiny", tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert contents(tmp_path) == contents(written(family))


@pytest.mark.slow
def test_another_process_with_other_hash_seeds_gives_the_same_bytes(written, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ftlib.models.pretrained import fetch\n"
        "for family in sys.argv[2:]: fetch('random:' + family, Path(sys.argv[1]) / family)"
    )
    chosen = ("bert", "t5")
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *chosen], check=True, env={"PYTHONHASHSEED": "77"},
                   cwd=Path(__file__).parents[2])  # fmt: skip
    for family in chosen:
        assert contents(tmp_path / family) == contents(written(family))


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_a_byte_level_tokenizer_knows_every_character(family, written):
    tokenizer = checkpoints.load_tokenizer(written(family))
    read = tokenizer.decode(tokenizer(STRANGE)["input_ids"], skip_special_tokens=True)
    assert read == (STRANGE.lower() if family == "clip" else STRANGE)


def test_word_pieces_know_letters_and_signs_and_frequent_words(written):
    tokenizer = checkpoints.load_tokenizer(written("bert"))
    tokens = tokenizer.tokenize("The refund, naïve Größe @ # ÆSOP жизнь λόγος 42%")
    assert "[UNK]" not in tokens
    assert {"the", "refund", "@", "#"} <= set(tokens)
    assert tokenizer.tokenize("漢") == ["[UNK]"]
    assert tokenizer("a b", "c")["token_type_ids"] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_an_untrained_encoder_can_be_trained(family, written):
    problem = contracts.bound(Problem.named("text_classification")())
    checkpoint = checkpoints.load(written(family), problem)
    rows = contracts.encoded_rows(problem, checkpoint.tokenizer)
    logits = contracts.logits(checkpoint, rows, problem)
    assert logits.std(axis=0).min() > 1e-3  # rows differ: the trunk passes on what it reads


def test_the_vocabulary_can_be_learned_from_a_file(tmp_path):
    lines = [{"en": "two dogs run", "de": "zwei Hunde rennen schnell", "more": ["Straßenbahn"]} for _ in range(20)]
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf8")
    text = tmp_path / "plain.txt"
    text.write_text("zwei Hunde rennen schnell\n" * 20, encoding="utf8")
    for name in (rows, text):
        checkpoints.fetch(f"random:t5@{name}", tmp_path / name.stem)
        tokenizer = checkpoints.load_tokenizer(tmp_path / name.stem)
        assert tokenizer.tokenize("zwei Hunde rennen") == ["zwei", "ĠHunde", "Ġrennen"]
    assert "StraÃŁenbahn" in checkpoints.load_tokenizer(tmp_path / "pairs").get_vocab()
    assert untrained.fingerprint(f"random:t5@{rows}") != untrained.fingerprint(f"random:t5@{text}")
    before = untrained.fingerprint(f"random:t5@{text}")
    text.write_text("other words\n", encoding="utf8")
    assert untrained.fingerprint(f"random:t5@{text}") != before


def test_a_digest_says_what_shapes_the_model():
    digests = [untrained.fingerprint(f"random:{name}") for name in ("bert", "bert-small", "roberta", "t5")]
    assert len(set(digests)) == 4
    assert untrained.fingerprint("random:bert-tiny") == digests[0]


def test_the_digest_needs_no_heavy_library():
    code = (
        "import sys; from ftlib.models.pretrained import fingerprint; fingerprint('random:bert')\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("random:brt", "unknown family of untrained models 'brt'. Did you mean 'bert'"),
        ("random:bert-smal", "unknown size 'smal'. Did you mean 'small'"),
        ("random:", "unknown family of untrained models ''. Expected one of: bart, bert"),
        ("random:t5@no/such.txt", "there is no file no/such.txt"),
        ("random:t5@", "names no file after the @"),
    ],
)
def test_a_wrong_recipe_is_one_line_with_near_names(given, expected, tmp_path):
    for ask in (checkpoints.fingerprint, lambda model: checkpoints.fetch(model, tmp_path / "x")):
        with pytest.raises(CheckpointError) as caught:
            ask(given)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_without_texts_and_a_file_of_an_unknown_kind_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "rows.xyz").write_text("words")
    with pytest.raises(CheckpointError, match="holds no texts"):
        checkpoints.fetch(f"random:t5@{tmp_path / 'empty.txt'}", tmp_path / "a")
    with pytest.raises(CheckpointError, match="no source is known by this ending"):
        checkpoints.fetch(f"random:t5@{tmp_path / 'rows.xyz'}", tmp_path / "b")


def test_llamas_chat_template_marks_what_the_assistant_says(written):
    tokenizer = checkpoints.load_tokenizer(written("llama"))
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "On its way."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Welcome."},
    ]
    found = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(found["input_ids"], found["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "On its way.<|end|>Welcome.<|end|>"
    assert found["input_ids"][0] == tokenizer.bos_token_id
    asked = tokenizer.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<s><|system|>Be brief.<|end|><|user|>Where is my parcel?<|end|><|assistant|>"
    with pytest.raises(Exception, match="unknown role 'tool'"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
def test_generating_models_write_text(family, written):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if family in ("t5", "bart") else AutoModelForCausalLM
    model, tokenizer = auto.from_pretrained(written(family)), checkpoints.load_tokenizer(written(family))
    rows = tokenizer(["Two dogs"], return_tensors="pt")
    given = model.generate(**rows, max_new_tokens=5, do_sample=False)
    assert given.shape[1] > 1
    loss = model(**rows, labels=rows["input_ids"]).loss
    assert float(loss.detach()) < 15


def test_clip_reads_images_of_32_by_32(written):
    import numpy as np
    from transformers import AutoImageProcessor, CLIPModel

    processor = AutoImageProcessor.from_pretrained(written("clip"), backend="pil")
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    model, tokenizer = CLIPModel.from_pretrained(written("clip")), checkpoints.load_tokenizer(written("clip"))
    texts = tokenizer(["a red circle", "a green square and more"], padding=True, return_tensors="pt")
    given = model(pixel_values=pixels, **texts)
    assert given.logits_per_image.shape == (1, 2)
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id
