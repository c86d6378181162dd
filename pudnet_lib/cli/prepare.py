"""``pudnet prepare``: a large image folder to one memory-mapped file a size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "Decode a large image folder (ImageNet-1K, say) once, in parallel; a run that was cut off goes on."
DETAILS = """Example: pudnet prepare imagenet --sizes 84,128,224

`load_images` and every experiment find the files by themselves; without them a folder is decoded when first loaded."""


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.errors import PudNetError
    from pudnet_lib.images.published import scan_any
    from pudnet_lib.images.reading import Reading, estimate, prepare
    from pudnet_lib.images.sources import find_folder

    def command(
        source: Annotated[str, typer.Argument(help="A name of `pudnet datasets`, or an image folder.")],
        sizes: Annotated[str, typer.Option(help="Heights in pixels, one file each.", metavar="N,…")] = "84",
        channels: Annotated[int, typer.Option(help="1 (gray) or 3 (RGB).")] = 3,
        workers: Annotated[int, typer.Option(help="Threads; 0 for one more than there are cores.")] = 0,
        only_estimate: Annotated[bool, typer.Option("--estimate", help="Print space and time, and stop.")] = False,
    ) -> None:
        try:
            wanted = [int(size) for size in sizes.split(",")]
        except ValueError:
            raise PudNetError(f"--sizes is {sizes!r}; expected whole numbers such as 84,128,224.") from None
        folder, name, licence, published = find_folder(source)
        listing = scan_any(folder, name)
        for size in wanted:
            how = Reading(size, channels, on_error="raise", workers=workers)
            typer.echo(f"{name} at {size} pixels: {estimate(listing, how)} in all")
            if not only_estimate:
                typer.echo(str(prepare(listing, folder, how, licence, published)))

    return command
