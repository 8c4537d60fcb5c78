"""What `ftlib explain` prints and writes, from explanations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ftlib.errors import ParamsError

if TYPE_CHECKING:
    from ftlib.explaining.explain import Explanation

ENDINGS = (".html", ".jsonl")
FOR, AGAINST = ("#b1cee7", "#8db8db", "#68a0cd", "#2f73b0"), ("#f9dac5", "#f4c09d", "#eda374", "#e28649")
"""Grounds of words for the answer and against it, the stronger the darker."""


def check_output(output: Path | None) -> None:
    """Refuse a file whose ending says nothing (ParamsError)."""
    if output is not None and output.suffix not in ENDINGS:
        raise ParamsError(f"-o {output}: expected a file that ends in {' or '.join(ENDINGS)}.")


def write(output: Path, model: str, found: Sequence[Explanation]) -> None:
    """Write explanations as a page or as JSON lines.

    Raises:
        ParamsError: If the file cannot be written.
    """
    from ftlib.explaining.page import page

    text = page(model, found) if output.suffix == ".html" else "".join(f"{line}\n" for line in lines(found))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf8")
    except OSError as error:
        raise ParamsError(f"-o {output}: cannot be written ({error.strerror}).") from None


def lines(found: Sequence[Explanation]) -> Iterator[str]:
    """Yield one JSON object an explanation."""
    for one in found:
        yield json.dumps({**asdict(one), "gap": one.gap}, ensure_ascii=False, default=_plain)


def shown(one: Explanation) -> Iterator[Text]:
    """Yield the lines that a terminal shows of an explanation: the answer, the coloured text, the strongest words."""
    from ftlib.explaining.page import named, told, top

    yield Text.assemble((one.explained, "bold"), (f"  {told(one)}", "dim"))
    for name in one.texts:
        if named(one.texts):
            yield Text(name, "dim")
        yield _coloured(one, name)
    yield Text(top(one), "dim")
    yield Text("")


def _coloured(one: Explanation, column: str) -> Text:
    from ftlib.report.heat import step, strongest

    text = Text(one.texts[column])
    most = strongest(word.attribution for word in one.words)
    for word in one.words:
        if word.column == column and (level := step(word.attribution, most)):
            ground = (FOR if word.attribution > 0 else AGAINST)[min((level - 1) // 2, 3)]
            text.stylize(f"black on {ground}", word.start, word.end)
    return text


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
