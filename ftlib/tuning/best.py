"""The best values laid into the params file that was searched, its comments kept where they can be."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from ftlib.errors import FtlibError
from ftlib.params.documents import Document
from ftlib.params.experiment import Experiment
from ftlib.params.loading import load_experiment, read_params
from ftlib.params.overriding import override

WIDTH = 10_000
"""Of lines: none is broken that was not."""


def laid_in(source: Path, changes: Sequence[str], *, header: Sequence[str] = ()) -> str:
    """Return a params file's text with changes laid in.

    Where the text with its comments would not be read as the same experiment, the plain values are written instead.

    Args:
        source: The file.
        changes: As --set takes them.
        header: Comment lines to go first.
    """
    wanted = load_experiment(source, changes)
    head = "".join(f"# {line}".rstrip() + "\n" for line in header)
    try:
        text = head + _with_comments(source, changes)
        if load_experiment(text) == wanted:
            return text
    except (FtlibError, ValueError):  # whatever a file holds that does not survive the round trip
        pass
    plain = read_params(source, changes).value
    return head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=WIDTH)


def _with_comments(source: Path, changes: Sequence[str]) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    handler = YAML()
    handler.preserve_quotes, handler.width = True, WIDTH
    handler.indent(mapping=2, sequence=4, offset=2)
    try:
        value: Any = handler.load(source.read_text(encoding="utf-8-sig"))
        for change in changes:
            override(Document(str(source), value), change, Experiment)
        written = StringIO()
        handler.dump(value, written)
    except YAMLError as error:
        raise ValueError(str(error)) from None
    return written.getvalue()
