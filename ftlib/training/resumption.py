"""Checkpoints of an unfinished stage: written so that a kill at any moment leaves a whole one.

A checkpoint is a folder ``checkpoint-<step>`` in the stage's scratch: learned weights, optimizer moments and
random states as safetensors, the rest as JSON, and a manifest with each file's sha256. It is written under
another name and renamed when whole; reading checks the manifest and falls back to the one before. No
pickle. The best weights so far are ``best-<step>.safetensors``, hard-linked into each checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_callback import ExportableState

from ftlib.artifacts import sha256_file
from ftlib.errors import ArtifactError
from ftlib.files import read_json, write_json

if TYPE_CHECKING:
    from ftlib.problems.base import Problem
    from ftlib.strategies.base import Strategy
    from ftlib.training.batches import Rows
    from ftlib.training.stage import Training
    from ftlib.training.trainer import StageTrainer

KEPT = 2
MANIFEST = "manifest.json"
AVERAGE = "average.safetensors"
TRAINER_STATE = "trainer_state.json"
NAME = re.compile(r"checkpoint-(\d+)")
logger = logging.getLogger(__name__)


def identity(strategy: Strategy, problem: Problem, settings: Training, seed: int, rows: Rows) -> str:
    """Return a digest of what shapes a stage's result: checkpoints of another are not its own."""
    content = hashlib.sha256()
    for name, lists in rows.lists.items():
        content.update(name.encode() + lists.flat.tobytes() + lists.starts.tobytes())
    for name, values in rows.fixed.items():
        content.update(name.encode() + values.tobytes())
    described = [
        strategy.model_dump(mode="json"),
        problem.model_dump(mode="json"),
        settings.model_dump(mode="json", exclude={"checkpoint_seconds"}),
        seed,
        torch.get_num_threads(),
        content.hexdigest(),
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def learned(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what training changes: every parameter of the optimizer by name, and the buffers that are kept."""
    chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in chosen}
    persistent = set(model.state_dict())
    buffers = {name: b for name, b in model.named_buffers() if name in persistent}
    return {**parameters, **buffers}


# -- best weights --------------------------------------------------------------------------------------


def write_best(scratch: Path, weights: dict[str, Tensor], step: int) -> None:
    """Keep the weights as they are now as the best, and drop the best before."""
    scratch.mkdir(parents=True, exist_ok=True)
    draft = scratch / ".best.safetensors"
    _save({name: value.detach() for name, value in weights.items()}, draft)
    os.replace(draft, _best(scratch, step))
    for path in scratch.glob("best-*.safetensors"):
        if path != _best(scratch, step):
            path.unlink()


def read_best(scratch: Path, weights: dict[str, Tensor], step: int) -> None:
    """Put the best weights back into the model."""
    _copy_into(weights, load_file(_best(scratch, step)))


def _best(folder: Path, step: int) -> Path:
    return folder / f"best-{step}.safetensors"


# -- writing -------------------------------------------------------------------------------------------


def export_callbacks(trainer: StageTrainer) -> None:
    """Note the state of callbacks that have one in the Trainer's state, as transformers does."""
    exportable = [c for c in (*trainer.callback_handler.callbacks, trainer.control) if isinstance(c, ExportableState)]
    collected: dict[str, Any] = {}
    for callback in exportable:
        name = type(callback).__name__
        state = callback.state()
        collected[name] = state if name not in collected else [*_as_list(collected[name]), state]
    trainer.state.stateful_callbacks = collected  # type: ignore[assignment]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def write(scratch: Path, trainer: StageTrainer) -> None:
    """Write a checkpoint of the trainer as it is, whole or not at all, and drop the oldest."""
    step = trainer.state.global_step
    target, draft = scratch / f"checkpoint-{step}", scratch / f".writing-{step}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _save({name: value.detach() for name, value in trainer.learned.items()}, draft / "weights.safetensors")
    _save(_moments(trainer.optimizer), draft / "optimizer.safetensors")
    if trainer.average is not None:
        _save(trainer.average.dump(), draft / AVERAGE)
    _write_random_state(draft)
    trainer.state.save_to_json(str(draft / TRAINER_STATE))
    if trainer.record.best_step:
        os.link(_best(scratch, trainer.record.best_step), _best(draft, trainer.record.best_step))
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    scheduler = trainer.lr_scheduler.state_dict()  # type: ignore[union-attr]
    write_json(draft / "stage.json", {"identity": trainer.identity, "record": trainer.record.dump(), "rates": rates,
                                      "scheduler": scheduler})  # fmt: skip
    files = {path.name: sha256_file(path) for path in sorted(draft.iterdir())}
    write_json(draft / MANIFEST, files)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(draft, target)
    for old in _checkpoints(scratch)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _write_random_state(folder: Path) -> None:
    name, keys, *rest = np.random.get_state()
    states = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    _save(states, folder / "random.safetensors")
    write_json(folder / "random.json", {"python": random.getstate(), "numpy": [name, *rest]})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


# -- reading -------------------------------------------------------------------------------------------


def newest(scratch: Path, wanted: str) -> Path | None:
    """Return the newest whole checkpoint that belongs to the stage with this identity; drop all others."""
    found = None
    for folder in _checkpoints(scratch):
        if found is None and _is_whole(folder) and read_json(folder / "stage.json")["identity"] == wanted:
            found = folder
            continue
        if found is None:  # an older one beside a good one is no longer needed, and no news
            logger.warning("%s is damaged or of other parameters; it is not used.", folder.name)
        shutil.rmtree(folder, ignore_errors=True)
    for folder in scratch.glob(".writing-*"):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def read(folder: Path, trainer: StageTrainer) -> None:
    """Put a checkpoint's weights, optimizer, scheduler and record into the trainer."""
    stage = read_json(folder / "stage.json")
    _copy_into(trainer.learned, load_file(folder / "weights.safetensors"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value.clone()  # aligned, as it was before
    if trainer.average is not None:
        trainer.average.restore(load_file(folder / AVERAGE))
    groups = trainer.optimizer.state_dict()["param_groups"]
    restored = [{**group, "lr": rate} for group, rate in zip(groups, stage["rates"], strict=True)]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": restored})
    trainer.lr_scheduler.load_state_dict(stage["scheduler"])  # type: ignore[union-attr]
    trainer.record.restore(stage["record"])
    step = trainer.record.best_step
    if step:
        target = _best(trainer.plan.scratch, step)
        target.unlink(missing_ok=True)
        os.link(_best(folder, step), target)


def read_random_state(folder: Path) -> None:
    """Put the random generators back to where they were."""
    tensors = load_file(folder / "random.safetensors")
    plain = read_json(folder / "random.json")
    version, keys, gauss = plain["python"]
    random.setstate((version, tuple(keys), gauss))
    name, *rest = plain["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _checkpoints(scratch: Path) -> list[Path]:
    """Return the checkpoints, newest first."""
    found = [(int(match[1]), path) for path in scratch.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _is_whole(folder: Path) -> bool:
    try:
        files = read_json(folder / MANIFEST)
        return all(sha256_file(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError):
        return False


def _copy_into(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    if set(weights) != set(values):
        raise ArtifactError("a checkpoint in the stage's scratch does not fit the model; delete it and run again.")
    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)
