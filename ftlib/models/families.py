"""Families of base models: which of them a problem can be learned with.

A family says how a model reads and answers, whatever it is called: an encoder sees a whole text at once (bert), an
encoder-decoder writes a text about another (t5), a causal model goes on with a text (gpt2), and some see images
beside texts (clip). A problem names those that it is learned with in `Problem.families`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError
from ftlib.files import read_json

if TYPE_CHECKING:
    from ftlib.problems.base import Problem

FAMILIES = {
    "encoder": "an encoder, such as bert, roberta or distilbert",
    "encoder_decoder": "an encoder-decoder, such as t5 or bart",
    "causal": "a causal model, such as gpt2 or llama",
    "image_text": "a model of images and texts, such as clip",
}
"""Every family, and what it is called in messages."""


def check(folder: Path, problem: Problem) -> None:
    """Refuse a model that a problem cannot be learned with; one of an unknown make passes.

    Args:
        folder: A checkpoint; an adapter is known by its base.
        problem: What is learned.

    Raises:
        UnsupportedError: With what the problem needs.
    """
    reason = reason_against(folder, problem)
    if reason:
        raise UnsupportedError(f"{reason}. Set another base_model.")


def reason_against(folder: Path, problem: Problem) -> str:
    """Return why a problem cannot be learned with a model of its family; "" where it can, or that is not known."""
    config = _config(folder)
    family = family_of(config)
    if not family or family in problem.families:
        return ""
    wanted = ", or ".join(FAMILIES[name] for name in problem.families)
    return f"{problem.name} needs {wanted}; got {config['model_type']}, {FAMILIES[family].partition(',')[0]}"


def language_model(folder: Path, asked_by: str) -> str:
    """Return the transformers class that predicts words with a model that reads a text by itself.

    Args:
        folder: A checkpoint; an adapter is known by its base.
        asked_by: What needs it, for errors.

    Raises:
        UnsupportedError: If there is none.
    """
    config = _config(folder)
    classes = {"encoder": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}
    family = family_of(config)
    if family not in classes:
        wanted = ", or ".join(FAMILIES[name] for name in classes)
        raise UnsupportedError(f"{asked_by} needs {wanted}; got {config.get('model_type')}. Set another base_model.")
    return classes[family]


def of_folder(folder: Path) -> str | None:
    """Return a checkpoint's family; None where it is not known."""
    return family_of(_config(folder))


def _config(folder: Path) -> dict[str, Any]:
    path = next((p for p in (folder / "config.json", folder / "base" / "config.json") if p.is_file()), None)
    return read_json(path) if path else {}


def family_of(config: dict[str, Any]) -> str | None:
    """Return the family of a model from what config.json holds; None where transformers does not say."""
    from transformers.models.auto import modeling_auto as auto

    kind = config.get("model_type")
    if "vision_config" in config:
        return "image_text"
    if kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or config.get("is_encoder_decoder"):
        return "encoder_decoder"
    if kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:  # before the next: bert can be made to go on with a text, too
        return "encoder"
    return "causal" if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None
