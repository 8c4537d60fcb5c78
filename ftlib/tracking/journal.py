"""The local record of a run, written first and sent afterwards: JSON lines in ``<home>/journal/<id>.jsonl``.

Nothing here knows MLflow, waits for a server or stops training: a full disk costs one warning. What a line
says is in `Journal`'s methods; `ftlib.tracking` reads the lines and sends them. Beside the lines lie

    <id>.lock          held by the run's process for life, so a `kill -9` frees it: who can take it knows
                       that the run is dead
    <id>.cursor.json   how many lines have been sent
    sent/, refused/    journals that MLflow has in full, and those it would not take: the newest `KEPT`
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ftlib.tracking.store import Lock

logger = logging.getLogger(__name__)

RUN = "run"
"""The parent run's local id; its children are "1", "2"..."""

KEPT = 100
"""Sent journals that stay on disk."""

ATTEMPTS = 5
"""How often MLflow may refuse a journal before it is set aside."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
Event = dict[str, Any]


class Journal:
    """The record of one flow run, and of its steps as child runs.

    Safe in threads. Every method only appends a line; none raises because the disk is full.

    Attributes:
        id: The run's local id, unique on this machine.
        path: Where the lines are.
        run_ids: Local id -> MLflow run id, as far as the run has been sent.
    """

    def __init__(self, path: Path, lock: Lock | None) -> None:
        self.path = path
        self.id = path.stem
        self._folder = path.parent
        self.run_ids: dict[str, str] = {}
        self.next_line: int | None = None  # the first line not sent yet; None: not known, see the cursor
        self.sent: Any = None  # what `tracking.send` gave last
        self.registered: Any = None
        self.finished = False
        self.failed_at = -math.inf  # when sending failed last, monotonic
        self._lock = lock
        self._mutex = threading.Lock()
        self._sending = threading.Lock()
        self._num_children = 0
        self._broken = False

    @classmethod
    def start(
        cls,
        home: Path,
        *,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Journal:
        """Begin the record of a run.

        Args:
            home: The state folder.
            experiment: MLflow's experiment.
            run_name: What the run is called.
            params: What it was run with; nested values are laid out as ``stages.0.strategy.r``.
            tags: Its tags, such as prefect.flow_run_id and prefect.flow_run_url.
        """
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
        journal = cls._begun(home / "journal" / f"{name}.jsonl")
        details: Event = {"experiment": experiment, "name": run_name, "kind": "run", "params": params, "tags": tags}
        journal._append("started", RUN, **details)
        return journal

    @classmethod
    def _begun(cls, path: Path) -> Journal:
        lock: Lock | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = Lock.take(path.with_suffix(".lock"))
        except OSError as error:
            logger.warning("%s: %s. This run is not recorded.", path.parent, error.strerror)
        journal = cls(path, lock)
        journal._broken = lock is None
        return journal

    @classmethod
    def go_on(
        cls,
        home: Path,
        name: str,
        *,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Journal:
        """Begin the record of a run that may be stopped and go on in another process, or take it up again.

        It stays one run in MLflow, whether it was sent meanwhile or not. Its children are told apart by the `run` that
        `child` is given.

        Args:
            home: The state folder.
            name: The record's own name; the same each time.
            experiment: See `start`.
            run_name: See `start`.
            params: See `start`.
            tags: See `start`.
        """
        journal = cls._begun(home / "journal" / f"{name}.jsonl")
        if journal._broken:
            logger.warning("%s is in another process's hands. This run is not recorded.", journal.path)
            return journal
        aside = journal.path.parent / "sent" / journal.path.name
        if aside.exists() and not journal.path.exists():
            os.replace(aside, journal.path)
        if journal.cursor() is None:  # sending then asks MLflow first what it has of this run
            journal._write_cursor({"lines": 0})
        if journal.path.exists():
            journal._seal_torn_line()
            journal._append("resumed", RUN)
        else:
            details: Event = {"experiment": experiment, "name": run_name, "kind": "run", "params": params, "tags": tags}
            journal._append("started", RUN, **details)
        return journal

    @classmethod
    def reopen(cls, path: Path) -> Journal | None:
        """Take over the journal of a process that is gone; None while its process lives.

        A run that has not said how it ended was killed: that is added.
        """
        lock = Lock.take(path.with_suffix(".lock"))
        if lock is None:
            return None
        if not path.exists():  # its owner sent it in full just now
            lock.close()
            path.with_suffix(".lock").unlink(missing_ok=True)
            return None
        journal = cls(path, lock)
        own = [e["event"] for e in journal.read(0)[0] if e["run"] == RUN]
        if own and [event for event in own if event in ("started", "resumed", "finished")][-1:] != ["finished"]:
            journal._seal_torn_line()
            journal._append("finished", RUN, status="KILLED", at=int(path.stat().st_mtime * 1000))
        journal.finished = True
        return journal

    # -- what is recorded --------------------------------------------------------------------------

    def child(
        self,
        name: str,
        *,
        kind: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        artifact: str | None = None,
        cached: bool = False,
        source_run: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run: str | None = None,
    ) -> str:
        """Begin a child run and return its local id.

        Args:
            name: The step's name, such as "train-lora".
            kind: "stage", "fusion", "evaluation" or another step's kind.
            params: What it was computed with.
            metrics: What is known already; all of them, for a cached step.
            artifact: The digest of what it gave.
            cached: Whether an earlier run computed it.
            source_run: That run, as `reference` or as an MLflow run id; ``KeyRecord.details`` keeps it.
            tags: More tags.
            run: Its local id; the next number unless given. Whoever goes on with a run gives it.
        """
        with self._mutex:
            self._num_children += 1
            run = run or str(self._num_children)
        details: Event = {
            "name": name,
            "kind": kind,
            "params": params,
            "tags": tags,
            "artifact": artifact,
            "cached": cached,
            "source_run": source_run,
        }
        self._append("started", run, **details)
        if metrics:
            self.metrics(run, 0, metrics)
        return run

    def reference(self, child: str | None = None) -> str:
        """Return a name of a run that holds for good, known before MLflow gives it an id: `source_run` takes it."""
        return f"{self.id}/{child or RUN}"

    def params(self, child: str | None, values: Mapping[str, Any]) -> None:
        """Record parameters that were not known at the start."""
        self._append("params", child or RUN, values=values)

    def tags(self, child: str | None, values: Mapping[str, Any]) -> None:
        """Record tags, such as the artifact's digest where it was not known at the start."""
        self._append("tags", child or RUN, values=values)

    def metrics(self, child: str | None, step: int | None, values: Mapping[str, Any]) -> None:
        """Record figures at a step (None: summary figures). What is no finite number is left out."""
        finite = _finite(values)
        if finite:
            self._append("metrics", child or RUN, rows=[[int(step or 0), finite]])

    def history(self, child: str | None, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record a whole learning curve, rows as in history.json: "step" and figures."""
        curve = [[int(row["step"]), _finite({k: v for k, v in row.items() if k != "step"})] for row in rows]
        self._append("metrics", child or RUN, rows=[row for row in curve if row[1]])

    def log_file(self, child: str | None, path: Path, artifact_path: str = "") -> None:
        """Record a file to keep with the run; it must stay where it is until it is sent."""
        self._append("file", child or RUN, path=str(Path(path).absolute()), artifact_path=artifact_path)

    def log_data(self, child: str | None, name: str, digest: str, *, context: str, rows: int | None = None) -> None:
        """Record that a run read data.

        Args:
            child: The run.
            name: What the data is called, such as "sst2/train".
            digest: The artifact's digest: equal data, equal digest.
            context: "training", "validation", "test".
            rows: How many rows it has.
        """
        self._append("data", child or RUN, name=name, digest=digest, context=context, rows=rows)

    def register(
        self,
        folder: Path,
        *,
        digest: str,
        name: str,
        alias: str,
        metrics: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a packed model is to be registered; `tracking.send` does it, now or by a later run."""
        details: Event = {"folder": str(Path(folder).absolute()), "digest": digest, "name": name, "alias": alias}
        self._append("register", RUN, **details, metrics=_finite(metrics or {}), tags=tags)

    def finish(self, child: str | None = None, status: Status = "FINISHED") -> None:
        """Record the end of a child, or of the run; children still open end with their run."""
        self.finished = self.finished or child in (None, RUN)
        self._append("finished", child or RUN, status=status)

    # -- reading and sending -----------------------------------------------------------------------

    def read(self, after: int) -> tuple[list[Event], int]:
        """Return the events from line `after` on, and the number of lines; a torn last line is not one."""
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return [], after
        events = []
        for line in lines[after:]:
            with suppress(ValueError):  # a line torn by a crash, sealed since
                events.append(json.loads(line))
        return events, len(lines)

    def cursor(self) -> int | None:
        """Return how many lines an earlier process has sent; None where nobody began to."""
        lines = self._read_cursor().get("lines")
        return None if lines is None else int(lines)

    def advance(self, lines: int) -> None:
        """Remember how many lines have been sent."""
        self.next_line = lines
        self._write_cursor({**self._read_cursor(), "lines": lines, "runs": self.run_ids})

    def failed(self) -> bool:
        """Count that MLflow answered and refused; set the journal aside, and give True, after `ATTEMPTS`."""
        attempts = int(self._read_cursor().get("attempts", 0)) + 1
        if attempts < ATTEMPTS:
            with suppress(OSError):
                self._write_cursor({**self._read_cursor(), "attempts": attempts})
            return False
        self.archive("refused")
        return True

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Give True to one thread at a time, False to the others; no other process can hold this journal."""
        free = self._sending.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._sending.release()

    def archive(self, folder: str = "sent") -> None:
        """Put a journal that was sent in full aside, and let it go."""
        aside = self._folder / folder
        aside.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(self._folder / self.path.name, aside / self.path.name)
        self.path = aside / self.path.name
        self._cursor_path.unlink(missing_ok=True)
        (self._folder / f"{self.id}.lock").unlink(missing_ok=True)
        self.close()
        for old in sorted(aside.glob("*.jsonl"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the journal go: another process may send it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _cursor_path(self) -> Path:
        return self._folder / f"{self.id}.cursor.json"

    def _read_cursor(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._cursor_path.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write_cursor(self, value: dict[str, Any]) -> None:
        draft = self._cursor_path.with_suffix(".draft")
        draft.write_text(json.dumps(value))
        os.replace(draft, self._cursor_path)

    def _seal_torn_line(self) -> None:
        if not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("ab") as handle:
                handle.write(b"\n")

    def _append(self, event: str, run: str, *, at: int | None = None, **details: Any) -> None:
        if self._broken:
            return
        said = {k: v for k, v in details.items() if v not in (None, {}, False, "")}
        line = json.dumps({"event": event, "run": run, "at": at or int(time.time() * 1000), **said}, default=_plain)
        with self._mutex:
            try:
                with self.path.open("a", encoding="utf8") as handle:
                    handle.write(line + "\n")
            except OSError as error:
                self._broken = True
                logger.warning("%s: %s. The rest of this run is not recorded.", self.path, error.strerror)


def journals(home: Path) -> list[Path]:
    """Return the journals that wait to be sent, oldest first."""
    return sorted((home / "journal").glob("*.jsonl"))


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name, value in values.items():
        with suppress(TypeError, ValueError):
            number = float(value) if not isinstance(value, str) else math.nan
            if math.isfinite(number):
                numbers[name] = number
    return numbers


def _plain(value: Any) -> Any:
    """Return a JSON value for what json does not know: numpy scalars and arrays, paths, sets, models."""
    for method in ("tolist", "model_dump", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)
