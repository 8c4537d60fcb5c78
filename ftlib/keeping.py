"""Which artifacts are still needed: those of every experiment's newest run, and what these were made from."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.artifacts import KeyRecord, Store


def needed(store: Store) -> set[str]:
    """Return the digests that garbage collection keeps."""
    return set(uses(store))


def uses(store: Store) -> dict[str, set[str]]:
    """Return digest -> the experiments whose newest run needs it, directly or through what was made from it."""
    makers: dict[str, list[KeyRecord]] = defaultdict(list)
    for record in store.records():
        makers[record.digest].append(record)
    users: dict[str, set[str]] = defaultdict(set)
    for experiment, step in _pointers(store):
        key = store.latest(experiment, step)
        newest = store.record(key) if key else None
        waiting = [newest.digest] if newest else []
        while waiting:
            digest = waiting.pop()
            if experiment not in users[digest]:
                users[digest].add(experiment)
                waiting += [d for maker in makers[digest] for d in maker.components["inputs"].values()]
    return dict(users)


def _pointers(store: Store) -> list[tuple[str, str]]:
    """Return (experiment, step) for every pointer to a newest key."""
    root = f"{store.root}/latest"
    if not store.fs.exists(root):
        return []
    paths = (path[len(root) + 1 :] for path in store.fs.find(root))
    return [(path.partition("/")[0], path.partition("/")[2]) for path in paths if "/" in path]
