"""What a step uses: processor seconds, peak memory, and an estimate of its energy and carbon.

Energy and carbon are codecarbon's estimates, made offline: the processor's power (its counters where they may
be read, else its thermal design power times this process's load), an estimate for memory, the GPU's own
reading, and the mean carbon intensity of a country's electricity (Courty et al., "CodeCarbon",
https://doi.org/10.5281/zenodo.4658424). Good for comparing runs on one machine, not for accounting.

Cost on two cores: 1.5 s once a process, when the first step is measured (codecarbon asks what processor this
is), then 10 ms a step. It touches no random state and writes no file.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

SAMPLE_SECONDS = 5.0
"""Between two samples of processor and memory."""

logger = logging.getLogger(__name__)

Figures = dict[str, float]


class Meter:
    """Measures steps, one at a time. Trouble with it is one warning, and figures that are missing.

    Args:
        country: Whose electricity is assumed for carbon, ISO 3166 alpha-3.
        energy: Estimate energy and carbon too.
    """

    def __init__(self, *, country: str = "USA", energy: bool = True) -> None:
        self.country = country
        self._energy = energy
        self._tracker: Any = None
        self._busy = threading.Lock()

    @contextmanager
    def measure(self, on_sample: Callable[[int, Figures], None] | None = None) -> Iterator[Figures]:
        """Give a dict that holds the figures after the block; only a step that computes is worth it.

        Figures: cpu_seconds, cpu_utilization_ratio, peak_memory_bytes, peak_gpu_memory_bytes, energy_kwh,
        carbon_kg (CO2 equivalent).

        Args:
            on_sample: Told a running number and figures every few seconds, under the names that MLflow's page
                of system metrics shows.
        """
        figures: Figures = {}
        if not self._busy.acquire(blocking=False):  # another thread's step: shares cannot be told apart
            yield figures
            return
        try:
            with self._energy_into(figures), _usage_into(figures), _sampling(on_sample):
                yield figures
        finally:
            self._busy.release()

    @contextmanager
    def _energy_into(self, figures: Figures) -> Iterator[None]:
        started = self._ask(self._start)
        try:
            yield
        finally:
            if started:
                self._ask(lambda: figures.update(self._stop()))

    def _ask(self, question: Callable[[], object]) -> bool:
        """Do something with codecarbon; whatever it raises turns the estimate off, with one warning."""
        if not self._energy:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                question()
        except Exception as error:  # it reads hardware in many ways, and none may stop a step
            self._energy = False
            reason = str(error) or type(error).__name__
            logger.warning("Energy is not estimated: %s. `tracking: {energy: false}` turns it off.", reason)
            return False
        return True

    def _start(self) -> None:
        if self._tracker is None:
            self._tracker = _codecarbon(self.country)
        self._tracker.start_task()

    def _stop(self) -> Figures:
        used = self._tracker.stop_task()
        return {"energy_kwh": float(used.energy_consumed), "carbon_kg": float(used.emissions)}


def _codecarbon(country: str) -> Any:
    """Return codecarbon's offline tracker: no network, no file, no word."""
    log = logging.getLogger("codecarbon")
    log.setLevel(logging.CRITICAL)
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.input import DataSource

    log.setLevel(logging.CRITICAL)
    if country not in DataSource().get_global_energy_mix_data():
        raise ValueError(f"codecarbon knows no electricity of country {country!r}; give an ISO 3166 alpha-3 code")
    return OfflineEmissionsTracker(
        country_iso_code=country,
        tracking_mode="process",
        output_methods=[],
        emissions_endpoint=None,
        electricitymaps_api_token=None,
        allow_multiple_runs=True,
        log_level="critical",
    )


# -- processor and memory ------------------------------------------------------------------------------


@contextmanager
def _usage_into(figures: Figures) -> Iterator[None]:
    import psutil

    process = psutil.Process()
    _reset_peak_memory()
    cpu, started = _cpu_seconds(process), time.perf_counter()
    try:
        yield
    finally:
        seconds = max(time.perf_counter() - started, 1e-9)
        used = _cpu_seconds(process) - cpu
        figures["cpu_seconds"] = used
        figures["cpu_utilization_ratio"] = min(used / seconds / (psutil.cpu_count() or 1), 1.0)
        figures |= _peak_memory()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return sum(times[:4])  # own and children's, user and system


def _reset_peak_memory() -> None:
    """Make the kernel forget the process's peak so far (Linux), so that a step's own peak can be read."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> Figures:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"peak_memory_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        peaks["peak_memory_bytes"] = float(int(peak.split()[1]) * 1024)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peaks["peak_gpu_memory_bytes"] = float(torch.cuda.max_memory_allocated())
    return peaks


@contextmanager
def _sampling(on_sample: Callable[[int, Figures], None] | None) -> Iterator[None]:
    if on_sample is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_sample, args=(on_sample, over), name="system-figures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1.0)


def _sample(on_sample: Callable[[int, Figures], None], over: threading.Event) -> None:
    import psutil

    process = psutil.Process()
    cpu, then, number = _cpu_seconds(process), time.perf_counter(), 0
    while not over.wait(SAMPLE_SECONDS):
        now_cpu, now = _cpu_seconds(process), time.perf_counter()
        memory = process.memory_info().rss
        load = 100 * (now_cpu - cpu) / (now - then) / (psutil.cpu_count() or 1)
        on_sample(number, {
            "system/cpu_utilization_percentage": min(load, 100.0),
            "system/system_memory_usage_megabytes": memory / 1e6,
            "system/system_memory_usage_percentage": 100 * memory / psutil.virtual_memory().total,
        })  # fmt: skip
        cpu, then, number = now_cpu, now, number + 1
