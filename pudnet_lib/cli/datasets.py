"""``pudnet datasets``: what ``load_images`` knows by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "List the image datasets that are known by name; any folder of images is one, too."
DETAILS = (
    "With names or folders: count their images, which decodes them once. Example: pudnet datasets fashion ./pictures"
)


def build() -> Callable[..., None]:
    """Build the command."""
    from rich.console import Console
    from rich.table import Table

    from pudnet_lib.datasets import ImageDataset, SourceInfo, list_sources, load_images

    def known(sources: list[SourceInfo]) -> Table:
        table = Table("name", "classes", "images", "size", "licence", "there", "looked for in", "how to get it")
        for s in sources:
            cells = (s.name, f"{s.classes:,}", f"{s.images:,}", s.size, s.licence)
            table.add_row(*cells, "yes" if s.available else "no", s.place, s.how_to_get)
        return table

    def counted(found: list[ImageDataset]) -> Table:
        table = Table("name", "images", "classes", "images a class", "licence")
        for data in found:
            counts = data.class_counts()
            a_class = f"{int(counts.min())} to {int(counts.max())}"
            table.add_row(data.name, f"{len(data):,}", f"{data.num_classes:,}", a_class, data.licence)
        return table

    def datasets(
        names: Annotated[list[str] | None, typer.Argument(help="Names or folders to count; by default none.")] = None,
    ) -> None:
        table = counted([load_images(name, split="all") for name in names]) if names else known(list_sources())
        table.title = (
            None if names else "Also any folder of class folders, by its path. PUDNET_DATA names the data folder."
        )
        console = Console(markup=False, highlight=False)
        # A table in a file or a pipe is as wide as it has to be: cells that are cut in lines can't be searched.
        console.print(table, soft_wrap=False, width=None if console.is_terminal else 240)

    return datasets
