"""Where this project keeps its state, and the environment its dependencies run in.

Everything is below one folder, ``.ftlib`` in the current one unless FTLIB_HOME says otherwise, and every
path is absolute: nothing depends on where a worker was started.
"""

from __future__ import annotations

import os
from pathlib import Path

from ftlib.artifacts import Store

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}
"""What every run sets unless the user has: no telemetry, no endless retries, no chatter."""


def home() -> Path:
    """Return the state folder: $FTLIB_HOME, or .ftlib in the current folder."""
    return Path(os.environ.get("FTLIB_HOME") or ".ftlib").absolute()


def store() -> Store:
    """Return the artifact store: $FTLIB_STORE (a folder or an fsspec URL), or one in the state folder."""
    root = os.environ.get("FTLIB_STORE") or home() / "store"
    if "://" in str(root):
        return Store(str(root), local=home() / "remote")
    return Store(Path(root).absolute())


def tracking_uri() -> str:
    """Return where MLflow records: $MLFLOW_TRACKING_URI, or a SQLite file in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"


def prepare_environment() -> None:
    """Set what Prefect, MLflow and the hub client read from the environment; call it before importing them."""
    root = home()
    for name in ("mlflow", "prefect", "logs", "runs", "journal"):
        (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = {
        "FTLIB_HOME": root,
        "PREFECT_HOME": root / "prefect",
        "PREFECT_LOCAL_STORAGE_PATH": root / "prefect" / "results",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": root / "prefect" / "ui",
    }
    for name, value in {**QUIET, **{k: str(v) for k, v in paths.items()}}.items():
        os.environ.setdefault(name, value)
