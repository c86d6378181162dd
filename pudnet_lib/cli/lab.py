"""``pudnet lab``: JupyterLab on the kit's notebooks, in this environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "Open JupyterLab on the notebooks; they use this environment, whatever kernels are installed elsewhere."
DETAILS = "Further options go to JupyterLab after --, such as: pudnet lab -- --no-browser --port=8899"


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.batch.lab import start_lab

    def lab(options: Annotated[list[str] | None, typer.Argument(help="Options for JupyterLab.")] = None) -> None:
        raise typer.Exit(start_lab(options or []))

    return lab
