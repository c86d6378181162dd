"""``pudnet site``: build the report from the results that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "Build the report site and reports/README.md from the results that are there, without running anything."


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.batch.site import build_site

    def site(
        profile: Annotated[str, typer.Option(help="laptop or paper: all committed results; smoke.")] = "laptop",
    ) -> None:
        typer.echo(str(build_site(profile)))

    return site
