from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ftlib import energy
from ftlib.energy import Meter


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "ftlib.energy"]


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_step_that_works_has_figures(tmp_path: Path, capfd: pytest.CaptureFixture):
    meter = Meter(country="DEU")
    with meter.measure() as figures:
        work(0.3)
    assert set(figures) >= {"energy_kwh", "carbon_kg", "cpu_seconds", "cpu_utilization_ratio", "peak_memory_bytes"}
    assert 0 < figures["carbon_kg"] < figures["energy_kwh"] < 1e-3
    assert figures["cpu_seconds"] > 0
    assert 0 < figures["cpu_utilization_ratio"] <= 1
    assert figures["peak_memory_bytes"] > 1e7
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak can be reset on Linux only")
def test_the_peak_of_memory_is_the_steps_own():
    meter = Meter(energy=False)
    with meter.measure() as large:
        block = np.ones(30_000_000)
    del block
    with meter.measure() as small:
        pass
    assert small["peak_memory_bytes"] < large["peak_memory_bytes"] - 1e8


def test_random_numbers_are_the_same_with_and_without_measuring():
    def draw(meter: Meter) -> tuple:
        random.seed(1)
        np.random.seed(1)
        with meter.measure():
            time.sleep(1.2)  # codecarbon looks once a second
            return random.random(), float(np.random.rand())

    assert draw(Meter()) == draw(Meter(energy=False))


def test_an_unknown_country_is_one_warning_and_no_energy(caplog: pytest.LogCaptureFixture):
    meter = Meter(country="XXX")
    for _ in range(2):
        with meter.measure() as figures:
            pass
    assert "energy_kwh" not in figures
    assert "cpu_seconds" in figures
    [warning] = warnings_of(caplog)
    assert "no electricity of country 'XXX'" in warning


def test_codecarbon_that_breaks_does_not_break_the_step(monkeypatch, caplog: pytest.LogCaptureFixture):
    class Broken:
        def start_task(self):
            pass

        def stop_task(self):
            raise RuntimeError("no counter")

    monkeypatch.setattr(energy, "_codecarbon", lambda country: Broken())
    meter = Meter()
    with meter.measure() as figures:
        done = True
    assert done
    assert "energy_kwh" not in figures
    assert warnings_of(caplog) == ["Energy is not estimated: no counter. `tracking: {energy: false}` turns it off."]


def test_a_step_that_fails_is_let_through():
    with pytest.raises(KeyError), Meter(energy=False).measure():
        raise KeyError("step")


def test_long_steps_are_sampled_under_mlflows_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.05)
    samples = []
    with Meter(energy=False).measure(lambda number, figures: samples.append((number, figures))):
        work(0.3)
    assert [number for number, _ in samples] == list(range(len(samples)))
    assert len(samples) >= 2
    assert set(samples[0][1]) == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
    }


def test_of_two_steps_at_once_only_the_first_is_measured():
    meter = Meter(energy=False)
    with meter.measure() as first, meter.measure() as second:
        pass
    assert first
    assert second == {}
