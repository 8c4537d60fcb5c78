"""`ftlib list`, `show` and `schema`: what there is, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ftlib.plugins import Plugin, Section


def list_(
    family: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="strategies, problems, fusions or sources; everything unless given.",
            show_default=False,
        ),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", metavar="", help="Show which strategies and fusions go with which problem.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the matrix to a JSON file.", show_default=False),
    ] = None,
) -> None:
    """List strategies, problems, fusions and sources.

    With --matrix: which strategy trains which problem, which fusion combines its predictions, and why others do not.
    """
    from flows.show import catalogue, console

    if matrix or json_file:
        _matrices(family, json_file)
        return
    families = _families()
    chosen = families if family is None else {family: _family(family)}
    out = console()
    for i, (name, base) in enumerate(chosen.items()):
        entries = [(plugin, _first_line(base.named(plugin).card())) for plugin in base.available()]
        if i:
            out.print()
        out.print(catalogue(name, entries))
    out.print("\n[dim]`ftlib show strategy lora` tells what one of them is, when it helps and what it takes.[/]")


def _matrices(family: str | None, json_file: Path | None) -> None:
    from flows.show import compatibility, console
    from ftlib import compatibility as known
    from ftlib.errors import ParamsError
    from ftlib.files import write_json
    from ftlib.plugins import plural

    makers = {"strategies": known.strategies, "fusions": known.fusions}
    asked = plural(_family(family).kind) if family else "problems"
    if asked not in (*makers, "problems"):
        raise ParamsError(f"list {asked} --matrix: there is one of strategies and one of fusions, each with problems.")
    chosen = [make() for name, make in makers.items() if asked in (name, "problems")]
    out = console()
    for i, each in enumerate(chosen):
        if i:
            out.print()
        for part in compatibility(each, out.width):
            out.print(part)
    if json_file:
        write_json(json_file, {each.kind: each.dump() for each in chosen})


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="strategy, problem, fusion or source; a section of a params file; or a name alone.",
            show_default=False,
        ),
    ],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one.", show_default=False)] = None,
) -> None:
    """Show what one of them is, and its parameters.

    Types, defaults and what each parameter trades; also of a section of params files.
    """
    from flows.show import card, console
    from ftlib.errors import ParamsError

    out = console()
    if name is not None:
        base = _family(what)
        out.print(card(f"{base.kind} {name}", base.named(name).card(), _parameters(base.named(name))))
        return
    if what in _sections():
        section = _sections()[what]
        out.print(card(f"section {what}", section.__doc__ or "", _parameters(section)))
        return
    found = [base for base in _families().values() if what in base.available()]
    for base in found:
        out.print(card(f"{base.kind} {what}", base.named(what).card(), _parameters(base.named(what))))
    if not found:
        raise ParamsError(_unknown(what))


def schema() -> None:
    """Print the JSON Schema of params files.

    With it, editors complete and check them.
    """
    import json

    from ftlib.params.experiment import Experiment

    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False))


def _families() -> dict[str, type[Plugin]]:
    """Return every family of plugins that a params file chooses from, by its plural."""
    import ftlib.params.experiment  # noqa: F401  its imports bring the families in
    from ftlib.plugins import Plugin, plural

    return {plural(base.kind): base for base in sorted(Plugin.__subclasses__(), key=lambda base: base.kind)}


def _family(name: str) -> type[Plugin]:
    from ftlib.errors import ParamsError, unknown

    families = _families()
    by_either = {**families, **{base.kind: base for base in families.values()}}
    if name not in by_either:
        raise ParamsError(unknown("kind", name, families))
    return by_either[name]


def _sections() -> dict[str, type[Section]]:
    """Return the sections of a params file by their keys, the experiment itself among them."""
    from ftlib.params.experiment import Experiment, FusionMethod, Stage
    from ftlib.params.shapes import section_of
    from ftlib.plugins import Plugin

    sections: dict[str, type[Section]] = {"experiment": Experiment, "stages": Stage, "fusions": FusionMethod}
    for key, field in Experiment.model_fields.items():
        section = section_of(field.annotation)
        if section and not issubclass(section, Plugin):
            sections[key] = section
    return sections


def _parameters(section: type[Section]) -> list[tuple[str, str, str, str]]:
    """Return (key, type, default, description) of everything a section takes."""
    from ftlib.params.shapes import expected
    from ftlib.plugins import Section as AnySection

    rows = []
    for key, field in section.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, AnySection):
            shown = "see `ftlib show " + key + "`"
        else:
            shown = "required" if field.is_required() else _written(default)
        rows.append((key, expected(field.annotation, field.metadata), shown, field.description or ""))
    return rows


def _written(value: object) -> str:
    """Return a default as a params file would spell it."""
    import json

    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'


def _unknown(what: str) -> str:
    from ftlib.errors import unknown

    families = _families()
    names = {name for base in families.values() for name in base.available()}
    return unknown(
        "name", what, {*names, *_sections(), *(b.kind for b in families.values())}, remedy="`ftlib list` names all."
    )


def _first_line(card: str) -> str:
    """Return a card's first sentence, without the plugin's own name before the colon."""
    paragraph = " ".join(card.partition("\n\n")[0].split())
    _, colon, rest = paragraph.partition(": ")
    line = rest if colon and len(rest) > 20 else paragraph
    return line[:1].upper() + line[1:]
