"""`ftlib store`: listing, verifying, and removing what no newest run needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib import keeping, state
from ftlib.artifacts import Artifact, KeyRecord, Store


def made(store: Store, step: str, content: str, *, key: str, inputs: dict[str, Artifact] | None = None) -> Artifact:
    """Commit an artifact as a step would, with its key's record."""
    with store.draft() as draft:
        (draft.folder / "data.txt").write_text(content)
        artifact = store.commit(draft)
    components = {"inputs": {name: artifact.digest for name, artifact in (inputs or {}).items()}}
    record = KeyRecord(
        key=key,
        digest=artifact.digest,
        step=step,
        components=components,
        metrics={"seconds": 1.5},
        created=f"2026-01-0{key}T00:00:00",
    )
    store.remember(record)
    return artifact


@pytest.fixture
def store() -> Store:
    """A store after two runs: the second one changed the stage, not the data."""
    store = state.store()
    rows = made(store, "collect", "rows", key="1")
    made(store, "train-full", "old model", key="2", inputs={"rows": rows})
    made(store, "train-full", "new model", key="3", inputs={"rows": rows})
    store.point_latest("tickets", "train-full", "3")
    return store


def test_ls_names_step_user_and_size_of_every_artifact(ftlib, store: Store):
    result = ftlib("store", "ls")
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[1:3] for line in lines[1:4]] == [
        ["collect", "tickets"],
        ["train-full", "nothing"],
        ["train-full", "tickets"],
    ]
    assert lines[4][:2] == ["3", "artifacts,"]


def test_ls_can_be_narrowed_to_an_experiment(ftlib, store: Store):
    assert "2 artifacts" in ftlib("store", "ls", "tickets").out
    result = ftlib("store", "ls", "tickts")
    assert (result.code, result.err) == (2, "unknown experiment 'tickts'. Did you mean 'tickets'?\n")


def test_verify_is_content_with_a_whole_store(ftlib, store: Store):
    result = ftlib("store", "verify")
    assert (result.code, result.out) == (0, "All 3 artifacts are whole.\n")


def test_verify_names_damaged_and_missing_artifacts(ftlib, store: Store):
    damaged, missing = (store.record(key) for key in "12")
    assert damaged
    assert missing
    Path(store.root, damaged.digest, "data.txt").write_text("sawn")
    store.remove(missing.digest)
    result = ftlib("store", "verify")
    assert result.code == 1
    assert f"{damaged.digest[:12]} collect: data.txt has changed content" in result.out
    assert f"{missing.digest[:12]} train-full: is missing" in result.out


def test_gc_keeps_what_newest_keys_need_and_what_that_was_made_from(ftlib, store: Store):
    old = store.record("2")
    assert old
    preview = ftlib("store", "gc", "--dry-run")
    assert preview.out.splitlines()[0] == f"{old.digest[:12]} train-full"
    assert preview.out.splitlines()[1].startswith("1 of 3 artifacts would go, and free ")
    assert len(store.digests()) == 3
    result = ftlib("store", "gc")
    assert result.out.splitlines()[-1].startswith("1 artifacts removed, 2 kept; ")
    assert set(store.digests()) == keeping.needed(store)
    assert store.record("2") is None


def test_an_empty_store_is_listed_verified_and_collected(ftlib):
    assert ftlib("store", "ls").out.startswith("0 artifacts, 0 B, in ")
    assert ftlib("store", "verify").out == "All 0 artifacts are whole.\n"
    assert ftlib("store", "gc").out == "0 artifacts removed, 0 kept; 0 B freed.\n"


def test_artifacts_of_several_experiments_are_kept_for_each(store: Store):
    store.point_latest("other", "train-full", "2")
    assert len(keeping.needed(store)) == 3
    users = keeping.uses(store)
    record = store.record("1")
    assert record
    assert users[record.digest] == {"tickets", "other"}
