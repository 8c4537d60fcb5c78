"""Trials side by side, each in a process of its own; the search itself stays in this one.

A worker is asked for one trial after another and says what it learns: JSON lines over a pipe, and after each validation
pass it waits for the word whether to go on. A worker whose parent is gone ends at its next sign of progress.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from flows.tuning import trial
from flows.tuning.trial import Result, Work
from ftlib.errors import FtlibError
from ftlib.progress import Progress


class Hearer(Protocol):
    """Who hears how trials go."""

    def report(self, number: int, step: int, score: float) -> bool:
        """Hear a trial's score after a validation pass; return whether to give the trial up."""

    def progress(self, number: int, event: Progress) -> None:
        """Hear how far a trial's step is."""


class Host(Hearer, Protocol):
    """Who gives out trials, and hears what they come to."""

    def next_work(self) -> Work | None:
        """Return the next trial; None where there is none."""

    def done(self, number: int, result: Result) -> None:
        """Hear what a trial came to."""


def run(host: Host, num_jobs: int) -> None:
    """Run trials until there are none: here, or in several processes at once."""
    if num_jobs > 1:
        _run_side_by_side(host, num_jobs)
        return
    while (work := host.next_work()) is not None:
        host.done(work.number, _run_here(host, work))


def _run_here(hearer: Hearer, work: Work) -> Result:
    return trial.run(
        work,
        report=lambda step, score: hearer.report(work.number, step, score),
        listener=lambda event: hearer.progress(work.number, event),
    )


# -- the parent --------------------------------------------------------------------------------------------


class _Worker:
    """A process, and what it is at."""

    def __init__(self, num_jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        with _threads(num_jobs):
            self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
            self.process.start()
        theirs.close()
        self.work: Work | None = None

    def give(self, work: Work) -> None:
        self.work = work
        _send(self.pipe, asdict(work))

    def lost(self) -> FtlibError:
        """Return the error of a process that is gone."""
        self.process.join()
        return FtlibError(f"its process ended with exit code {self.process.exitcode}; out of memory, perhaps.")

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _run_side_by_side(host: Host, num_jobs: int) -> None:
    workers: list[_Worker] = []
    with ExitStack() as stack:
        stack.callback(_stop_all, workers)
        while True:
            while len(workers) < num_jobs and (work := host.next_work()) is not None:
                workers.append(_Worker(num_jobs))
                workers[-1].give(work)
            if not workers:
                return
            by_pipe = {worker.pipe: worker for worker in workers}
            for worker in [by_pipe[pipe] for pipe in wait(list(by_pipe))]:  # type: ignore[index]
                if not _heard(host, worker):
                    workers.remove(worker)
                    worker.stop()


def _stop_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.stop()


def _heard(host: Host, worker: _Worker) -> bool:
    """Hear one message of a worker; return whether it goes on."""
    work = worker.work
    if work is None:
        raise RuntimeError("a worker without work has something to say")
    try:
        said = _received(worker.pipe)
    except (EOFError, ConnectionError):
        host.done(work.number, Result("failed", None, {"reason": str(worker.lost()), "steps": [], "seconds": 0.0}))
        return False
    match said["kind"]:
        case "report":
            _send(worker.pipe, {"give_up": host.report(work.number, said["step"], said["score"])})
        case "progress":
            host.progress(work.number, Progress(**said["event"]))
        case "crashed":
            raise RuntimeError(f"trial {work.number}: {said['error']}\n{said['trace']}")
        case "done":
            host.done(work.number, Result(**said["result"]))
            following = host.next_work()
            if following is None:
                return False
            worker.give(following)
    return True


@contextmanager
def _threads(num_jobs: int) -> Iterator[None]:
    """Let processes that start meanwhile share the processor, unless the user has said how many threads to use."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // num_jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


# -- a worker ----------------------------------------------------------------------------------------------


def _work(pipe: Connection, parent: int) -> None:
    """Run the trials that the parent asks for."""
    import signal
    import traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops this one
    host = _Parent(pipe, parent)
    try:
        while True:
            host.say("done", result=_run_here(host, Work(**_received(pipe))).dump())
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        host.say("crashed", error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


class _Parent:
    """The host in another process, as a worker's trial tells it."""

    def __init__(self, pipe: Connection, process: int) -> None:
        self._pipe, self._process = pipe, process

    def say(self, kind: str, **details: Any) -> None:
        _send(self._pipe, {"kind": kind, **details})

    def report(self, number: int, step: int, score: float) -> bool:
        self.say("report", step=step, score=score)
        return bool(_received(self._pipe)["give_up"])

    def progress(self, number: int, event: Progress) -> None:
        if os.getppid() != self._process:
            raise EOFError("the parent process is gone")
        self.say("progress", event={**vars(event), "metrics": dict(event.metrics)})


def _send(pipe: Connection, value: Mapping[str, Any]) -> None:
    pipe.send_bytes(json.dumps(value).encode())


def _received(pipe: Connection) -> dict[str, Any]:
    return dict(json.loads(pipe.recv_bytes()))
