"""What a run would compute, and which change makes it so, without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftlib.artifacts import Artifact, KeyRecord, Store
from ftlib.steps import Step, digest_json, key_components


@dataclass(frozen=True)
class PlannedStep:
    """What a run would do with one step.

    Attributes:
        name: The step's name.
        state: "done": its artifact is there. "todo": it will be computed. "waiting": that depends on whether
            the steps before it give something new.
        reason: Why, in words; empty where done.
        record: What its key gave, where done.
    """

    name: str
    state: Literal["done", "todo", "waiting"]
    reason: str
    record: KeyRecord | None = None


def plan(steps: Sequence[Step], store: Store, *, scope: str) -> list[PlannedStep]:
    """Return what a run of these steps would do, in their order.

    Args:
        steps: Each after those it receives artifacts from.
        store: Where artifacts are.
        scope: The experiment's name: its newest keys say what was there before.
    """
    planned: dict[str, PlannedStep] = {}
    for step in steps:
        planned[step.step_name] = _plan(step, planned, store, scope)
    return list(planned.values())


def _plan(step: Step, planned: dict[str, PlannedStep], store: Store, scope: str) -> PlannedStep:
    open_inputs = [name for name in dict.fromkeys(step.inputs.values()) if planned[name].state != "done"]
    if open_inputs:
        changes = list(_changes(_last(step, store, scope), _components(step, planned, store), inputs=False))
        if changes:
            return PlannedStep(step.step_name, "todo", "; ".join(changes))
        return PlannedStep(step.step_name, "waiting", f"computed if {_listed(open_inputs)} gives something new")
    components = _components(step, planned, store)
    key = digest_json(components)
    record = store.record(key)
    problem = store.problem(record.digest) if record else None
    if record and problem:
        return PlannedStep(step.step_name, "todo", f"its artifact {record.digest[:12]} {problem}")
    if record:
        return PlannedStep(step.step_name, "done", "", record)
    changes = list(_changes(_last(step, store, scope), components, inputs=True))
    return PlannedStep(step.step_name, "todo", "; ".join(changes) or "its record is gone")


def _components(step: Step, planned: dict[str, PlannedStep], store: Store) -> dict[str, Any]:
    """Return the key's components; inputs that are not there yet have an empty digest."""
    known: dict[str, Artifact] = {}
    for argument, name in step.inputs.items():
        record = planned[name].record
        known[argument] = store.handle(record.digest if record else "")
    return key_components(step, known)


def _last(step: Step, store: Store, scope: str) -> dict[str, Any] | None:
    key = store.latest(scope, step.step_name)
    record = store.record(key) if key else None
    return record.components if record else None


def _changes(before: dict[str, Any] | None, now: dict[str, Any], *, inputs: bool) -> Iterator[str]:
    """Yield each difference in words."""
    if before is None:
        yield "never computed"
        return
    for path, old, new in _differences(before["parameters"], now["parameters"]):
        yield f"{path} {old} -> {new}"
    if before["fingerprint"] != now["fingerprint"]:
        yield "its source has new content"
    edited = [module for module, *_ in _differences(before["sources"], now["sources"], nested=False)]
    if edited:
        yield f"code of {_listed(edited)} was edited"
    for library, old, new in _differences(before["libraries"], now["libraries"]):
        yield f"{library} {old} -> {new}"
    if inputs and before["inputs"] != now["inputs"]:
        changed = [name for name, *_ in _differences(before["inputs"], now["inputs"], nested=False)]
        yield f"new input: {_listed(changed)}"


def _differences(old: Any, new: Any, path: str = "", *, nested: bool = True) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted path, old, new) for every leaf in which two JSON values differ."""
    if nested and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({_label(item, i): item for i, item in enumerate(items)} for items in (old, new))
    if isinstance(old, dict) and isinstance(new, dict) and (nested or not path):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key), nested=nested)
    elif old != new:
        yield path, _short(old), _short(new)


def _label(item: Any, position: int) -> str:
    """Return what a list's item is called in a path: its own name where it has one."""
    return str(item["name"]) if isinstance(item, dict) and isinstance(item.get("name"), str) else str(position)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
