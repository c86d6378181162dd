"""``pudnet reproduce``: run notebooks in batch and build the report site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Run all or some notebooks, keep their results and build the report site; a killed batch goes on where it was."
DETAILS = """Examples:

pudnet reproduce --profile laptop

pudnet reproduce 02 06 --grid width=8,16,64 --seeds 0,1,2 --jobs 2

pudnet reproduce --profile paper --engine dask --scheduler tcp://head:8786 --gpus 1

A notebook is skipped if neither its cells, the package, its parameters nor the installed versions have changed. One
that fails does not stop the others; its executed copy, with the traceback, is kept and linked from the report.

Exit code: 0 all done, 1 a notebook failed, 2 bad input."""


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.batch.batch import BatchConfig, reproduce
    from pudnet_lib.batch.places import project_root
    from pudnet_lib.batch.site import build_site
    from pudnet_lib.cli.options import parse_grid, with_options
    from pudnet_lib.cli.progress import show_progress

    @with_options(BatchConfig, "config")
    def command(
        config: BatchConfig,
        notebooks: Annotated[list[str] | None, typer.Argument(help="Paths, names or numbers; by default all.")] = None,
        grid: Annotated[
            list[str] | None,
            typer.Option(help="Fan out: name=value,value… of a parameter or config field.", metavar="NAME=VALUE,…"),
        ] = None,
        out_dir: Annotated[Path | None, typer.Option(help="Where runs are kept; by default reports/runs.")] = None,
    ) -> None:
        runs = reproduce(notebooks or (), config, parse_grid(grid or ()), out_dir, show_progress)
        page = build_site(config.profile, runs_dir=out_dir)
        failed = [run for run in runs if run.status != "ok"]
        for run in failed:
            typer.echo(f"{run.name} failed: {run.error}", err=True)
        root = project_root()
        typer.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are done; the report: "
                   f"{page.relative_to(root) if page.is_relative_to(root) else page}")  # fmt: skip
        if failed:
            raise typer.Exit(1)

    return command
