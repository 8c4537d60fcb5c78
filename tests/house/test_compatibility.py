"""The matrices: strategy x problem and fusion x problem."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ftlib import compatibility
from ftlib.errors import UnsupportedError
from ftlib.fusion.base import Fusion
from ftlib.problems.base import Problem
from ftlib.strategies.base import Strategy

MATRICES = [compatibility.strategies(), compatibility.fusions()]
each = pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: matrix.kind)


def test_every_plugin_and_every_problem_has_its_row_and_column():
    strategies, fusions = MATRICES
    assert strategies.names == Strategy.available()
    assert fusions.names == Fusion.available()
    assert strategies.problems == fusions.problems == Problem.available()


@each
def test_every_cell_is_what_the_plugins_say(matrix):
    for problem in matrix.problems:
        for name in matrix.names:
            if matrix.kind == "strategies":
                plugin, asked = Strategy.named(name)(), Problem.named(problem)()
            else:
                plugin, asked = Fusion.named(name)(), Problem.named(problem)().target
            if (problem, name) in matrix.refusals:
                with pytest.raises(UnsupportedError):
                    plugin.check(asked)
            else:
                plugin.check(asked)


@each
def test_a_refusal_names_who_refuses_and_what_to_do(matrix):
    for (problem, name), reason in matrix.refusals.items():
        assert name in reason, (problem, reason)
        assert any(word in reason.lower() for word in ("choose", "use ", "set ", "learns")), reason


@each
def test_every_problem_is_trained_by_some_strategies_and_fused_by_some_methods(matrix):
    for problem in matrix.problems:
        assert sum((problem, name) not in matrix.refusals for name in matrix.names) >= 3


@each
def test_equal_reasons_are_told_once(matrix):
    assert len(set(matrix.reasons())) == len(matrix.reasons())
    given = {matrix.reason(problem, name) for problem, name in matrix.refusals}
    assert given == set(matrix.reasons())


@each
def test_the_matrix_survives_json(matrix):
    dumped = json.loads(json.dumps(matrix.dump()))
    assert set(dumped) == set(matrix.problems)
    for problem, row in dumped.items():
        for name, cell in row.items():
            refusal = matrix.refusals.get((problem, name))
            assert cell == ({"refuses": refusal} if refusal else matrix.does)


def test_asking_opens_neither_torch_nor_transformers():
    code = (
        "import sys; from ftlib import compatibility as c; c.strategies(); c.fusions();"
        "print(sorted({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
