"""Steps: values that know how to compute an artifact, and the cache keys that make computing twice needless.

A step's fields are its parameters; `run` writes its result into a draft. The key is the step's kind, its
parameters, its inputs' digests, the digest of the ftlib sources it uses and the versions of the
libraries that shape its result. One truth: the Prefect flow, `ftlib plan` and a worker elsewhere all
ask `step_key`.

A step imports what it uses inside its methods. That keeps start-up fast, and it is how the sources it uses
are known: the imports inside the class, followed through ftlib.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from ftlib.artifacts import Artifact, Draft, KeyRecord, Store
from ftlib.plugins import Section, plugins_in

INFRASTRUCTURE = frozenset(
    {"ftlib", "ftlib.artifacts", "ftlib.errors", "ftlib.plugins", "ftlib.progress", "ftlib.state", "ftlib.steps"}
)
"""Modules that shape no result: editing them recomputes nothing."""


class Step(Section):
    """One cached unit of work: its fields are its parameters, `run` computes its artifact.

    Attributes:
        step_name: Its name within the run, unique, such as "train-full".
        inputs: Argument of `run` -> name of the step whose artifact it receives.
    """

    step_name: str
    inputs: dict[str, str] = {}

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version shapes the result."""

    not_in_key: ClassVar[frozenset[str]] = frozenset()
    """Fields that shape no result, such as where a file lies (its content is in the fingerprint)."""

    @classmethod
    def kind(cls) -> str:
        """Return the step's kind, such as "train": the name of its Prefect task."""
        return cls.__name__.lower()

    def fingerprint(self) -> str:
        """Return a digest of what the step reads from outside the store, such as the source files."""
        return ""

    def run(self, draft: Draft, **inputs: Path) -> None:
        """Write the result into ``draft.folder``. `inputs` are the opened folders of the input artifacts."""
        raise NotImplementedError

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that enter the key, as plain values."""
        return self.model_dump(mode="json", exclude={"step_name", "inputs", *self.not_in_key})


@dataclass(frozen=True)
class Outcome:
    """What executing a step gave.

    Attributes:
        artifact: The result.
        cached: Whether it was there already.
        record: The key's record: seconds and figures of the run that computed it.
    """

    artifact: Artifact
    cached: bool
    record: KeyRecord


def key_components(step: Step, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what a step's cache key is made of, as JSON values."""
    return {**own_components(step), "inputs": {name: inputs[name].digest for name in sorted(step.inputs)}}


def own_components(step: Step) -> dict[str, Any]:
    """Return what of a step's cache key is known before its inputs are."""
    return {
        "step": step.kind(),
        "parameters": step.parameters(),
        "fingerprint": step.fingerprint(),
        "sources": source_digests(step),
        "libraries": {name: version(name) for name in libraries_of(step)},
    }


def libraries_of(step: Step) -> tuple[str, ...]:
    """Return the distributions whose version shapes a step's result: its own, and those of its plugins."""
    return tuple(dict.fromkeys((*step.libraries, *(name for p in plugins_in(step) for name in p.libraries))))


def step_key(step: Step, inputs: Mapping[str, Artifact]) -> str:
    """Return a step's cache key, hex. A key that cannot be computed is an error, never an uncached run."""
    return digest_json(key_components(step, inputs))


def execute(step: Step, inputs: Mapping[str, Artifact], store: Store, *, scope: str) -> Outcome:
    """Return the step's artifact, computing it only where no run has done so.

    Args:
        step: What to compute.
        inputs: Argument name -> artifact, for every name in ``step.inputs``.
        store: Where artifacts are.
        scope: The experiment's name, under which `ftlib plan` finds the newest key.
    """
    components = key_components(step, inputs)
    key = digest_json(components)
    record = store.lookup(key)
    cached = record is not None
    if record is None:
        with store.lock(key):
            record = store.lookup(key)  # somebody else may have computed it while we waited
            cached = record is not None
            record = record or _compute(step, inputs, store, key, components)
    store.point_latest(scope, step.step_name, key)
    return Outcome(store.handle(record.digest), cached, record)


def needed_for(wanted: str, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return a step and all that it is made from, directly or not, in the order in which they are given."""
    by_name = {step.step_name: step for step in steps}
    needed: set[str] = set()
    waiting = [wanted]
    while waiting:
        needed.add(last := waiting.pop())
        waiting += [name for name in by_name[last].inputs.values() if name not in needed]
    return tuple(step for step in steps if step.step_name in needed)


def executed(steps: Iterable[Step], store: Store, *, scope: str) -> Iterator[tuple[Step, Outcome]]:
    """Execute steps in order, each before it is asked for, and yield each with its outcome.

    Args:
        steps: Each after those whose artifacts it receives.
        store: Where artifacts are.
        scope: See `execute`.
    """
    done: dict[str, Artifact] = {}
    for step in steps:
        inputs = {argument: done[source] for argument, source in step.inputs.items()}
        outcome = execute(step, inputs, store, scope=scope)
        done[step.step_name] = outcome.artifact
        yield step, outcome


def _compute(
    step: Step, inputs: Mapping[str, Artifact], store: Store, key: str, components: dict[str, Any]
) -> KeyRecord:
    started = time.perf_counter()
    folders = {name: store.open(inputs[name]) for name in step.inputs}
    with store.draft(key) as draft:
        step.run(draft, **folders)
        artifact = store.commit(draft)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    metrics = {**draft.metrics, "seconds": time.perf_counter() - started, "peak_memory_bytes": float(peak)}
    record = KeyRecord(
        key=key,
        digest=artifact.digest,
        step=step.step_name,
        components=components,
        metrics=metrics,
        details=draft.details,
        created=datetime.now(UTC).isoformat(),
    )
    store.remember(record)
    return record


def digest_json(value: Any) -> str:
    """Return the sha256 of a JSON value, hex: key order does not matter, NaN is refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# -- the sources a step uses ---------------------------------------------------------------------------


def source_digests(step: Step) -> dict[str, str]:
    """Return module -> digest of its text, for the step's own class and every ftlib module it uses.

    That is: what the class imports, the modules of the plugins among its parameters, and what these import.
    """
    used = closure({*_class_imports(type(step)), *(type(p).__module__ for p in plugins_in(step))})
    digests = {module: _file_digest(module) for module in sorted(used - INFRASTRUCTURE)}
    return {type(step).__name__: _class_digest(type(step)), **digests}


def closure(modules: Iterable[str]) -> set[str]:
    """Return these modules and every ftlib module that they import, directly or not, lazily or not."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            if module not in INFRASTRUCTURE:
                waiting += imports_of(module)
    return reached


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the ftlib modules that a module's source imports, anywhere in it."""
    return frozenset(_ftlib_imports(ast.parse(_source(module))))


def _ftlib_imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {n for n in names if n.partition(".")[0] == "ftlib" and _is_module(n)}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that can run: what stands below ``if TYPE_CHECKING`` never does."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _nodes(node)


@cache
def _is_module(name: str) -> bool:
    return _path(name) is not None


@cache
def _path(module: str) -> Path | None:
    """Return a module's file without importing it (importlib's find_spec imports its parents)."""
    root = Path(__file__).parent.parent
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    if module.partition(".")[0] == "ftlib":
        return None
    spec = importlib.util.find_spec(module)  # a plugin from another package
    return Path(spec.origin) if spec and spec.origin else None


def _source(module: str) -> str:
    path = _path(module)
    if path is None:
        raise LookupError(f"no source for module {module}")
    return path.read_text(encoding="utf8")


@cache
def _file_digest(module: str) -> str:
    return hashlib.sha256(_source(module).encode()).hexdigest()[:16]


@cache
def _class_node(cls: type) -> tuple[ast.ClassDef, str]:
    source = _source(cls.__module__)
    [node] = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
    return node, ast.get_source_segment(source, node) or ""


def _class_imports(cls: type) -> set[str]:
    return _ftlib_imports(_class_node(cls)[0])


def _class_digest(cls: type) -> str:
    return hashlib.sha256(_class_node(cls)[1].encode()).hexdigest()[:16]
