"""``pudnet check``: what the kit understood of a folder of images, before anything is predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Show what is understood of an image folder or zip: classes, split, copies, odd pictures, what is passed over."
DETAILS = "Example: pudnet check ./pictures --sheet sheet.png. Exit code 0 where it can be used, 2 where it can't."


def build() -> Callable[..., None]:
    """Build the command."""
    import json
    import sys

    from pudnet_lib.images.check import checked, contact_sheet

    def command(
        folder: Annotated[str, typer.Argument(help="Image folder, zip of one, or a name of `pudnet datasets`.")],
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
        sheet: Annotated[Path | None, typer.Option(help="Draw the first pictures of each class into this PNG.")] = None,
    ) -> None:
        report, images = checked(folder, progress=sys.stderr.isatty())
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False) if as_json else str(report))
        if sheet is not None:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(images).savefig(sheet)

    return command
