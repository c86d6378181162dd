"""``pudnet strip``: notebooks as they are committed, without outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Remove outputs and execution counts from notebooks, in place, as they are committed."


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.batch.notebook import strip_file

    def strip(notebooks: Annotated[list[Path], typer.Argument(help="Notebook files.")]) -> None:
        for path in notebooks:
            print(f"{path}: {'stripped' if strip_file(path) else 'clean already'}")

    return strip
