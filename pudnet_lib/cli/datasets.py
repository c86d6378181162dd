"""``pudnet datasets``: what ``load_images`` knows by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "List the image datasets that are known by name; any folder of images is one, too."


def build() -> Callable[..., None]:
    """Build the command."""
    import pandas as pd

    from pudnet_lib.datasets import load_images
    from pudnet_lib.datasets.packs import pack_names

    def datasets(
        names: Annotated[
            list[str] | None, typer.Argument(help="Names or folders; by default the embedded ones.")
        ] = None,
    ) -> None:
        lines = []
        for name in names or pack_names():
            data = load_images(name, split="all")
            lines.append({
                "name": name,
                "images": len(data),
                "classes": data.num_classes,
                "a class": f"{int(data.class_counts().min())} to {int(data.class_counts().max())}",
                "licence": data.licence,
            })  # fmt: skip
        typer.echo(pd.DataFrame(lines).to_string(index=False))

    return datasets
