"""The model registry: a packed model becomes a version that MLflow can load and serve, once a digest."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ftlib import state
from ftlib.errors import CheckpointError, TrackingError, unknown
from ftlib.files import read_json
from ftlib.tracking.journal import Event
from ftlib.tracking.store import connected, experiment_id, metric_name, texts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.models.model import Model

    from ftlib.problems.base import Problem

DIGEST = "ftlib.digest"
"""The version's tag that makes registering twice one version."""

RECORDED = "ftlib.recorded"
"""The version's tag that says when it was last registered, in ms: a late record takes no alias from a newer one."""

REQUIREMENTS = (
    *("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pyarrow", "pydantic", "fsspec", "ftfy"),
)
"""What serving imports. Named, because inferring it costs MLflow 8 seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registered:
    """A registered model: ``models:/name@alias``, and the version that it names now."""

    uri: str
    version: str


def register(
    folder: Path,
    *,
    digest: str,
    name: str,
    alias: str,
    experiment: str | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Registered:
    """Register a packed model and give it the alias; a digest that has a version keeps that version.

    Args:
        folder: What `ftlib.packing.pack` wrote.
        digest: Its artifact's digest.
        name: The registered model.
        alias: The alias to move to it.
        experiment: The experiment that it belongs to; named as the model unless given.
        metrics: Figures to show beside it.
        tags: More tags.

    Raises:
        TrackingError: If MLflow does not answer, or refuses.
    """
    event: Event = {"folder": str(folder), "digest": digest, "name": name, "alias": alias, "tags": dict(tags or {}),
                    "metrics": dict(metrics or {}), "at": int(time.time() * 1000)}  # fmt: skip
    from mlflow.exceptions import MlflowException

    try:
        with connected() as (uri, client):
            registered = carry_out(client, experiment_id(client, experiment or name, uri), event, None)
    except MlflowException as error:
        raise TrackingError(f"model {name!r}: {' '.join(str(error).split())}") from error
    if registered is None:
        raise TrackingError(f"model {name!r}: {folder} holds no packed model.")
    return registered


def carry_out(client: MlflowClient, experiment: str, event: Event, run_id: str | None) -> Registered | None:
    """Do what a journal's "register" event asks for; None, with a warning, where its folder is gone."""
    found = _version_of(client, event["name"], event["digest"])
    if found is None:
        folder = Path(event["folder"])
        if not (folder / "model.json").exists():
            logger.warning("MLflow: %s is gone; model %r is not registered.", folder, event["name"])
            return None
        found = _create(client, experiment, folder, event, run_id)
    elif run_id:
        _link(client, run_id, found)
    _move_alias(client, found, event)
    return Registered(f"models:/{event['name']}@{event['alias']}", str(found.version))


def _version_of(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST}` = '{digest}'", max_results=10)
    return max(found, key=lambda v: int(v.version), default=None)


def _move_alias(client: MlflowClient, found: ModelVersion, event: Event) -> None:
    holder = client.get_registered_model(event["name"]).aliases.get(event["alias"])
    if holder is not None and str(holder) != str(found.version):
        newest = client.get_model_version(event["name"], holder).tags.get(RECORDED, "0")
        if int(newest) > event["at"]:
            return
    if str(holder) != str(found.version):
        client.set_registered_model_alias(event["name"], event["alias"], found.version)
    if int(found.tags.get(RECORDED, "0")) < event["at"]:
        client.set_model_version_tag(event["name"], found.version, RECORDED, str(event["at"]))


def _link(client: MlflowClient, run_id: str, found: ModelVersion) -> None:
    """Show a version that an earlier run made as this run's outcome too."""
    from mlflow.entities import LoggedModelOutput

    model_id = _model_id(found)
    if model_id:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _model_id(found: ModelVersion) -> str | None:
    """Return the logged model behind a version: a SQL registry tells it in the source only."""
    source = found.source or ""
    return found.model_id or (source.removeprefix("models:/") if source.startswith("models:/m-") else None)


# -- a new version -------------------------------------------------------------------------------------


def _create(client: MlflowClient, experiment: str, folder: Path, event: Event, run_id: str | None) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    metrics = {metric_name(k): v for k, v in event.get("metrics", {}).items()}
    tags = {DIGEST: event["digest"], **texts(event.get("tags", {})), **{k: f"{v:.6g}" for k, v in metrics.items()}}
    model = client.create_logged_model(experiment, event["name"], run_id, {DIGEST: event["digest"]}, model_type="ftlib")
    _upload(client, model.model_id, model.artifact_location, folder, run_id)
    client.finalize_logged_model(model.model_id, "READY")
    if run_id:
        _log_metrics(client, run_id, model.model_id, metrics, event["at"])
    try:
        client.create_registered_model(event["name"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        event["name"], f"models:/{model.model_id}", run_id, tags, await_creation_for=0, model_id=model.model_id
    )


def _upload(client: MlflowClient, model_id: str, location: str, folder: Path, run_id: str | None) -> None:
    """Write the pyfunc model where MLflow wants it: straight there if that is this machine, else by upload."""
    from mlflow.models.model import Model

    about = Model(artifact_path=location, run_id=run_id, model_uuid=model_id, model_id=model_id)
    parts = urlsplit(location)
    if parts.scheme in ("", "file") and not parts.netloc:
        path = Path(unquote(parts.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pyfunc(path, folder, about)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model")
        write_pyfunc(path, folder, about)
        client.log_model_artifacts(model_id, str(path))


def write_pyfunc(path: Path, folder: Path, about: Model) -> None:
    """Write a packed model as MLflow's "model from code": no pickle, with the ftlib sources that packed it."""
    import mlflow.pyfunc

    from ftlib.problems.base import Problem

    package = Path(__file__).parent.parent
    problem = Problem.model_validate(read_json(folder / "model.json")["problem"])
    mlflow.pyfunc.save_model(
        path=str(path),
        mlflow_model=about,
        python_model=str(package / "serving" / "pyfunc.py"),
        artifacts={"model": str(folder)},
        code_paths=[str(package)],
        pip_requirements=_requirements(),
        signature=signature(problem),
        input_example=_example(problem),
    )


def _requirements() -> list[str]:
    """Return the serving libraries, pinned; a local build such as ``2.13.0+cpu`` by its public version."""
    pins = []
    for name in ("mlflow", *REQUIREMENTS):
        try:
            pins.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:  # an optional one
            continue
    return pins


def signature(problem: Problem) -> ModelSignature:
    """Return what the served model takes, and, where it gives columns of plain values, what it gives."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import Schema

    if problem.other_columns:
        return ModelSignature(infer_signature(_example(problem)).inputs)
    return ModelSignature(Schema(_inputs(problem)), Schema(outputs) if (outputs := _outputs(problem)) else None)


def _inputs(problem: Problem) -> list[Any]:
    from mlflow.types.schema import ColSpec

    return [ColSpec("string", column) for column in problem.text_columns]


def _outputs(problem: Problem) -> list[Any]:
    from mlflow.types.schema import Array, ColSpec, DataType

    text, number = DataType.string, DataType.double
    kinds: dict[str, Any] = {"single_label": text, "multi_label": Array(text), "value": number}
    if problem.target.kind not in kinds:
        return []
    return [
        ColSpec(kinds[problem.target.kind], "prediction", required=False),
        *([ColSpec("double", "confidence", required=False)] if problem.target.labels else []),
        *(ColSpec("double", f"score:{label}", required=False) for label in problem.target.labels),
        ColSpec("string", "reason", required=False),
    ]


def _example(problem: Problem) -> Any:
    import pandas as pd

    rows = [{column: row[column] for column in problem.input_columns} for row in problem.examples()[:2]]
    return pd.DataFrame(rows)


def _log_metrics(client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, float], at: int) -> None:
    from mlflow.entities import LoggedModelOutput, Metric

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    if metrics:
        values = [Metric(k, v, at, 0, model_id=model_id, run_id=run_id) for k, v in metrics.items()]
        client.log_batch(run_id, metrics=values, synchronous=True)


# -- getting one back ----------------------------------------------------------------------------------


def download(uri: str) -> tuple[Path, str | None]:
    """Return the MLflow model's folder for ``models:/name@alias``, ``models:/name/3`` or ``runs:/ID``, and its digest.

    Raises:
        CheckpointError: If there is no such model, version, alias or run; with the near names.
        TrackingError: If MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        with connected() as (_, client):
            return _download(client, uri)
    except MlflowException as error:
        raise TrackingError(f"{uri}: {' '.join(str(error).split())}") from error


def _download(client: MlflowClient, uri: str) -> tuple[Path, str | None]:
    model_id = _of_run(client, uri) if uri.startswith("runs:/") else _model_id(_named(client, uri))
    if not model_id:
        raise CheckpointError(f"{uri}: was not registered by ftlib; `mlflow.pyfunc.load_model` opens it.")
    model = client.get_logged_model(model_id)
    parts = urlsplit(model.artifact_location)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path)), model.tags.get(DIGEST)
    return _fetched(client, model_id), model.tags.get(DIGEST)


def _fetched(client: MlflowClient, model_id: str) -> Path:
    """Return a server's model, brought here once: a logged model never changes."""
    from mlflow.artifacts import download_artifacts

    target = state.home() / "mlflow" / "fetched" / model_id
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            draft = Path(scratch, "model")
            draft.mkdir()
            uri = f"models:/{model_id}"
            found = download_artifacts(artifact_uri=uri, dst_path=str(draft), tracking_uri=client.tracking_uri)
            try:
                Path(found).rename(target)
            except OSError:
                if not target.exists():  # else another process was quicker
                    raise
    return target


def _of_run(client: MlflowClient, uri: str) -> str | None:
    from mlflow.exceptions import MlflowException

    run_id = uri.removeprefix("runs:/").strip("/").partition("/")[0]
    try:
        outputs = client.get_run(run_id).outputs
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise CheckpointError(f"{uri}: MLflow has no run {run_id!r}.") from None
    models = outputs.model_outputs if outputs else []
    if not models:
        raise CheckpointError(f"{uri}: this run registered no model; give the parent run of a finished flow run.")
    return str(models[-1].model_id)


def _named(client: MlflowClient, uri: str) -> ModelVersion:
    text = uri.removeprefix("models:/").strip("/")
    name, at, alias = text.partition("@")
    if not at:
        name, _, number = text.partition("/")
    models = {m.name: m for m in client.search_registered_models()}
    if name not in models:
        raise CheckpointError(f"{uri}: {unknown('registered model', name, models)}")
    if at:
        aliases = models[name].aliases
        if alias not in aliases:
            raise CheckpointError(f"{uri}: {unknown('alias', alias, aliases)}")
        number = str(aliases[alias])
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{name}'")}
    if number in ("", "latest"):
        number = max(versions, key=int, default="")
    if number not in versions:
        raise CheckpointError(f"{uri}: {unknown('version', number, versions)}")
    return versions[number]
