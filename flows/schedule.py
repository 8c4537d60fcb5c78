"""Schedules: a deployment of the flow on the work pool, which the server fires and the worker runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import servers
from flows.running import PREFECT
from ftlib import state
from ftlib.errors import FtlibError, ParamsError
from ftlib.params.loading import load_experiment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.schedules import SCHEDULE_TYPES

FLOW = Path(__file__).with_name("hybrid_finetune.py")
ROOT = FLOW.parent.parent

PASSED_ON = ("FTLIB_HOME", "FTLIB_STORE", "MLFLOW_TRACKING_URI", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT")
"""What a scheduled run takes over from the environment that it was scheduled in."""


@dataclass(frozen=True)
class Scheduled:
    """A schedule that is set.

    Attributes:
        name: The deployment, "hybrid_finetune/<name>".
        deployment_id: Its id.
        url: Its page, where parameters and schedule can be changed.
        next_run: When it runs next.
    """

    name: str
    deployment_id: str
    url: str
    next_run: datetime | None

    def __str__(self) -> str:
        """Return what a person wants to know of it, a line each."""
        first = f"{self.next_run:%Y-%m-%d %H:%M %Z}" if self.next_run else "as the schedule says"
        return f"{self.name} runs next at {first}.\nChange or pause it at {self.url}"


def schedule(
    params: Path | str,
    cron: str,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    timezone: str | None = None,
) -> Scheduled:
    """Run a params file at set times, on this machine's worker.

    Args:
        params: The params file; read anew by each run.
        cron: When, in cron's five fields: "0 2 * * *" is at two every night.
        name: What the deployment is called; the experiment's name unless given. One that exists is replaced.
        overrides: Changes on top, as `--set` takes them.
        timezone: Whose clock `cron` means; this machine's unless given.

    Raises:
        ParamsError: If the file, an override, or `cron` is wrong.
        FtlibError: If no server is up.
    """
    state.prepare_environment()
    experiment = load_experiment(params, overrides)
    api = servers.prefect_api()
    if api is None:
        raise FtlibError("no Prefect server is running, and none would start the run. Start one with `ftlib up`.")
    from flows.hybrid_finetune import settings

    with settings(api):
        return deploy(
            Path(params).absolute(),
            cron_schedule(cron, timezone or local_timezone()),
            name=name or experiment.name,
            overrides=overrides,
            api=api,
        )


def cron_schedule(cron: str, timezone: str) -> SCHEDULE_TYPES:
    """Return Prefect's schedule for a cron line.

    Raises:
        ParamsError: If it is none, or the time zone is unknown.
    """
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        wrong = error.errors()[0]
        if wrong["loc"][:1] == ("timezone",):
            raise ParamsError(f"unknown time zone {timezone!r}; expected one such as Europe/Berlin.") from None
        raise ParamsError(
            f'--cron {cron!r}: is no cron line; expected five fields, "minute hour day month weekday": '
            '"0 2 * * *" is at two every night.'
        ) from None


def deploy(params: Path, when: SCHEDULE_TYPES, *, name: str, overrides: Sequence[str] = (), api: str) -> Scheduled:
    """Set a schedule, whatever its kind; an older one of this name is replaced."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _require_work_pool(client)
        deployment_id = _create(client, params, when, name, overrides)
        coming = client.read_deployment(deployment_id)
        full = f"hybrid_finetune/{name}"
        url = f"{servers.prefect_ui(api)}/deployments/deployment/{deployment_id}"
        return Scheduled(full, str(coming.id), url, _next_run(when))


def _create(client: SyncPrefectClient, params: Path, when: SCHEDULE_TYPES, name: str, overrides: Sequence[str]) -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    from flows.hybrid_finetune import hybrid_finetune

    folder = str(Path.cwd())
    return client.create_deployment(
        flow_id=client.create_flow(hybrid_finetune),
        name=name,
        description=f"`ftlib schedule {params}`",
        schedules=[DeploymentScheduleCreate(schedule=when, active=True)],
        parameters={"params": str(params), "overrides": list(overrides)},
        parameter_openapi_schema=hybrid_finetune.parameters.model_dump_for_openapi(),
        enforce_parameter_schema=True,
        work_pool_name=servers.WORK_POOL,
        entrypoint=f"{FLOW}:hybrid_finetune",
        path=folder,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
        job_variables={"working_dir": folder, "env": _environment()},
        tags=["ftlib"],
    )


def _environment() -> dict[str, str]:
    given = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
    path = os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    )
    return {**PREFECT, **given, "FTLIB_HOME": str(state.home()), "PYTHONPATH": path}


def _require_work_pool(client: SyncPrefectClient) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(servers.WORK_POOL)
    except ObjectNotFound:
        raise FtlibError(
            f"the server has no work pool {servers.WORK_POOL!r}, so nobody would run it. `ftlib up` starts a worker."
        ) from None


def _next_run(when: SCHEDULE_TYPES) -> datetime | None:
    """Return when a schedule fires next, worked out here: the server plans runs a few seconds later."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule  # the client's have no dates
    from prefect.utilities.asyncutils import run_coro_as_sync

    kinds: dict[str, Any] = {"CronSchedule": CronSchedule, "IntervalSchedule": IntervalSchedule}
    kind = kinds.get(type(when).__name__)
    if kind is None:
        return None
    dates: Any = run_coro_as_sync(kind(**when.model_dump(exclude_none=True)).get_dates(1))
    return dates[0] if dates else None


def local_timezone() -> str:
    """Return this machine's time zone by its name: TZ, /etc/timezone, the target of /etc/localtime, or UTC."""
    from zoneinfo import available_timezones

    named = [os.environ.get("TZ", "").lstrip(":"), _first_line(Path("/etc/timezone"))]
    named.append(os.path.realpath("/etc/localtime").partition("zoneinfo/")[2])
    known = available_timezones()
    return next((name for name in named if name in known), "UTC")


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip().partition("\n")[0]
    except OSError:
        return ""
