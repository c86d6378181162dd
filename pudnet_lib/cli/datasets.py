"""``pudnet datasets``: what ``load_images`` knows by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "List the image datasets that are known by name; any folder of images is one, too."
DETAILS = (
    "With names or folders: count their images, which decodes them once. Example: pudnet datasets fashion ./pictures"
)
WIDE = 400  # columns of the table in a file or a pipe, where a cell cut in lines could not be searched


def build() -> Callable[..., None]:
    """Build the command."""
    from rich.console import Console
    from rich.table import Table

    from pudnet_lib.core.dataset import ImageDataset
    from pudnet_lib.images import SourceInfo, list_sources, load_images
    from pudnet_lib.images.cache import data_folder

    def table(*headers: str) -> Table:
        made = Table(box=None, pad_edge=False)
        for header in headers:
            made.add_column(header, overflow="fold", justify="right" if header in ("classes", "images") else "left")
        return made

    def known(sources: list[SourceInfo]) -> Table:
        made = table("name", "classes", "images", "size", "there", "licence", "looked for in", "how to get it")
        for kind in dict.fromkeys(s.kind for s in sources):
            for s in (s for s in sources if s.kind == kind):
                place = s.place.removeprefix(str(data_folder())).lstrip("/\\")
                cells = (s.name, f"{s.classes:,}", f"{s.images:,}", s.size, "yes" if s.available else "no")
                made.add_row(*cells, s.licence, place, s.how_to_get)
            made.add_section()
        return made

    def counted(found: list[ImageDataset]) -> Table:
        made = table("name", "classes", "images", "images a class", "licence")
        for data in found:
            counts = data.class_counts()
            a_class = f"{int(counts.min())} to {int(counts.max())}"
            made.add_row(data.name, f"{data.num_classes:,}", f"{len(data):,}", a_class, data.licence)
        return made

    def datasets(
        names: Annotated[list[str] | None, typer.Argument(help="Names or folders to count; by default none.")] = None,
    ) -> None:
        console = Console(markup=False, highlight=False)
        if not console.is_terminal:
            console = Console(markup=False, highlight=False, width=WIDE)
        if names:
            console.print(counted([load_images(name, split="all") for name in names]))
            return
        console.print(known(list_sources()))
        console.print(f"\nPlaces are below {data_folder()} (PUDNET_DATA names another folder), or in the package.")
        console.print("Any folder of class folders, or of train/ and test/ with them, loads by its path.")

    return datasets
