from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftlib.artifacts import MANIFEST, KeyRecord, Store
from ftlib.errors import ArtifactError


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "store")
    return Store(f"memory://{tmp_path.name}/ftlib", local=tmp_path / "local")  # memory is shared by all tests


def put(store: Store, files: dict[str, str]):
    with store.draft() as draft:
        for name, text in files.items():
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_text(text)
        return store.commit(draft)


def record(key: str, digest: str, created: str = "2026-01-01") -> KeyRecord:
    return KeyRecord(key=key, digest=digest, step="clean", components={}, created=created)


def test_what_was_committed_can_be_opened(store: Store):
    folder = store.open(put(store, {"a.txt": "one", "sub/b.txt": "two"}))
    assert (folder / "a.txt").read_text() == "one"
    assert (folder / "sub/b.txt").read_text() == "two"


def test_equal_content_has_an_equal_digest_whatever_the_order(store: Store):
    assert put(store, {"a": "1", "b": "2"}) == put(store, {"b": "2", "a": "1"})
    assert len(store.digests()) == 1


def test_other_content_or_other_names_have_another_digest(store: Store):
    assert len({put(store, f).digest for f in ({"a": "1"}, {"a": "2"}, {"b": "1"})}) == 3


def test_the_digest_is_the_sha256_of_the_manifest(tmp_path: Path):
    store = Store(tmp_path)
    artifact = put(store, {"a": "1"})
    text = (tmp_path / artifact.digest / MANIFEST).read_bytes()
    assert hashlib.sha256(text).hexdigest() == artifact.digest
    assert json.loads(text)["files"]["a"]["sha256"] == hashlib.sha256(b"1").hexdigest()


def test_a_draft_that_fails_leaves_nothing_but_its_scratch(store: Store):
    with contextlib.suppress(RuntimeError), store.draft("ab") as draft:
        (draft.scratch / "checkpoint").write_text("half way")
        raise RuntimeError
    assert store.digests() == []
    assert list((store.local / "drafts").iterdir()) == []
    with store.draft("ab") as draft:
        assert (draft.scratch / "checkpoint").read_text() == "half way"


def test_scratch_goes_once_the_key_is_remembered(store: Store):
    with store.draft("ab") as draft:
        artifact = store.commit(draft)
    store.remember(record("ab", artifact.digest))
    assert not (store.local / "scratch" / "ab").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "a").write_text("longer than it was"), "a has 18 bytes instead of 3"),
        (lambda f: (f / "a").unlink(), "lacks a"),
        (lambda f: (f / MANIFEST).unlink(), "is missing"),
        (lambda f: (f / MANIFEST).write_text("{}"), "has a changed manifest"),
    ],
)
def test_damage_is_found_on_opening_and_named(tmp_path: Path, damage, words: str):
    store = Store(tmp_path)
    artifact = put(store, {"a": "one"})
    damage(tmp_path / artifact.digest)
    with pytest.raises(ArtifactError, match=words):
        store.open(artifact)
    assert [(d.digest, d.problem) for d in store.verify()] in ([], [(artifact.digest, words)])


def test_verify_reads_every_byte(tmp_path: Path):
    store = Store(tmp_path)
    good, bad = put(store, {"a": "one"}), put(store, {"a": "two"})
    (tmp_path / bad.digest / "a").write_text("owt")  # equal in size
    assert store.open(bad)  # the cheap check cannot see it
    assert [d.digest for d in store.verify()] == [bad.digest]
    assert "a has changed content" in store.verify()[0].problem
    assert good.digest not in {d.digest for d in store.verify()}


def test_verify_names_an_artifact_that_is_indexed_but_gone(store: Store):
    artifact = put(store, {"a": "one"})
    store.remember(record("ab", artifact.digest))
    store.remove(artifact.digest)
    assert [(d.digest, d.problem) for d in store.verify()] == [(artifact.digest, "is missing")]


def test_damage_is_told_once_however_often_it_is_looked_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    artifact = put(Store(tmp_path), {"a": "told once"})
    Store(tmp_path).remember(record("ab", artifact.digest))
    for _ in range(2):
        (tmp_path / artifact.digest / "a").write_text("x")
        caplog.clear()
        assert [Store(tmp_path).lookup("ab") for _ in range(3)] == [None] * 3
        said = f"clean: artifact {artifact.digest[:12]} a has 1 bytes instead of 9; it is computed again."
        assert caplog.messages == [said]
        put(Store(tmp_path), {"a": "told once"})  # mended: later damage is told again
        assert Store(tmp_path).lookup("ab") is not None


def test_committing_again_mends_a_damaged_artifact(store: Store):
    artifact = put(store, {"a": "one"})
    store.fs.pipe_file(f"{store.root}/{artifact.digest}/a", b"owe")
    put(store, {"a": "one"})
    assert store.verify() == []


def test_a_key_whose_artifact_is_gone_is_not_found(store: Store):
    artifact = put(store, {"a": "one"})
    store.remember(record("ab", artifact.digest))
    assert store.lookup("ab") is not None
    store.remove(artifact.digest)
    assert store.lookup("ab") is None
    assert store.record("ab") is not None


def test_gc_keeps_what_it_is_told_to(store: Store):
    kept, gone = put(store, {"a": "one"}), put(store, {"a": "two"})
    store.remember(record("aa", kept.digest))
    store.remember(record("bb", gone.digest))
    assert store.gc({kept.digest}, dry_run=True)[0] == [gone.digest]
    assert store.digests() == sorted([kept.digest, gone.digest])
    digests, freed = store.gc({kept.digest})
    assert digests == [gone.digest]
    assert freed > 0
    assert store.digests() == [kept.digest]
    assert [r.key for r in store.records()] == ["aa"]


def test_the_newest_key_of_a_step_is_kept_by_scope(store: Store):
    store.point_latest("sst2", "clean", "aa")
    store.point_latest("mrpc", "clean", "bb")
    store.point_latest("sst2", "clean", "cc")
    assert store.latest("sst2", "clean") == "cc"
    assert store.latest("mrpc", "clean") == "bb"
    assert store.latest("mrpc", "split") is None


def test_a_remote_store_needs_a_local_folder():
    with pytest.raises(ArtifactError, match="needs a local folder"):
        Store("memory://bucket")


HOLD = """
import sys, time
from pathlib import Path
from ftlib.artifacts import Store
with Store(Path(sys.argv[1])).lock("ab"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_owner(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == "held\n"
        store = Store(tmp_path)
        with store.lock("ab", wait=False) as held:
            assert not held
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        started = time.monotonic()
        with store.lock("ab") as held:
            assert held
        assert time.monotonic() - started < 5
