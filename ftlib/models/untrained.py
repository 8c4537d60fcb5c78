"""Untrained models: ``base_model: random:FAMILY[-SIZE][@TEXTS]``, drawn at random here, nothing downloaded.

For trying a params file with no model at hand, for training a small model from scratch on rows of one's own, and as
the yardstick that says what pretraining is worth. Not for good results on little data: an untrained encoder knows
no word, so expect a pretrained one to be far ahead until there are hundreds of thousands of rows.

    random:bert                         the smallest: 2 blocks of width 64
    random:llama-small                  4 blocks of width 256; mini: 2 of 128; base: 6 of 512
    random:t5-small@data/train.jsonl    its vocabulary learned from the texts of this file

Families: bert, distilbert, roberta (encoders), bart, t5 (encoder-decoder), gpt2, llama (causal; llama's tokenizer has
a chat template), clip (images of 32 x 32 with text). Without a file the vocabulary is learned from sample texts in
English: other languages are read byte by byte, which is long, so name a file for them. The file is anything that a
data source reads by its ending (every column of texts counts), or .txt with a text a line. Its vocabulary holds what
is in the file: name training rows alone where an honest test matters. The same recipe gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ftlib.errors import CheckpointError, FtlibError, unknown
from ftlib.files import read_json, write_json
from ftlib.plugins import Plugin

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RANDOM = "random:"
HOW = "Write random:FAMILY-SIZE or random:FAMILY-SIZE@FILE, for example random:bert-tiny."
SAMPLE = ("ftlib.data.sources.base", "support_requests", {"num_rows": 4000, "seed": 0})
"""The source whose texts a vocabulary is learned from where no file is named. Found by its name, not imported, so
that what the source is made of does not enter the cache keys of every step that opens a checkpoint: its fingerprint
is in this model's."""
SEED = 0
IMAGE_SIZE = 32


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        num_blocks: Of an encoder-decoder, in each half.
        width: Numbers a token.
        num_heads: Attention heads.
        vocabulary_size: The most tokens.
    """

    num_blocks: int
    width: int
    num_heads: int
    vocabulary_size: int


SIZES = {
    "tiny": Size(2, 64, 4, 2000),
    "mini": Size(2, 128, 4, 4000),
    "small": Size(4, 256, 4, 8000),
    "base": Size(6, 512, 8, 16000),
}
MAX_LENGTHS = {"clip": 77, "gpt2": 1024, "llama": 1024}
MAX_LENGTH = 512


@dataclass(frozen=True)
class Recipe:
    """What ``random:...`` asks for.

    Attributes:
        family: A key of `FAMILIES`.
        size: A key of `SIZES`.
        texts: The file that the vocabulary is learned from; None for sample texts.
    """

    family: str
    size: str
    texts: Path | None

    @property
    def max_length(self) -> int:
        """How many tokens the model reads."""
        return MAX_LENGTHS.get(self.family, MAX_LENGTH)


def parse(base_model: str) -> Recipe:
    """Return what ``random:FAMILY[-SIZE][@TEXTS]`` asks for.

    Raises:
        CheckpointError: If there is no such family or size, or no such file; near names are told.
    """
    wanted, _, texts = base_model.removeprefix(RANDOM).partition("@")
    family, _, size = wanted.partition("-")
    for kind, name, known in (("family of untrained models", family, FAMILIES), ("size", size or "tiny", SIZES)):
        if name not in known:
            raise CheckpointError(f"base_model {base_model!r}: {unknown(kind, name, known, remedy=HOW)}")
    path = Path(texts).expanduser() if texts else None
    if path is not None and not path.is_file():
        raise CheckpointError(f"base_model {base_model!r}: there is no file {texts} to learn a vocabulary from. {HOW}")
    if "@" in base_model and path is None:
        raise CheckpointError(f"base_model {base_model!r}: names no file after the @. {HOW}")
    return Recipe(family, size or "tiny", path)


def fingerprint(base_model: str) -> str:
    """Return a digest of the recipe and of the texts that its vocabulary is learned from.

    Raises:
        CheckpointError: If the recipe is none.
    """
    recipe = parse(base_model)
    digest = hashlib.sha256(f"{recipe.family} {SIZES[recipe.size]}\n".encode())
    if recipe.texts is None:
        digest.update(_sample().fingerprint().encode())
    else:
        with recipe.texts.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())  # type: ignore[arg-type]
    return digest.hexdigest()


def write(base_model: str, folder: Path) -> None:
    """Write an untrained model as a pretrained checkpoint has it: config, safetensors and tokenizer files.

    Raises:
        CheckpointError: If the recipe is none, or its file holds no texts.
    """
    from ftlib.models.checkpoints import quiet

    recipe = parse(base_model)
    tokenizer = _tokenizer(recipe, base_model)
    model = _model(recipe, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if recipe.family == "clip":
        write_json(folder / "preprocessor_config.json", IMAGE_PROCESSOR)
    _forget_versions(folder)


def _forget_versions(folder: Path) -> None:
    for path in (folder / "config.json", folder / "generation_config.json"):
        if path.exists():
            kept = {k: v for k, v in read_json(path).items() if k not in ("transformers_version", "_name_or_path")}
            write_json(path, kept)


# -- texts ---------------------------------------------------------------------------------------------


def _tokenizer(recipe: Recipe, base_model: str) -> PreTrainedTokenizerBase:
    from ftlib.models import vocabularies

    texts = list(_texts(recipe, base_model))
    if not any(text.strip() for text in texts):
        raise CheckpointError(f"base_model {base_model!r}: {recipe.texts} holds no texts to learn a vocabulary from.")
    size = SIZES[recipe.size].vocabulary_size
    return vocabularies.build(recipe.family, lambda: texts, size, recipe.max_length)


def _texts(recipe: Recipe, base_model: str) -> Iterator[str]:
    if recipe.texts is None:
        yield from _strings(_sample())
    elif recipe.texts.suffix == ".txt":
        yield from recipe.texts.read_text(encoding="utf-8", errors="replace").splitlines()
    else:
        try:
            yield from _strings(_sources().model_validate(str(recipe.texts)))
        except ValidationError as error:
            raise CheckpointError(f"base_model {base_model!r}: {error.errors()[0]['msg']}") from error
        except FtlibError as error:
            raise CheckpointError(f"base_model {base_model!r}: {error}") from error


def _strings(source: Any) -> Iterator[str]:
    """Yield every string of a source's rows, those inside lists and objects too."""
    table = source.read({name: name for name in source.columns()})
    for column in table.columns:
        for value in column.to_pylist():
            yield from _flat(value)


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _sample() -> Any:
    return _sources().model_validate({"name": SAMPLE[1], **SAMPLE[2]})


def _sources() -> type[Plugin]:
    import importlib

    return importlib.import_module(SAMPLE[0]).Source


# -- models --------------------------------------------------------------------------------------------


def _model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the model, its weights a function of the recipe alone; the caller's random state stays as it is."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return FAMILIES[recipe.family](SIZES[recipe.size], len(tokenizer), tokenizer, recipe.max_length).eval()


def _spread(size: Size) -> float:
    """Return the deviation of the weights that keeps a signal's size from block to block.

    The 0.02 of published models is meant for a width of 768: a narrow trunk would give every row the same vector.
    """
    return 1 / math.sqrt(size.width)


def _encoder(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.num_blocks,
        "num_attention_heads": size.num_heads,
        "intermediate_size": 4 * size.width,
        "max_position_embeddings": positions,
        "initializer_range": _spread(size),
        "pad_token_id": tokenizer.pad_token_id,
    }


def _bert(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**_encoder(size, vocabulary, tokenizer, positions)))


def _roberta(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import RobertaConfig, RobertaModel

    fields = _encoder(size, vocabulary, tokenizer, positions + 2)  # its positions begin behind the padding's
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return RobertaModel(RobertaConfig(**fields, **ends, type_vocab_size=1))


def _distilbert(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(
            vocab_size=vocabulary,
            dim=size.width,
            n_layers=size.num_blocks,
            n_heads=size.num_heads,
            hidden_dim=4 * size.width,
            max_position_embeddings=positions,
            initializer_range=_spread(size),
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _bart(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import BartConfig, BartForConditionalGeneration

    halves: dict[str, Any] = {
        f"{half}_{field}": value
        for half in ("encoder", "decoder")
        for field, value in (
            ("layers", size.num_blocks),
            ("attention_heads", size.num_heads),
            ("ffn_dim", 4 * size.width),
        )
    }
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocabulary,
            d_model=size.width,
            **halves,
            max_position_embeddings=positions,
            init_std=_spread(size),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=tokenizer.eos_token_id,
        )
    )


def _t5(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=vocabulary,
        d_model=size.width,
        d_kv=size.width // size.num_heads,
        d_ff=4 * size.width,
        num_layers=size.num_blocks,
        num_heads=size.num_heads,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    return T5ForConditionalGeneration(config)


def _gpt2(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=positions,
            n_embd=size.width,
            n_layer=size.num_blocks,
            n_head=size.num_heads,
            initializer_range=_spread(size),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _llama(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = _encoder(size, vocabulary, tokenizer, positions)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(**fields, **ends, tie_word_embeddings=True))


def _clip(size: Size, vocabulary: int, tokenizer: Any, positions: int) -> PreTrainedModel:
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.num_blocks,
        "num_attention_heads": size.num_heads,
    }
    ends = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    return CLIPModel(
        CLIPConfig(
            text_config={**tower, **ends, "vocab_size": vocabulary, "max_position_embeddings": positions},
            vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": 8},
            projection_dim=size.width,
        )
    )


FAMILIES: dict[str, Callable[[Size, int, Any, int], PreTrainedModel]] = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "bart": _bart,
    "t5": _t5,
    "gpt2": _gpt2,
    "llama": _llama,
    "clip": _clip,
}
"""Every family, and what builds its model."""

IMAGE_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
"""How CLIP wants its images: cut to a square, with the published means and deviations."""
