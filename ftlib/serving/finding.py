"""Finding a model: from what a person calls it to the folder that holds it, and what the store knows of that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.data.clean import Cleaning
from ftlib.errors import ArtifactError, CheckpointError

if TYPE_CHECKING:
    from ftlib.artifacts import Store

MODEL = "model.json"
"""The file of a packed model."""

SETTINGS = "ftlib.json"
"""The file of a checkpoint that ftlib trained."""

logger = logging.getLogger(__name__)


def resolve(model: str | Path) -> Path:
    """Return the folder of a model that can be loaded.

    Args:
        model: ``models:/name@alias`` or ``models:/name/3`` (a registered model), ``runs:/ID`` (what an MLflow run
            registered), a folder (a packed model, a checkpoint, an MLflow model), or the beginning of an
            artifact's digest.

    Raises:
        CheckpointError: If there is no such model.
        ArtifactError: If its artifact is damaged.
        TrackingError: If MLflow is needed and does not answer.
    """
    text = str(model)
    if text.startswith(("models:/", "runs:/")):
        return _registered(text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _model_in(folder.absolute())
    if len(text) >= 6 and set(text) <= set("0123456789abcdef"):
        return _model_in(_by_digest(text))
    raise CheckpointError(
        f"{text}: no such model. Expected models:/name@alias, models:/name/3, runs:/ID, a folder, or the first "
        f"characters of an artifact's digest (`ftlib store ls`)."
    )


def _registered(uri: str) -> Path:
    from ftlib import state
    from ftlib.tracking import download

    folder, digest = download(uri)
    if digest:
        store: Store = state.store()
        if store.problem(digest) is None:
            return store.open(digest)
    return _model_in(folder)


def _model_in(folder: Path) -> Path:
    """Return where in a folder the model is: MLflow keeps it in a folder of its own."""
    for place in (folder, *sorted(folder.glob("artifacts/*"))):
        if (place / MODEL).is_file() or (place / SETTINGS).is_file():
            return place
    raise CheckpointError(no_model(folder))


def _by_digest(prefix: str) -> Path:
    from ftlib import state

    store = state.store()
    found = [digest for digest in store.digests() if digest.startswith(prefix)]
    if len(found) == 1:
        return store.open(found[0])
    if found:
        raise CheckpointError(f"{prefix}: {len(found)} artifacts begin so; give more characters of the digest.")
    raise ArtifactError(f"{prefix}: no artifact of {store.url} begins so. `ftlib store ls` names all.")


def cleaning_of(checkpoint: Path) -> Cleaning:
    """Return how a checkpoint's training rows were repaired, by the store's records; the default where unknown."""
    from ftlib import state

    store = state.store()
    records = {record.digest: record for record in store.records()}
    waiting, seen = [checkpoint.name], set()
    while waiting:
        record = records.get(waiting.pop())
        if record is None or record.digest in seen:
            continue
        seen.add(record.digest)
        parameters = record.components.get("parameters", {})
        if "cleaning" in parameters:
            return Cleaning.model_validate(parameters["cleaning"])
        waiting += record.components.get("inputs", {}).values()
    logger.warning("%s: nothing says how its training rows were repaired; the default cleaning is used.", checkpoint)
    return Cleaning()


def no_model(folder: Path) -> str:
    """Return why nothing in a folder can be loaded."""
    if not folder.is_dir():
        return f"{folder}: no such folder."
    return (
        f"{folder}: holds no model. Expected {MODEL} (a packed model) or {SETTINGS} (a trained stage's checkpoint); "
        f"a pretrained model that was not fine-tuned here has nothing to answer."
    )
