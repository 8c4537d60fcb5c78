"""Options of the benchmarks that take several names at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

from ftlib.errors import unknown


def some_of(kind: str, names: Collection[str]) -> Callable[[str], list[str]]:
    """Return argparse's `type` for an option that takes some of the names, with commas between them.

    Args:
        kind: What a name stands for: "method".
        names: All there are; any other is refused.
    """

    def read(text: str) -> list[str]:
        given = text.split(",")
        for name in given:
            if name not in names:
                raise argparse.ArgumentTypeError(unknown(kind, name, names))
        return given

    return read
