"""The errors a user can cause, each a clear line: what is wrong, what was expected, what to do.

FtlibError                 the command line prints its line; no traceback
├── ParamsError            a params file or an override is wrong            exit code 2
├── DataError              the user's rows or files are wrong               exit code 2
├── UnsupportedError       a strategy or fusion cannot do this problem      exit code 2
├── CheckpointError        a model cannot be had, opened or saved           exit code 2
├── ArtifactError          the store is damaged, locked or not reachable    exit code 1
└── TrackingError          MLflow refused; never stops training             exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FtlibError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 1


class ParamsError(FtlibError):
    """A params file, an override or an argument is wrong.

    Attributes:
        problems: One line a problem; all problems of a file are reported at once.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(FtlibError):
    """The user's rows, columns, labels or files are wrong."""

    exit_code = 2


class UnsupportedError(FtlibError):
    """A combination that the project refuses by name, before any work."""

    exit_code = 2


class CheckpointError(FtlibError):
    """A pretrained model or a checkpoint cannot be had, opened or saved."""

    exit_code = 2


class ArtifactError(FtlibError):
    """An artifact is missing or damaged, or the store cannot be used."""


class TrackingError(FtlibError):
    """MLflow cannot be reached or refused; the local record is kept and sent later."""


def unknown(kind: str, name: str, available: Iterable[str], *, remedy: str = "") -> str:
    """Return the line for an unknown name, with the near names.

    Args:
        kind: What the name stands for, as the user calls it: "strategy", "column".
        name: What was given.
        available: Every name that would have been right.
        remedy: A last sentence, such as the command that lists the names.
    """
    names = sorted(map(str, available))
    lowered = {n.lower(): n for n in reversed(names)}
    near = [lowered[n] for n in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.6)]
    line = f"unknown {kind} {str(name)!r}."
    if near:
        line += f" Did you mean {' or '.join(map(repr, near))}?"
    elif names:
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        line += f" Expected one of: {shown}."
    return f"{line} {remedy}".rstrip()
