"""`ftlib store`: what the artifact store holds, whether it is whole, and making room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ftlib.artifacts import KeyRecord, Store

app = typer.Typer(
    help="The artifact store: list it, verify it, make room.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("ls", epilog="[dim]$[/] [bold cyan]ftlib store ls[/]")
def ls(
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="[EXPERIMENT]", help="Only what this experiment's newest run needs.", show_default=False
        ),
    ] = None,
) -> None:
    """List every artifact: its step, who uses it, its size and age."""
    from flows import show
    from ftlib import keeping, state
    from ftlib.errors import ParamsError, unknown

    store = state.store()
    used = keeping.uses(store)
    if experiment is not None and experiment not in {name for names in used.values() for name in names}:
        raise ParamsError(unknown("experiment", experiment, {name for names in used.values() for name in names}))
    records = _by_digest(store)
    rows = show.table("artifact", "step", "used by", "size", "took", "made", numbers=("size", "took"))
    total = 0
    digests = [d for d in store.digests() if experiment is None or experiment in used.get(d, ())]
    for digest in sorted(digests, key=lambda d: records[d].created if d in records else ""):
        record, size = records.get(digest), store.size(digest)
        total += size
        rows.add_row(
            digest[:12],
            record.step if record else "",
            ", ".join(sorted(used.get(digest, ()))) or "nothing",
            show.size(size),
            show.seconds(record.metrics.get("seconds")) if record else "",
            record.created[:16].replace("T", " ") if record else "",
        )
    out = show.console()
    if digests:
        out.print(rows)
    out.print(f"{len(digests)} artifacts, {show.size(total)}, in {store.url}", soft_wrap=True)


@app.command("verify", epilog="[dim]$[/] [bold cyan]ftlib store verify[/]")
def verify() -> None:
    """Read every file, and name what is missing or damaged.

    Exit code 1 if anything is; the next run computes it again.
    """
    from flows import show
    from ftlib import state

    store = state.store()
    with show.console(stderr=True).status(f"reading {len(store.digests())} artifacts"):
        damaged = store.verify()
    steps = {digest: record.step for digest, record in _by_digest(store).items()}
    for damage in damaged:
        typer.echo(f"{damage.digest[:12]} {steps.get(damage.digest, 'of an unknown step')}: {damage.problem}")
    if damaged:
        typer.echo(
            f"{len(damaged)} of {len(store.digests())} artifacts damaged or missing. The next run computes them again."
        )
        raise typer.Exit(1)
    typer.echo(f"All {len(store.digests())} artifacts are whole.")


@app.command("gc", epilog="[dim]$[/] [bold cyan]ftlib store gc --dry-run[/]")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only say what would go.")] = False,
) -> None:
    """Remove what no experiment's newest run needs.

    What is removed is computed again when a run asks for it.
    """
    from flows import show
    from ftlib import keeping, state

    store = state.store()
    steps = {digest: record.step for digest, record in _by_digest(store).items()}
    gone, freed = store.gc(keeping.needed(store), dry_run=dry_run)
    for digest in gone:
        typer.echo(f"{digest[:12]} {steps.get(digest, 'of an unknown step')}")
    freed_size = show.size(freed)
    if dry_run:
        typer.echo(f"{len(gone)} of {len(store.digests())} artifacts would go, and free {freed_size}.")
    else:
        typer.echo(f"{len(gone)} artifacts removed, {len(store.digests())} kept; {freed_size} freed.")


def _by_digest(store: Store) -> dict[str, KeyRecord]:
    return {record.digest: record for record in store.records()}
