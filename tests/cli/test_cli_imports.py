"""What the quick commands load: none of the heavy libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "mlflow", "prefect", "pandas", "datasets", "peft", "sklearn", "scipy", "matplotlib")
SCRIPT = """
import sys
from flows.cli import main
code = main(sys.argv[2:])
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
print("LOADED", code, ",".join(loaded), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["check", "p.yaml"],
        ["plan", "p.yaml"],
        ["list"],
        ["show", "strategy", "lora"],
        ["schema"],
        ["store", "ls"],
    ],
    ids=" ".join,
)
def test_a_quick_command_loads_nothing_heavy(arguments: list[str], params: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, ",".join(HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.stderr.splitlines()[-1] == "LOADED 0 ", done.stderr


def test_the_console_script_is_the_entry_point(params: Path):
    script = "import sys; from flows.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    params.write_text("name: x\n")
    done = subprocess.run(
        [sys.executable, "-c", script, "check", "p.yaml"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["base_model", "problem", "data", "stages"]


def test_a_reader_that_leaves_early_is_no_error(params: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = "import sys; from flows.cli import main; sys.exit(main())"
    command = f"'{sys.executable}' -c '{script}' schema | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""
