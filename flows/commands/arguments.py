"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Params = Annotated[Path, typer.Argument(metavar="PARAMS", help="A params file: one experiment in YAML.", show_default=False)]
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
