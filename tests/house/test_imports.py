"""The import rule of docs/architecture.md, read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(p for top in ("ftlib", "tasks", "flows") for p in (ROOT / top).rglob("*.py"))
HEAVY = {"torch", "transformers", "mlflow", "datasets", "pandas", "prefect", "sklearn", "scipy", "matplotlib", "peft"}
PLUGIN_FOLDERS = ("problems", "strategies", "fusion", "data/sources")
LAYERS = [
    {"errors", "progress", "files"},
    {"plugins", "artifacts", "steps", "state", "models.layers", "training.precision", "training.course", "targets"},
    {"problems", "strategies", "fusion", "data"},
    {"models"},
    {"training", "prediction", "evaluation", "serving"},
]


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf8"))
    nodes = list(_runtime_nodes(tree.body)) if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def _runtime_nodes(body: list[ast.stmt]):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _runtime_nodes(node.body)
        yield node


def tops(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    part = path.relative_to(ROOT).parts[0]
    allowed = {"flows": {"flows", "tasks", "ftlib"}, "tasks": {"tasks", "ftlib"}, "ftlib": {"ftlib"}}[part]
    assert tops(imported(path)) & {"flows", "tasks", "ftlib", "tests", "benchmarks"} <= allowed


@pytest.mark.parametrize("path", [p for p in FILES if "ftlib" in p.relative_to(ROOT).parts[:1]], ids=str)
def test_the_library_does_not_know_prefect(path: Path):
    assert "prefect" not in tops(imported(path))


def test_only_tracking_and_the_served_model_import_mlflow():
    users = {p.relative_to(ROOT).parts[1] for p in FILES if "mlflow" in tops(imported(p))}
    assert users <= {"tracking", "serving"}


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_plugins_of_a_folder_do_not_import_each_other(folder: str):
    package = f"ftlib.{folder.replace('/', '.')}"
    for path in (ROOT / "ftlib" / folder).glob("[a-z]*.py"):
        siblings = {n for n in imported(path) if n.startswith(f"{package}.")}
        names = {n.removeprefix(f"{package}.").partition(".")[0] for n in siblings}
        assert all(n == "base" or n.startswith("_") for n in names), f"{path.name} imports {names}"


def layer_of(module: str) -> int | None:
    """Return a module's layer: its own where it is named, else its package's."""
    parts = module.split(".")[1:]
    for name in (".".join(parts[:2]), parts[0]):
        found = next((i for i, names in enumerate(LAYERS) if name in names), None)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(ROOT).parts[0] == "ftlib"], ids=lambda p: p.stem)
def test_library_layers_import_downwards_when_loaded(path: Path):
    own = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    for name in imported(path, top_level_only=True):
        if name.startswith("ftlib."):
            other = layer_of(name)
            assert other is None or other <= own, f"{path.name} loads {name}, which lies above it"


def test_the_command_line_and_every_plugin_load_without_heavy_libraries():
    """A module that imports torch when it is loaded may only be imported where it is used."""
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
    plugins = [m for m in modules for f in PLUGIN_FOLDERS if m.startswith(f"ftlib.{f.replace('/', '.')}.")]
    waiting = ["flows.cli", "flows.graph", "ftlib.planning", *plugins]
    reached: dict[str, str] = dict.fromkeys(waiting, "")
    while waiting:
        module = waiting.pop()
        names = imported(modules[module], top_level_only=True)
        assert not tops(names) & HEAVY, f"{module} (loaded by {reached[module]}) imports {tops(names) & HEAVY}"
        for name in names & modules.keys() - reached.keys():
            reached[name] = module
            waiting.append(name)


def test_every_module_and_public_name_has_a_docstring():
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf8"))
        if tree.body and not ast.get_docstring(tree):
            bare.append(str(path))
        for node in tree.body:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path}:{node.name}")
    assert bare == []
