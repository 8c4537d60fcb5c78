"""The store: immutable, content-addressed artifacts, and the index from cache keys to them.

Layout below the root, a local folder or any fsspec URL::

    <digest>/...              an artifact: its files and manifest.json, which is written last
    keys/<key>.json           a KeyRecord: which artifact a step's cache key gave, and what it cost
    latest/<scope>/<step>     the newest key of a step, so that `ftlib plan` can say what changed

and on this machine only, below `local` (the root itself, where that is local)::

    drafts/  scratch/  locks/  fetched/

Equal content has an equal path. A draft becomes an artifact by one atomic rename (on an object store, by
its manifest, uploaded last), so no reader ever sees half of one. Handles are small and hold no objects.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict

from ftlib.errors import ArtifactError

MANIFEST = "manifest.json"
logger = logging.getLogger(__name__)

_told: set[str] = set()
"""Digests and keys whose damage was told: a run looks each key up several times, through stores of its own."""


class Artifact(BaseModel):
    """A handle to an artifact: all that ever passes between Prefect tasks.

    Attributes:
        digest: sha256 of the artifact's manifest, hex.
        uri: Where its folder is: ``<store root>/<digest>``.
    """

    model_config = ConfigDict(frozen=True)
    digest: str
    uri: str


class KeyRecord(BaseModel):
    """What a cache key gave: the artifact, what went into the key, and what computing it cost.

    Attributes:
        key: The cache key, hex.
        digest: The artifact's digest.
        step: The step's name in its run, such as "train-full".
        components: What the key was made of, for `ftlib plan` to compare.
        metrics: Plain figures of the run that computed it: seconds, peak_memory_bytes and the step's own.
        created: ISO time.
        details: Whatever else the step wants remembered but not hashed, such as the MLflow run id.
    """

    model_config = ConfigDict(frozen=True)
    key: str
    digest: str
    step: str
    components: dict[str, Any]
    metrics: dict[str, float] = {}
    created: str
    details: dict[str, str] = {}


@dataclass
class Draft:
    """A folder being written.

    Attributes:
        folder: What becomes the artifact. Its content must be reproducible: no times, no paths.
        scratch: Kept until the step's key is done, across crashes: checkpoints to resume from.
        metrics: Figures worth keeping beside the artifact, not in it, such as seconds and rows per second.
        details: Likewise, text.
    """

    folder: Path
    scratch: Path
    metrics: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Damage:
    """What `Store.verify` found wrong with one artifact."""

    digest: str
    problem: str


class GivenUp(BaseException):
    """Raised within a step to give it up for good: what it would resume from goes, too. No failure."""


class Store:
    """Artifacts and the key index below one root.

    Args:
        root: An absolute local folder, or an fsspec URL such as ``s3://bucket/ftlib``.
        local: Where this machine keeps drafts, scratch, locks and fetched copies; the root if that is local.
    """

    def __init__(self, root: str | Path, local: Path | None = None) -> None:
        self.fs, path = fsspec.core.url_to_fs(str(root), use_listings_cache=False)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = path.rstrip("/")
        self.url = self.root if self.is_local else str(root).rstrip("/")
        if local is None and not self.is_local:
            raise ArtifactError(f"store {root}: a remote store needs a local folder for drafts and fetched copies.")
        self.local = Path(local or self.root)
        if self.is_local:
            try:
                Path(self.root).mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                remedy = "choose another FTLIB_STORE"
                raise ArtifactError(f"store {root}: cannot be created ({error.strerror}); {remedy}.") from None

    # -- artifacts ---------------------------------------------------------------------------------

    def handle(self, digest: str) -> Artifact:
        """Return the handle of the artifact with this digest, whether or not it exists."""
        return Artifact(digest=digest, uri=f"{self.url}/{digest}")

    @contextmanager
    def draft(self, key: str | None = None) -> Iterator[Draft]:
        """Give a folder to write into; it is removed on leaving unless committed.

        Args:
            key: The cache key being computed; its scratch folder outlives a crash and a failure, but not `GivenUp`.
        """
        folder = self.local / "drafts" / uuid.uuid4().hex
        scratch = self.local / "scratch" / (key or folder.name)
        folder.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            yield Draft(folder, scratch)
        except GivenUp:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if key is None:
                shutil.rmtree(scratch, ignore_errors=True)

    def commit(self, draft: Draft) -> Artifact:
        """Make the draft an artifact: write its manifest, then move it to its digest in one step."""
        files = {
            path.relative_to(draft.folder).as_posix(): {"sha256": sha256_file(path), "size": path.stat().st_size}
            for path in sorted(draft.folder.rglob("*"))
            if path.is_file()
        }
        text = json.dumps({"files": files}, sort_keys=True, indent=1)
        artifact = self.handle(hashlib.sha256(text.encode()).hexdigest())
        _told.discard(artifact.digest)  # whole again
        if self.problem(artifact.digest, full=True) is None:
            return artifact
        self.remove(artifact.digest)  # damaged, or half uploaded
        if self.is_local:
            (draft.folder / MANIFEST).write_text(text)
            _rename(draft.folder, Path(self.root, artifact.digest))
        else:
            self.fs.put(f"{draft.folder}/", f"{self.root}/{artifact.digest}/", recursive=True)
            self.fs.pipe_file(f"{self.root}/{artifact.digest}/{MANIFEST}", text.encode())
        return artifact

    def open(self, artifact: Artifact | str) -> Path:
        """Return the artifact's folder on this machine, fetching it first from a remote store.

        Raises:
            ArtifactError: If it is missing or damaged; the message names it.
        """
        digest = artifact if isinstance(artifact, str) else artifact.digest
        problem = self.problem(digest)
        if problem:
            raise ArtifactError(f"artifact {digest[:12]} in {self.url}: {problem}. Run again: its step recomputes it.")
        if self.is_local:
            return Path(self.root, digest)
        return self._fetch(digest)

    def problem(self, digest: str, *, full: bool = False) -> str | None:
        """Return what is wrong with an artifact in words, or None.

        Args:
            digest: The artifact's digest.
            full: Compare every file's sha256 too, rather than names and sizes only.
        """
        try:
            text = self.fs.cat_file(f"{self.root}/{digest}/{MANIFEST}")
        except FileNotFoundError:
            return "is missing"
        if hashlib.sha256(text).hexdigest() != digest:
            return "has a changed manifest"
        for name, expected in json.loads(text)["files"].items():
            path = f"{self.root}/{digest}/{name}"
            try:
                size = self.fs.size(path)
            except FileNotFoundError:
                return f"lacks {name}"
            if size != expected["size"]:
                return f"{name} has {size:,} bytes instead of {expected['size']:,}"
            if full and self._sha256(path) != expected["sha256"]:
                return f"{name} has changed content"
        return None

    def digests(self) -> list[str]:
        """Return the digest of every artifact that has a folder here, sorted."""
        try:
            entries = self.fs.ls(self.root, detail=False)
        except FileNotFoundError:
            return []
        names = (entry.rstrip("/").rpartition("/")[2] for entry in entries)
        return sorted(n for n in names if len(n) == 64 and set(n) <= set("0123456789abcdef"))

    def size(self, digest: str) -> int:
        """Return the bytes that the artifact's files hold."""
        return int(self.fs.du(f"{self.root}/{digest}"))

    def verify(self) -> list[Damage]:
        """Read every file of every artifact; return what is missing or damaged, indexed but gone included."""
        wanted = {*self.digests(), *(record.digest for record in self.records())}
        problems = ((digest, self.problem(digest, full=True)) for digest in sorted(wanted))
        return [Damage(digest, problem) for digest, problem in problems if problem]

    def remove(self, digest: str) -> None:
        """Delete one artifact, if it is there."""
        if self.fs.exists(f"{self.root}/{digest}"):
            self.fs.rm(f"{self.root}/{digest}", recursive=True)

    def gc(self, keep: set[str], *, dry_run: bool = False) -> tuple[list[str], int]:
        """Remove what no kept artifact needs: artifacts outside `keep`, their keys, drafts and scratch.

        Args:
            keep: Digests that stay.
            dry_run: Only say what would go.

        Returns:
            The digests removed, and the bytes freed.
        """
        gone = [digest for digest in self.digests() if digest not in keep]
        freed = sum(self.size(digest) for digest in gone)
        if dry_run:
            return gone, freed
        for record in self.records():
            if record.digest not in keep:
                self.forget(record.key)
        for digest in gone:
            self.remove(digest)
        for folder in ("drafts", "scratch", "fetched"):
            for path in (self.local / folder).glob("*"):
                if folder == "fetched" or not self._is_locked(path.name):
                    shutil.rmtree(path, ignore_errors=True)
        return gone, freed

    # -- the key index -----------------------------------------------------------------------------

    def lookup(self, key: str) -> KeyRecord | None:
        """Return the record of a key whose artifact is there and whole in names and sizes, or None."""
        record = self.record(key)
        if record is None:
            return None
        problem = self.problem(record.digest)
        if problem:
            line = f"{record.step}: artifact {record.digest[:12]} {problem}; it is computed again."
            _warn_once(record.digest, line)
            return None
        return record

    def record(self, key: str) -> KeyRecord | None:
        """Return what a key gave, whether or not the artifact is still there."""
        try:
            return KeyRecord.model_validate_json(self.fs.cat_file(f"{self.root}/keys/{key}.json"))
        except FileNotFoundError:
            return None
        except ValueError:
            _warn_once(key, f"keys/{key}.json is damaged; the step is computed again.")
            return None

    def records(self) -> list[KeyRecord]:
        """Return every readable key record, oldest first."""
        try:
            paths = self.fs.ls(f"{self.root}/keys", detail=False)
        except FileNotFoundError:
            return []
        records = (self.record(p.rpartition("/")[2].removesuffix(".json")) for p in paths if p.endswith(".json"))
        return sorted((r for r in records if r), key=lambda r: r.created)

    def remember(self, record: KeyRecord) -> None:
        """Write a key's record, and drop the key's scratch."""
        self._write(f"keys/{record.key}.json", record.model_dump_json(indent=1))
        shutil.rmtree(self.local / "scratch" / record.key, ignore_errors=True)

    def forget(self, key: str) -> None:
        """Drop a key's record, so that its step is computed again."""
        path = f"{self.root}/keys/{key}.json"
        if self.fs.exists(path):
            self.fs.rm_file(path)

    def point_latest(self, scope: str, step: str, key: str) -> None:
        """Remember `key` as the newest of a step within a scope (an experiment's name)."""
        if self.latest(scope, step) != key:
            self._write(f"latest/{scope}/{step}", key)

    def latest(self, scope: str, step: str) -> str | None:
        """Return the newest key of a step within a scope."""
        try:
            return self.fs.cat_file(f"{self.root}/latest/{scope}/{step}").decode()
        except FileNotFoundError:
            return None

    # -- locks -------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the key's lock: two runs that want one step compute it once. It dies with its owner.

        Args:
            key: What to lock, a hex key.
            wait: Wait for the owner; otherwise give False at once where somebody holds it.
        """
        path = self.local / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True  # closing the file, or dying, unlocks it

    def _is_locked(self, key: str) -> bool:
        with self.lock(key, wait=False) as free:
            return not free

    # -- files -------------------------------------------------------------------------------------

    def _write(self, name: str, text: str) -> None:
        if not self.is_local:
            self.fs.pipe_file(f"{self.root}/{name}", text.encode())
            return
        path = Path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        draft.write_text(text)
        os.replace(draft, path)

    def _sha256(self, path: str) -> str:
        if self.is_local:
            return sha256_file(Path(path))
        with self.fs.open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]

    def _fetch(self, digest: str) -> Path:
        target = self.local / "fetched" / digest
        if target.exists():
            return target
        draft = self.local / "drafts" / uuid.uuid4().hex
        draft.mkdir(parents=True)
        self.fs.get(f"{self.root}/{digest}/", f"{draft}/", recursive=True)
        _rename(draft, target)
        return target


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _warn_once(damaged: str, line: str) -> None:
    if damaged not in _told:
        _told.add(damaged)
        logger.warning("%s", line)


def _rename(draft: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.rename(target)
    except OSError as error:  # another process committed the same content first: equal digest, equal content
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
