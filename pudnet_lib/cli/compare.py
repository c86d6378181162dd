"""``pudnet compare``: what moved between two sets of results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Show which numbers moved beyond their 95 % intervals between two folders of result files."
DETAILS = (
    "Exit code: 0 nothing moved, 1 something moved, 2 bad input. Example: pudnet compare old/results reports/results"
)


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.batch.compare import compare

    def command(
        before: Annotated[Path, typer.Argument(help="The first folder of result files.")],
        after: Annotated[Path, typer.Argument(help="The second.")],
        everything: Annotated[bool, typer.Option("--all", help="List what stayed within its interval, too.")] = False,
    ) -> None:
        table = compare(before, after)
        shown = table if everything else table[table["status"] != "within"]
        counts = table["status"].value_counts()
        if len(shown):
            typer.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="—"))
        typer.echo(", ".join(f"{counts.get(word, 0)} {word}" for word in ("moved", "within", "new", "gone")))
        if counts.get("moved", 0):
            raise typer.Exit(1)

    return command
