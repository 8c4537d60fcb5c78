"""The local servers: Prefect with its UI, MLflow's UI, and one worker for scheduled runs.

`up` starts them in the background, in sessions of their own, so that they outlive the terminal; `flows.processes`
keeps the record of what runs. A run without them gets a temporary Prefect server, which ends with the run even where
that is killed.

Everything is on 127.0.0.1. MLflow's server only reads: runs write its database directly.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from flows import processes
from flows.processes import HOST, START_SECONDS, STOP_SECONDS, Name, Server
from ftlib import state
from ftlib.errors import FtlibError

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
WORK_POOL = "ftlib"
ORDER: tuple[Name, ...] = ("prefect", "mlflow", "worker")
"""The order of starting; stopping goes the other way."""


@dataclass(frozen=True)
class Status:
    """How a server is: "running", "stopped", or "no answer" where its process lives but does not answer."""

    name: Name
    state: Literal["running", "stopped", "no answer"]
    url: str
    pid: int | None
    log: str


# -- what `ftlib up`, `down` and `status` do ---------------------------------------------------------------


def up(*, prefect_port: int = PREFECT_PORT, mlflow_port: int = MLFLOW_PORT) -> tuple[Server, ...]:
    """Start what is not running yet, and wait until everything answers.

    A taken port is replaced by a free one. Where PREFECT_API_URL or MLFLOW_TRACKING_URI names a server
    somewhere else, none is started here; the worker serves that Prefect.

    Raises:
        FtlibError: If a server ends or does not answer in time; the message ends its log.
    """
    state.prepare_environment()
    with processes.only_one("servers.lock"):
        servers = {s.name: s for s in processes.running()}
        if "prefect" not in servers and not external_prefect():
            servers["prefect"] = _start_prefect(processes.free_port(prefect_port))
        if "mlflow" not in servers and not external_mlflow():
            servers["mlflow"] = _start_mlflow(processes.free_port(mlflow_port))
        processes.record(servers.values())
        for name in ("prefect", "mlflow"):
            if name in servers:
                _wait_for_answer(servers[name])
        if "worker" not in servers:
            servers["worker"] = _start_worker(external_prefect() or _api(servers["prefect"]))
            processes.record(servers.values())
        _wait_for_worker(servers["worker"], external_prefect() or _api(servers["prefect"]))
    return tuple(servers[name] for name in ORDER if name in servers)


def down() -> tuple[Server, ...]:
    """Stop what `up` started, with all its children; return what was running. Safe to call at any time."""
    with processes.only_one("servers.lock"):
        running, going = processes.running(), _going()
        prefect = next((s for s in running if s.name == "prefect"), None)
        api = external_prefect() or (_api(prefect) if prefect else None)
        for server in sorted(running, key=lambda s: ORDER.index(s.name), reverse=True):
            processes.stop(server)
            if server.name == "worker" and going and api:
                _cancel(api, going)
        processes.forget()
    return tuple(running)


def num_jobs() -> int:
    """Return how many scheduled runs the worker has going: each is a process of its own."""
    return len(_going())


def _going() -> set[str]:
    """Return the flow runs that the worker has going, by the environment that it gives their processes."""
    import psutil

    worker = next((s for s in processes.running() if s.name == "worker"), None)
    going = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(worker.pid).children(recursive=True) if worker else []:
            with suppress(psutil.Error):
                going.add(child.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return going - {""}


def _cancel(api: str, flow_runs: Collection[str]) -> None:
    """Tell Prefect that these runs have ended: they were stopped before they could."""
    message = "Stopped by `ftlib down`. Its finished steps are kept: the next run goes on from there."
    state = {"type": "CANCELLED", "name": "Cancelled", "message": message}
    begun = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
    tasks = _post(f"{api}/task_runs/filter", {"flow_runs": {"id": {"any_": [*flow_runs]}}, "task_runs": begun})
    for path in [f"task_runs/{task['id']}" for task in tasks] + [f"flow_runs/{run}" for run in flow_runs]:
        _post(f"{api}/{path}/set_state", {"state": state, "force": True})


def status() -> tuple[Status, ...]:
    """Return how each server is."""
    recorded = {s.name: s for s in processes.recorded()}
    return tuple(_status(name, recorded.get(name)) for name in ORDER)


def _status(name: Name, server: Server | None) -> Status:
    if server is None or not processes.is_alive(server):
        return Status(name, "stopped", "", None, server.log if server else "")
    answers = name == "worker" or _is_up(server)
    return Status(name, "running" if answers else "no answer", server.url, server.pid, server.log)


# -- what runs ask -----------------------------------------------------------------------------------------


def prefect_api() -> str | None:
    """Return the API of the Prefect server that runs should use: PREFECT_API_URL, or the one that is up.

    Raises:
        FtlibError: If PREFECT_API_URL does not answer.
    """
    external = external_prefect()
    if external and not answers(external):
        raise FtlibError(f"PREFECT_API_URL={external} does not answer. Start that server, or unset PREFECT_API_URL.")
    return external or next((_api(s) for s in processes.running() if s.name == "prefect" and _is_up(s)), None)


def answers(api: str) -> bool:
    """Return whether a Prefect API answers within two seconds."""
    return _answers(f"{api.rstrip('/')}/health")


def prefect_ui(api: str) -> str:
    """Return the address of the pages that belong to an API: PREFECT_UI_URL, or its own server."""
    return os.environ.get("PREFECT_UI_URL") or api.removesuffix("/").removesuffix("/api")


def mlflow_ui() -> str | None:
    """Return the address of MLflow's pages, where there is a server."""
    return external_mlflow() or next((s.url for s in processes.running() if s.name == "mlflow"), None)


def external_prefect() -> str | None:
    """Return the Prefect API that the user's environment names, if any."""
    return os.environ.get("PREFECT_API_URL") or None


def external_mlflow() -> str | None:
    """Return the MLflow server that the user's environment names, if any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri if uri.startswith(("http://", "https://")) else None


def _is_up(server: Server) -> bool:
    return _answers(f"{server.url}/api/health" if server.name == "prefect" else f"{server.url}/health")


# -- the temporary server ----------------------------------------------------------------------------------

_SERVE_UNTIL_STDIN_ENDS = """
import os, signal, sys, threading
def watch():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
import uvicorn
uvicorn.run("prefect.server.api.server:create_app", factory=True, host=sys.argv[1], port=int(sys.argv[2]),
            log_level="error", lifespan="on")
"""
"""The server sees its standard input end when the run does, even by kill -9, so none is left behind."""


class TemporaryServer:
    """A Prefect server without UI and schedules for one run, on the same database as the one of `ftlib up`.

    Prefect starts one by itself where no API is set; that one prints its shutdown errors on the terminal, is
    stopped before it has recorded the last task runs, and stays behind when the run is killed.

    Entering starts it and returns at once, so that the caller's imports run beside it; `wait` gives its API.
    """

    def __init__(self) -> None:
        self.port = processes.free_port(0)
        self.log = processes.log_of("prefect-temporary")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        off = {"PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        command = [sys.executable, "-c", _SERVE_UNTIL_STDIN_ENDS, HOST, str(self.port)]
        self._process = processes.spawn(
            command, self.log, {**_prefect_environment(self.port), **off}, stdin=subprocess.PIPE
        )
        return self

    def wait(self) -> str:
        """Return its API once it answers."""
        url = f"http://{HOST}:{self.port}/api"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{url}/health"):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise FtlibError(
                    f"the temporary Prefect server did not start: {processes.last_line(self.log)} See {self.log}."
                )
            time.sleep(0.05)
        return url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- starting ----------------------------------------------------------------------------------------------


def _start_prefect(port: int) -> Server:
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", HOST, "--port", str(port), "--log-level", "warning"]
    return processes.start("prefect", command, f"http://{HOST}:{port}", _prefect_environment(port))


def _prefect_environment(port: int) -> dict[str, str]:
    return {
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT__SERVER_FINAL": "1",
    }


def _start_mlflow(port: int) -> Server:
    if not (state.home() / "mlflow" / "mlflow.db").exists():
        from ftlib import tracking

        tracking.initialise()  # under a lock: a run that begins meanwhile would make the database, too
    artifacts = str(state.home() / "mlflow" / "artifacts")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", state.tracking_uri()]
    command += ["--default-artifact-root", artifacts, "--artifacts-destination", artifacts]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    return processes.start("mlflow", command, f"http://{HOST}:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def _start_worker(api: str) -> Server:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
    command += ["--name", worker_name(), "--limit", "1", "--install-policy", "never"]
    settings = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "5", "PREFECT_LOGGING_LEVEL": "INFO"}
    return processes.start("worker", command, "", settings)


def worker_name() -> str:
    """Return what this machine's worker is called."""
    return f"ftlib-{platform.node() or 'local'}"


# -- asking ------------------------------------------------------------------------------------------------


def _wait_for_answer(server: Server) -> None:
    processes.wait(server, lambda: _is_up(server))


def _wait_for_worker(worker: Server, api: str) -> None:
    """Wait until the worker has reported to its work pool: from then on scheduled runs are taken."""
    query = f"{api}/work_pools/{WORK_POOL}/workers/filter"

    def listed() -> bool:
        workers = _post(query)
        return any(w.get("name") == worker_name() and w.get("status") == "ONLINE" for w in workers)

    processes.wait(worker, listed)


def _api(server: Server) -> str:
    return f"{server.url}/api"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _post(url: str, body: Mapping[str, object] | None = None) -> list[dict[str, object]]:
    """Return the list that is answered; an empty one where none is, or nothing."""
    data = json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            answer = json.load(response)
    except (urllib.error.URLError, OSError, ValueError):
        return []
    return answer if isinstance(answer, list) else []
