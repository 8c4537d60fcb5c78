"""Steps, their keys and the plan, on small steps of the tests' own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ftlib import steps as steps_module
from ftlib.artifacts import Draft, Store
from ftlib.planning import _differences, plan
from ftlib.plugins import plugins_in
from ftlib.steps import Step, execute, key_components, source_digests, step_key
from ftlib.strategies.base import Strategy

RUNS: list[str] = []


class Write(Step):
    """Write a number."""

    libraries = ("pydantic",)
    not_in_key = frozenset({"note"})

    number: int = 1
    note: str = ""

    def run(self, draft: Draft) -> None:  # type: ignore[override]
        """Write it, as a file whose content depends on its sign only."""
        RUNS.append(self.step_name)
        (draft.folder / "sign").write_text("+" if self.number >= 0 else "-")
        draft.metrics["number"] = self.number


class Copy(Step):
    """Copy what the first one wrote."""

    times: int = 1

    def run(self, draft: Draft, source: Path) -> None:  # type: ignore[override]
        """Copy it."""
        RUNS.append(self.step_name)
        (draft.folder / "copy").write_text((source / "sign").read_text() * self.times)


class Broken(Write):
    """Need what nobody has."""

    libraries = ("no-such-distribution",)


class Fail(Write):
    """Fail half way."""

    def run(self, draft: Draft) -> None:  # type: ignore[override]
        """Write a checkpoint and fail."""
        (draft.scratch / "half").write_text("x")
        raise RuntimeError("no luck")


class Tune(Step):
    """Hold a plugin."""

    strategy: Strategy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    RUNS.clear()
    return Store(tmp_path / "store")


def chain(number: int = 1, times: int = 1) -> list[Step]:
    return [
        Write(step_name="write", number=number),
        Copy(step_name="copy", inputs={"source": "write"}, times=times),
        Copy(step_name="again", inputs={"source": "write"}, times=9),
    ]


def run(steps: list[Step], store: Store) -> dict[str, bool]:
    done, cached = {}, {}
    for step in steps:
        outcome = execute(step, {a: done[n] for a, n in step.inputs.items()}, store, scope="tests")
        done[step.step_name], cached[step.step_name] = outcome.artifact, outcome.cached
    return cached


def states(steps: list[Step], store: Store) -> dict[str, str]:
    return {p.name: p.state for p in plan(steps, store, scope="tests")}


def test_nothing_is_computed_twice(store: Store):
    assert set(run(chain(), store).values()) == {False}
    assert set(run(chain(), store).values()) == {True}
    assert RUNS == ["write", "copy", "again"]


def test_a_changed_parameter_recomputes_its_step_and_what_follows_only_if_the_output_changed(store: Store):
    run(chain(1), store)
    assert run(chain(2), store) == {"write": False, "copy": True, "again": True}  # the same sign
    assert run(chain(-1), store) == {"write": False, "copy": False, "again": False}
    assert run(chain(-1, times=3), store) == {"write": True, "copy": False, "again": True}


def test_what_shapes_no_result_is_not_in_the_key(store: Store):
    assert step_key(Write(step_name="a", note="x"), {}) == step_key(Write(step_name="b", note="y"), {})


def test_two_kinds_of_step_with_equal_parameters_have_different_keys():
    assert step_key(Write(step_name="a"), {}) != step_key(Copy(step_name="a"), {})


def test_the_plugin_in_a_step_is_in_its_key_with_its_fields_and_its_source():
    small, large = (Tune.model_validate({"step_name": "t", "strategy": {"name": "lora", "r": r}}) for r in (4, 8))
    assert step_key(small, {}) != step_key(large, {})
    assert "ftlib.strategies.lora" in source_digests(small)
    assert len(list(plugins_in(small))) == 1


def test_an_edited_source_changes_the_key_of_the_steps_that_use_it(monkeypatch: pytest.MonkeyPatch):
    from tasks.data import Clean, Split

    def keys() -> tuple[dict, dict]:
        for cached in (steps_module._file_digest, steps_module.imports_of, steps_module._class_node):
            cached.cache_clear()
        clean = Clean.model_validate({"step_name": "clean", "problem": "text_classification", "cleaning": {}})
        split = Split.model_validate(
            {"step_name": "split", "problem": "text_classification", "splitting": {}, "seed": 1}
        )
        return source_digests(clean), source_digests(split)

    clean, split = keys()
    source = steps_module._source
    monkeypatch.setattr(
        steps_module, "_source", lambda m: source(m) + ("\n# edited\n" if m == "ftlib.data.clean" else "")
    )
    edited_clean, edited_split = keys()
    assert edited_clean != clean
    assert edited_split == split
    monkeypatch.undo()
    keys()


def test_a_key_that_cannot_be_computed_is_an_error():
    with pytest.raises(Exception, match="no-such-distribution"):
        key_components(Broken(step_name="a"), {})


def test_a_deleted_artifact_is_computed_again(store: Store):
    run(chain(), store)
    key = store.latest("tests", "write")
    assert key
    store.remove(store.record(key).digest)  # type: ignore[union-attr]
    assert states(chain(), store) == {"write": "todo", "copy": "waiting", "again": "waiting"}
    assert run(chain(), store) == {"write": False, "copy": True, "again": True}


def test_a_failing_step_leaves_no_record_and_keeps_its_scratch(store: Store):
    with pytest.raises(RuntimeError, match="no luck"):
        run([Fail(step_name="fail")], store)
    assert store.records() == []
    assert len(list((store.local / "scratch").glob("*/half"))) == 1


def test_the_plan_says_what_a_run_then_does_and_why(store: Store):
    assert states(chain(), store) == {"write": "todo", "copy": "todo", "again": "todo"}
    run(chain(), store)
    assert states(chain(), store) == {"write": "done", "copy": "done", "again": "done"}
    planned = {p.name: p for p in plan(chain(1, times=2), store, scope="tests")}
    assert planned["copy"].state == "todo"
    assert planned["copy"].reason == "times 1 -> 2"
    assert planned["again"].state == "done"
    planned = {p.name: p for p in plan(chain(5, times=2), store, scope="tests")}
    assert (planned["write"].state, planned["write"].reason) == ("todo", "number 1 -> 5")
    assert (planned["copy"].state, planned["copy"].reason) == ("todo", "times 1 -> 2")
    assert planned["again"].state == "waiting"
    assert "write" in planned["again"].reason


def test_the_plan_names_an_edited_source_and_a_new_library(store: Store, monkeypatch: pytest.MonkeyPatch):
    run(chain(), store)
    monkeypatch.setattr(steps_module, "version", lambda name: "99.0")
    planned = plan(chain(), store, scope="tests")
    assert planned[0].state == "todo"
    assert planned[0].reason.startswith("pydantic ")
    assert planned[0].reason.endswith("-> 99.0")
    monkeypatch.setattr(steps_module, "_class_digest", lambda cls: "edited")
    assert "code of Write was edited" in plan(chain(), store, scope="tests")[0].reason


def test_the_plan_names_the_item_of_a_list_that_changed():
    before = {"members": [{"name": "full", "rate": 1}, {"name": "lora", "rate": 2}], "sizes": [1, 2]}
    now = {"members": [{"name": "full", "rate": 1}, {"name": "lora", "rate": 3}], "sizes": [1, 2, 3]}
    assert list(_differences(before, now)) == [("members.lora.rate", "2", "3"), ("sizes", "[1, 2]", "[1, 2, 3]")]


def test_imports_are_followed_wherever_they_stand(monkeypatch: pytest.MonkeyPatch):
    sources = {
        "ftlib.a": "def f():\n    from ftlib import b\n",
        "ftlib.b": "import ftlib.c\nfrom ftlib.errors import DataError\n",
        "ftlib.c": textwrap.dedent("""
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from ftlib import d
        """),
    }
    monkeypatch.setattr(steps_module, "_source", sources.__getitem__)
    monkeypatch.setattr(steps_module, "_is_module", lambda n: n in sources or n in {"ftlib", "ftlib.errors", "ftlib.d"})
    steps_module.imports_of.cache_clear()
    assert steps_module.closure({"ftlib.a"}) == {"ftlib", "ftlib.a", "ftlib.b", "ftlib.c", "ftlib.errors"}
    steps_module.imports_of.cache_clear()
