"""The local servers: what is started is recorded, found again and stopped, and nothing else is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows import processes, servers
from flows.processes import Server
from ftlib.errors import FtlibError

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)",
    *SLEEPER,
]
# A worker gives each flow run a process, whose environment names the run; other children are none of its runs.
WORKER = [
    sys.executable,
    "-c",
    "import os, subprocess, sys, time; subprocess.Popen(sys.argv[1:])\n"
    "subprocess.Popen(sys.argv[1:], env={**os.environ, 'PREFECT__FLOW_RUN_ID': 'a-run'}); time.sleep(60)",
    *SLEEPER,
]


@pytest.fixture
def started(home: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a process in the way of a server, and records it."""
    made: list[Server] = []

    def start(command: list[str] = SLEEPER, name: processes.Name = "worker") -> Server:
        home.mkdir(parents=True, exist_ok=True)
        server = processes.start(name, command, "", {})
        made.append(server)
        processes.record(made)
        return server

    yield start
    processes.record(made)
    servers.down()


def test_what_is_recorded_is_stopped_with_its_children(started: Callable[..., Server]) -> None:
    import psutil

    server = started(PARENT)
    family = wait_for(lambda: psutil.Process(server.pid).children())
    assert servers.down() == (server,)
    assert not psutil.pid_exists(server.pid)
    assert not any(child.is_running() for child in family)
    assert servers.down() == ()


def test_a_scheduled_run_that_is_stopped_with_the_worker_is_told(
    started: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.commands import machine

    started(WORKER)
    assert wait_for(servers.num_jobs) == 1
    machine.down()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Stopped worker."
    assert said[1].startswith("1 scheduled run was stopped on the way. Its finished steps are kept")
    assert servers.num_jobs() == 0
    machine.down()
    assert capsys.readouterr().out == "Nothing was running.\n"


def test_a_process_that_got_the_id_of_ours_is_left_alone(started: Callable[..., Server]) -> None:
    stranger = subprocess.Popen(SLEEPER)
    try:
        ours = started()
        processes.record([replace(ours, pid=stranger.pid, command=("something", "else"))])
        assert servers.down() == ()
        processes.record([replace(ours, pid=stranger.pid, started=ours.started - 1000)])
        assert servers.status()[2].state == "stopped"
        assert servers.down() == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stale_and_damaged_records_are_no_trouble(home: Path, started: Callable[..., Server]) -> None:
    started()
    for text in ("", "[{", '[{"name": "worker"}]', json.dumps({"a": 1})):
        (home / "servers.json").write_text(text)
        assert [s.state for s in servers.status()] == ["stopped"] * 3
        assert servers.prefect_api() is None
        assert servers.down() == ()


def test_a_server_that_lives_but_does_not_answer_is_told_and_not_used(started: Callable[..., Server]) -> None:
    silent = replace(started(name="prefect"), url="http://127.0.0.1:9")
    processes.record([silent])
    assert servers.status()[0].state == "no answer"
    assert servers.prefect_api() is None


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind((processes.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_port(port) not in (0, port)
    assert processes.free_port(port) == port


def test_a_server_that_ends_at_once_is_told_with_the_end_of_its_log(started: Callable[..., Server]) -> None:
    server = started([sys.executable, "-c", "print('first'); print('no such database'); raise SystemExit(3)"])
    with pytest.raises(FtlibError, match=r"worker ended: no such database. Its log is .*worker.log"):
        processes.wait(server, lambda: False)


def test_two_at_once_wait_for_each_other(home: Path) -> None:
    script = (
        "from flows import processes; exec('with processes.only_one(\"servers.lock\"): print(1, flush=True); input()')"
    )
    with processes.only_one("servers.lock"):
        other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout is not None
        time.sleep(0.5)
        assert other.poll() is None
    try:
        assert other.stdout.readline() == b"1\n"
    finally:
        other.communicate(b"\n", timeout=20)


def test_addresses_of_the_user_s_own_servers_are_taken_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert servers.external_prefect() == "http://prefect.example:4200/api"
    assert servers.prefect_ui("http://prefect.example:4200/api") == "http://prefect.example:4200"
    assert servers.mlflow_ui() == "https://mlflow.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    assert servers.mlflow_ui() is None


def wait_for(found: Callable[[], list]) -> list:
    for _ in range(100):
        if found():
            return found()
        time.sleep(0.05)
    raise AssertionError("nothing came in 5 s")
