"""One Prefect task for every step: named after the step, cached by the step's own key.

Prefect decides nothing here. The key is ftlib's (`ftlib.steps.step_key`), the policy only hands it on, and
what Prefect persists is a handle that checks its artifact when it is read: one that is gone or damaged
counts as never computed. So Prefect, `ftlib plan` and a worker elsewhere agree on what is done.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.states import Completed, State
from prefect.tasks import Task
from prefect.utilities.annotations import quote
from pydantic import model_validator

from ftlib import state
from ftlib.artifacts import Artifact, KeyRecord
from ftlib.errors import ArtifactError
from ftlib.steps import Step, execute


class Result(Artifact):
    """What a task run returns and Prefect persists: a handle that cannot be read back once its artifact is gone.

    Attributes:
        key: The cache key that gave the artifact.
    """

    key: str

    @model_validator(mode="after")
    def _must_be_there(self) -> Self:
        record = state.store().lookup(self.key)
        if record is None or record.digest != self.digest:
            raise ValueError(f"artifact {self.digest[:12]} is not in the store, or not what key {self.key[:12]} gave")
        return self


@dataclass(frozen=True)
class Work:
    """What a task run is asked to do: a step, its key, and the experiment it is done for."""

    step: Step
    key: str
    scope: str


@dataclass
class StepKey(CachePolicy):
    """Hands on the key that ftlib computed, before Prefect was asked to run anything."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """Return the key of the work."""
        key: str = inputs["work"].key
        return key


@dataclass(frozen=True)
class Done:
    """A step that a run has gone through.

    Attributes:
        artifact: Its result.
        cached: Whether nothing had to be computed.
        record: The key's record: the seconds and figures of the run that computed it.
        task_run_id: Prefect's task run.
    """

    artifact: Artifact
    cached: bool
    record: KeyRecord
    task_run_id: UUID


def run_step(step: Step, inputs: Mapping[str, Artifact], *, key: str, scope: str) -> Done:
    """Run a step as a Prefect task, or find it done. Call it from within a flow.

    Args:
        step: What to compute.
        inputs: Argument name -> the artifact that `run_step` gave for it: the edges of Prefect's run graph.
        key: `ftlib.steps.step_key` of the two: an error there ends the run before Prefect could swallow it.
        scope: The experiment's name.

    Raises:
        FtlibError: As the step raised it, not wrapped.
    """
    task: Any = prefect_task(type(step))
    final: State[Result] = task(quote(Work(step, key, scope)), **inputs, return_state=True)
    artifact: Any = final.result()
    store = state.store()
    record = store.record(key)
    if record is None:
        raise ArtifactError(f"{step.step_name}: its entry in {store.url}/keys has gone during the run. Run again.")
    store.point_latest(scope, step.step_name, key)
    return Done(artifact, final.name == "Cached", record, final.state_details.task_run_id)  # type: ignore[arg-type]


def prefect_task(step_type: type[Step]) -> Task[..., Any]:
    """Return the Prefect task for one kind of step."""
    folder = state.home() / "prefect" / "results"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # a result names its own deserializer: nobody else may write
    return _prefect_task(step_type, folder)


@cache
def _prefect_task(step_type: type[Step], results: Path) -> Task[..., Any]:
    return Task(
        compute,
        name=step_type.kind(),
        description=inspect.getdoc(step_type),
        task_run_name="{work.step.step_name}",
        cache_policy=StepKey(),
        persist_result=True,
        result_storage=results,
        result_serializer="json",
        cache_result_in_memory=False,  # a hit must read the handle, and so check its artifact
    )


def compute(work: Work, **inputs: Artifact) -> Result | State[Result]:
    """Compute a step, or say "Cached" where ftlib has it and only Prefect's own record was missing.

    Raises:
        ArtifactError: If what the step reads changed between its key and its computation.
    """
    outcome = execute(work.step, inputs, state.store(), scope=work.scope)
    if outcome.record.key != work.key:
        raise ArtifactError(f"{work.step.step_name}: what it reads changed while the run was starting. Run again.")
    result = Result(digest=outcome.artifact.digest, uri=outcome.artifact.uri, key=work.key)
    return Completed(name="Cached", data=result, message="Done by an earlier run.") if outcome.cached else result
