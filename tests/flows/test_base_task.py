"""The one Prefect task: its key, its results, its errors, its edges."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sample_steps import Clean, Collect, Split

from ftlib import state
from ftlib.artifacts import Artifact
from ftlib.errors import ArtifactError, DataError
from ftlib.steps import Step, step_key


def perform(step: Step, inputs: dict[str, Artifact] | None = None) -> Any:
    from tasks.base import run_step

    given = inputs or {}
    return run_step(step, given, key=step_key(step, given), scope="sample")


def in_flow(body: Any) -> Any:
    """Return what a flow returns; not from its state, which the server may answer without the result."""
    from prefect import flow

    found: list[Any] = []
    final = flow(lambda: found.append(body()), name="test", validate_parameters=False)(return_state=True)
    return found[0] if found else final.result()


def chain() -> dict[str, Any]:
    rows = perform(Collect(step_name="collect"))
    cleaned = perform(Clean(step_name="clean", inputs={"rows": "collect"}), {"rows": rows.artifact})
    split = perform(Split(step_name="split", inputs={"rows": "clean"}), {"rows": cleaned.artifact})
    return {"collect": rows, "clean": cleaned, "split": split}


def test_a_task_is_named_after_its_step_and_its_run_after_the_step_s_name(prefect: str) -> None:
    from prefect.client.orchestration import get_client

    done = in_flow(chain)
    with get_client(sync_client=True) as client:
        wait_until_recorded(client, done["split"].task_run_id)
        run = client.read_task_run(done["split"].task_run_id)
    assert run.name == "split"
    from tasks.base import prefect_task

    assert prefect_task(Clean).name == "clean"


def test_the_second_run_is_cached_and_gives_the_same_artifacts(prefect: str) -> None:
    first, second = in_flow(chain), in_flow(chain)
    assert [done.cached for done in first.values()] == [False] * 3
    assert [done.cached for done in second.values()] == [True] * 3
    assert [d.artifact.digest for d in first.values()] == [d.artifact.digest for d in second.values()]


def test_edges_follow_the_artifacts(prefect: str) -> None:
    from prefect.client.orchestration import get_client

    for done in (in_flow(chain), in_flow(chain)):  # computed, and cached
        with get_client(sync_client=True) as client:
            wait_until_recorded(client, done["split"].task_run_id)
            run = client.read_task_run(done["split"].task_run_id)
        assert [entry.id for entry in run.task_inputs["inputs"]] == [done["clean"].task_run_id]
        assert run.task_inputs["work"] == []


def test_what_prefect_persists_is_a_small_json_record_under_ftlib_s_own_key(prefect: str, home: Path) -> None:
    done = in_flow(chain)
    results = home / "prefect" / "results"
    assert {path.name for path in results.iterdir()} == {d.record.key for d in done.values()}
    assert stat.S_IMODE(results.stat().st_mode) == 0o700
    for path in results.iterdir():
        record = json.loads(path.read_text())
        assert record["metadata"]["serializer"]["type"] == "json"
        assert set(json.loads(record["result"])["data"]) == {"digest", "uri", "key"}


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_an_artifact_that_is_gone_or_damaged_is_computed_again(prefect: str, damage: str) -> None:
    first = in_flow(chain)
    folder = state.store().open(first["clean"].artifact)
    if damage == "delete":
        state.store().remove(first["clean"].artifact.digest)
    else:
        (folder / "cleaning.json").write_text("")
    second = in_flow(chain)
    assert [done.cached for done in second.values()] == [True, False, True]
    assert second["clean"].artifact.digest == first["clean"].artifact.digest


def test_a_step_that_only_ftlib_knows_is_shown_as_cached(prefect: str, home: Path) -> None:
    in_flow(chain)
    for path in (home / "prefect" / "results").iterdir():
        path.unlink()
    assert [done.cached for done in in_flow(chain).values()] == [True] * 3


def test_a_result_cannot_be_read_back_once_its_artifact_is_gone(prefect: str) -> None:
    from tasks.base import Result

    done = in_flow(chain)["collect"]
    handle = {"digest": done.artifact.digest, "uri": done.artifact.uri, "key": done.record.key}
    assert Result.model_validate(handle).digest == done.artifact.digest
    state.store().remove(done.artifact.digest)
    with pytest.raises(ValidationError, match="is not in the store"):
        Result.model_validate(handle)


def test_a_step_s_error_comes_out_as_it_was_raised(prefect: str) -> None:
    def body() -> Any:
        rows = perform(Collect(step_name="collect", text="bad rows"))
        return perform(Clean(step_name="clean", inputs={"rows": "collect"}), {"rows": rows.artifact})

    with pytest.raises(DataError, match=r"^rows.csv: 7 of 12 rows rejected. Check the mapping.$"):
        in_flow(body)


def test_a_source_that_changes_after_its_key_was_taken_is_not_cached_under_that_key(home: Path) -> None:
    from tasks.base import Work, compute

    with pytest.raises(ArtifactError, match="collect: what it reads changed"):
        compute(Work(Collect(step_name="collect"), "0" * 64, "sample"))


def test_the_newest_key_is_remembered_for_the_plan_on_a_hit_too(prefect: str) -> None:
    in_flow(chain)
    other = in_flow(lambda: {"collect": perform(Collect(step_name="collect", text="other"))})
    assert state.store().latest("sample", "collect") == other["collect"].record.key
    back = in_flow(chain)
    assert state.store().latest("sample", "collect") == back["collect"].record.key


def wait_until_recorded(client: Any, task_run_id: Any) -> None:
    import time

    from prefect.exceptions import ObjectNotFound

    for _ in range(100):
        try:
            state = client.read_task_run(task_run_id).state  # None for a moment after the run was made
            if state is not None and state.is_final():
                return
        except ObjectNotFound:
            pass
        time.sleep(0.1)
    raise AssertionError("the task run was not recorded in 10 s")
