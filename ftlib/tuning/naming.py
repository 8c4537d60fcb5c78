"""What people read of a trial: its parameters by their shortest names, its values in few digits, its end in a word."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

STATES = {"complete": "", "pruned": "given up", "failed": "failed"}
"""How a trial's end is told; that it is complete goes without saying."""


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return, for each params path, the fewest of its last keys that no other one ends in."""
    keys = {path: path.split(".") for path in paths}
    return {path: _shortest(path, keys) for path in keys}


def _shortest(path: str, keys: dict[str, list[str]]) -> str:
    own = keys[path]
    for length in range(1, len(own)):
        ending = own[-length:]
        if not any(other != path and found[-length:] == ending for other, found in keys.items()):
            return ".".join(ending)
    return path


def shown(value: Any) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
