"""Background processes: started, recorded, found again and stopped.

What runs is written to ``servers.json`` in the state folder, each process with its command and start time: a
process id that the system has given to somebody else is never taken for ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ftlib import state
from ftlib.errors import FtlibError

HOST = "127.0.0.1"
START_SECONDS = 180.0
STOP_SECONDS = 15.0
CLOCK_SECONDS = 60.0
"""By how much a process's start may seem to move: the clock may have been set since."""

Name = Literal["prefect", "mlflow", "worker"]


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


# -- starting ----------------------------------------------------------------------------------------------

_background: list[subprocess.Popen[bytes]] = []
"""Held, because Python warns of a process that is forgotten while it runs; ours are meant to outlive this one."""


def start(name: Name, command: list[str], url: str, settings: dict[str, str]) -> Server:
    """Start a server in the background, its output in its log, with further environment variables."""
    import psutil

    log = log_of(name)
    process = spawn(command, log, settings, stdin=subprocess.DEVNULL)
    _background.append(process)
    return Server(name, process.pid, tuple(command), psutil.Process(process.pid).create_time(), url, str(log))


def spawn(command: list[str], log: Path, settings: dict[str, str], *, stdin: int) -> subprocess.Popen[bytes]:
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


def free_port(wanted: int) -> int:
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


def wait(server: Server, ready: Callable[[], bool]) -> None:
    """Return once a server is ready.

    Raises:
        FtlibError: If it ends or takes too long; the message ends its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not is_alive(server):
            raise FtlibError(f"{server.name} ended: {last_line(Path(server.log))} Its log is {server.log}.")
        if time.monotonic() > deadline:
            raise FtlibError(f"{server.name} did not answer in {START_SECONDS:.0f} s. Its log is {server.log}.")
        time.sleep(0.1)


def is_alive(server: Server) -> bool:
    """Return whether a server's process runs, and is not another one with its id."""
    import psutil

    try:
        process = psutil.Process(server.pid)
        command = tuple(process.cmdline())  # empty for a moment after the start
        same = command in ((), server.command) and abs(process.create_time() - server.started) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(server: Server) -> None:
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


def last_line(log: Path) -> str:
    """Return the last thing that a log says."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return f"{lines[-1].strip()}." if lines else "it wrote no log."


# -- the record --------------------------------------------------------------------------------------------


def _file() -> Path:
    return state.home() / "servers.json"


def running() -> list[Server]:
    """Return the recorded servers whose processes run."""
    return [server for server in recorded() if is_alive(server)]


def recorded() -> tuple[Server, ...]:
    """Return what was started last, whether it runs or not."""
    try:
        entries = json.loads(_file().read_text())
        return tuple(Server(**{**entry, "command": tuple(entry["command"])}) for entry in entries)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError):
        return ()  # damaged: the processes are found neither by us nor by their ports; `up` starts new ones


def record(servers: Iterable[Server]) -> None:
    """Write down what was started."""
    draft = _file().with_suffix(".tmp")
    draft.write_text(json.dumps([asdict(server) for server in servers], indent=1))
    os.replace(draft, _file())


def log_of(name: str) -> Path:
    """Return the log file of a process; its folder is made."""
    folder = state.home() / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{name}.log"


def forget() -> None:
    """Drop the record, and take leave of processes that have ended."""
    _file().unlink(missing_ok=True)
    for process in _background:
        process.poll()


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold a lock that dies with its owner: two `ftlib up` at once start one set of servers."""
    state.home().mkdir(parents=True, exist_ok=True)
    with (state.home() / name).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
