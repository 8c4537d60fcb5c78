"""Arguments that several commands share, and the file that ``--json`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Params = Annotated[
    Path, typer.Argument(metavar="PARAMS", help="A params file: one experiment in YAML.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one value for this time, such as [cyan]stages.lora.strategy.r=16[/]. May be repeated.",
        show_default=False,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="COLUMN=SOURCE",
        help="Where the file calls a column otherwise than the model: [cyan]text=message[/]. May be repeated.",
        show_default=False,
    ),
]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write what ``--json FILE`` asks for.

    Raises:
        ParamsError: If the file cannot be written.
    """
    import json

    from ftlib.errors import ParamsError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    except OSError as error:
        raise ParamsError(f"--json {path}: cannot be written ({error.strerror}).") from None
