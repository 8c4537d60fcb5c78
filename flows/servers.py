"""The local servers: Prefect with its UI, MLflow's UI, and one worker for scheduled runs.

`up` starts them in the background, in sessions of their own, so that they outlive the terminal. What runs is
written to ``servers.json`` in the state folder, each process with its command and start time: a process id
that the system has given to somebody else is never taken for ours. A run without them gets a temporary
Prefect server, which ends with the run even where that is killed.

Everything is on 127.0.0.1. MLflow's server only reads: runs write its database directly.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ftlib import state
from ftlib.errors import FtlibError

HOST = "127.0.0.1"
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
WORK_POOL = "ftlib"
START_SECONDS = 180.0
STOP_SECONDS = 15.0
CLOCK_SECONDS = 60.0
"""By how much a process's start may seem to move: the clock may have been set since."""

Name = Literal["prefect", "mlflow", "worker"]
ORDER: tuple[Name, ...] = ("prefect", "mlflow", "worker")
"""The order of starting; stopping goes the other way."""


@dataclass(frozen=True)
class Server:
    """One background process.

    Attributes:
        name: What it is.
        pid: Its process id, also its process group's.
        command: Its command line.
        started: When it began, seconds since the epoch. With the command it tells the process from a later
            one that has its id.
        url: Where it answers; empty for the worker.
        log: Its log file.
    """

    name: Name
    pid: int
    command: tuple[str, ...]
    started: float
    url: str
    log: str


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
    with _only_one("servers.lock"):
        servers = {s.name: s for s in _recorded() if _is_alive(s)}
        if "prefect" not in servers and not external_prefect():
            servers["prefect"] = _start_prefect(_free_port(prefect_port))
        if "mlflow" not in servers and not external_mlflow():
            servers["mlflow"] = _start_mlflow(_free_port(mlflow_port))
        _record(servers.values())
        for name in ("prefect", "mlflow"):
            if name in servers:
                _wait_for_answer(servers[name])
        if "worker" not in servers:
            servers["worker"] = _start_worker(external_prefect() or _api(servers["prefect"]))
            _record(servers.values())
        _wait_for_worker(servers["worker"], external_prefect() or _api(servers["prefect"]))
    return tuple(servers[name] for name in ORDER if name in servers)


def down() -> tuple[Server, ...]:
    """Stop what `up` started, with all its children; return what was running. Safe to call at any time."""
    with _only_one("servers.lock"):
        running = [s for s in _recorded() if _is_alive(s)]
        for server in sorted(running, key=lambda s: ORDER.index(s.name), reverse=True):
            _stop(server)
        _file().unlink(missing_ok=True)
    for process in _background:
        process.poll()
    return tuple(running)


def num_jobs() -> int:
    """Return how many scheduled runs the worker has going: each is a process of its own."""
    import psutil

    worker = next((s for s in _recorded() if s.name == "worker" and _is_alive(s)), None)
    try:
        return len(psutil.Process(worker.pid).children()) if worker else 0
    except psutil.NoSuchProcess:
        return 0


def status() -> tuple[Status, ...]:
    """Return how each server is."""
    recorded = {s.name: s for s in _recorded()}
    return tuple(_status(name, recorded.get(name)) for name in ORDER)


def _status(name: Name, server: Server | None) -> Status:
    if server is None or not _is_alive(server):
        return Status(name, "stopped", "", None, server.log if server else "")
    answers = name == "worker" or _answers(_health(server))
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
    return external or next((_api(s) for s in _recorded() if s.name == "prefect" and _usable(s)), None)


def answers(api: str) -> bool:
    """Return whether a Prefect API answers within two seconds."""
    return _answers(f"{api.rstrip('/')}/health")


def prefect_ui(api: str) -> str:
    """Return the address of the pages that belong to an API: PREFECT_UI_URL, or its own server."""
    return os.environ.get("PREFECT_UI_URL") or api.removesuffix("/").removesuffix("/api")


def mlflow_ui() -> str | None:
    """Return the address of MLflow's pages, where there is a server."""
    return external_mlflow() or next((s.url for s in _recorded() if s.name == "mlflow" and _is_alive(s)), None)


def external_prefect() -> str | None:
    """Return the Prefect API that the user's environment names, if any."""
    return os.environ.get("PREFECT_API_URL") or None


def external_mlflow() -> str | None:
    """Return the MLflow server that the user's environment names, if any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri if uri.startswith(("http://", "https://")) else None


def _usable(server: Server) -> bool:
    return _is_alive(server) and _answers(_health(server))


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
        self.port = _free_port(0)
        self.log = _log("prefect-temporary")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        off = {"PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        command = [sys.executable, "-c", _SERVE_UNTIL_STDIN_ENDS, HOST, str(self.port)]
        self._process = _spawn(command, self.log, {**_prefect_environment(self.port), **off}, stdin=subprocess.PIPE)
        return self

    def wait(self) -> str:
        """Return its API once it answers."""
        url = f"http://{HOST}:{self.port}/api"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{url}/health"):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise FtlibError(f"the temporary Prefect server did not start: {_last_line(self.log)} See {self.log}.")
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
    return _start("prefect", command, f"http://{HOST}:{port}", _prefect_environment(port))


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
    return _start("mlflow", command, f"http://{HOST}:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def _start_worker(api: str) -> Server:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
    command += ["--name", worker_name(), "--limit", "1", "--install-policy", "never"]
    settings = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "5", "PREFECT_LOGGING_LEVEL": "INFO"}
    return _start("worker", command, "", settings)


def worker_name() -> str:
    """Return what this machine's worker is called."""
    return f"ftlib-{platform.node() or 'local'}"


_background: list[subprocess.Popen[bytes]] = []
"""Held, because Python warns of a process that is forgotten while it runs; ours are meant to outlive this one."""


def _start(name: Name, command: list[str], url: str, settings: dict[str, str]) -> Server:
    import psutil

    log = _log(name)
    process = _spawn(command, log, settings, stdin=subprocess.DEVNULL)
    _background.append(process)
    return Server(name, process.pid, tuple(command), psutil.Process(process.pid).create_time(), url, str(log))


def _spawn(command: list[str], log: Path, settings: dict[str, str], *, stdin: int) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output in `log`; an empty setting is taken away."""
    environment = {k: v for k, v in {**os.environ, **settings}.items() if v or k not in settings}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=state.home(),
            start_new_session=True,
        )


def _free_port(wanted: int) -> int:
    """Return `wanted` where it is free, else some port that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise FtlibError(f"no free port on {HOST}.")


# -- waiting and stopping ----------------------------------------------------------------------------------


def _wait_for_answer(server: Server) -> None:
    _wait(server, lambda: _answers(_health(server)))


def _wait_for_worker(worker: Server, api: str) -> None:
    """Wait until the worker has reported to its work pool: from then on scheduled runs are taken."""
    query = f"{api}/work_pools/{WORK_POOL}/workers/filter"

    def listed() -> bool:
        workers = _post(query)
        return any(w.get("name") == worker_name() and w.get("status") == "ONLINE" for w in workers)

    _wait(worker, listed)


def _wait(server: Server, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not _is_alive(server):
            raise FtlibError(f"{server.name} ended: {_last_line(Path(server.log))} Its log is {server.log}.")
        if time.monotonic() > deadline:
            raise FtlibError(f"{server.name} did not answer in {START_SECONDS:.0f} s. Its log is {server.log}.")
        time.sleep(0.1)


def _health(server: Server) -> str:
    return f"{server.url}/api/health" if server.name == "prefect" else f"{server.url}/health"


def _api(server: Server) -> str:
    return f"{server.url}/api"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _post(url: str) -> list[dict[str, object]]:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            answer = json.load(response)
    except (urllib.error.URLError, OSError, ValueError):
        return []
    return answer if isinstance(answer, list) else []


def _is_alive(server: Server) -> bool:
    import psutil

    try:
        process = psutil.Process(server.pid)
        command = tuple(process.cmdline())  # empty for a moment after the start
        same = command in ((), server.command) and abs(process.create_time() - server.started) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop(server: Server) -> None:
    """End a server's process group: politely, then not."""
    import psutil

    try:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _signal_group(server.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return f"{lines[-1].strip()}." if lines else "it wrote no log."


# -- the record --------------------------------------------------------------------------------------------


def _file() -> Path:
    return state.home() / "servers.json"


def _recorded() -> tuple[Server, ...]:
    try:
        entries = json.loads(_file().read_text())
        return tuple(Server(**{**entry, "command": tuple(entry["command"])}) for entry in entries)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError):
        return ()  # damaged: the processes are found neither by us nor by their ports; `up` starts new ones


def _record(servers: Iterable[Server]) -> None:
    draft = _file().with_suffix(".tmp")
    draft.write_text(json.dumps([asdict(server) for server in servers], indent=1))
    os.replace(draft, _file())


def _log(name: str) -> Path:
    folder = state.home() / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{name}.log"


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Hold a lock that dies with its owner: two `ftlib up` at once start one set of servers."""
    state.home().mkdir(parents=True, exist_ok=True)
    with (state.home() / name).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
