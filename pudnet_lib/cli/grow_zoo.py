"""``pudnet grow-zoo``: train more of the networks whose parameters are correlated with their datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "Train more networks for the zoo of notebook 01; an interrupted run goes on where it stopped."
DETAILS = (
    "They lie in the cache folder, and notebook 01 and its widgets use them: "
    "pudnet reproduce parameter_correlations --grid train_episodes=1000"
)


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.studies.zoo_store import Initialisation, ZooConfig, load_zoo

    def grow_zoo(
        sources: Annotated[str, typer.Option(help="Packs, names or image folders, with commas.")] = (
            "fashion,emoji,glyphs"
        ),
        train_episodes: Annotated[int, typer.Option(help="Episodes of training classes wanted in all.")] = 1000,
        held_out_episodes: Annotated[int, typer.Option(help="Episodes of held-out classes wanted in all.")] = 300,
        seed: Annotated[int, typer.Option(help="Of episodes and initialisation.")] = 0,
    ) -> None:
        initialisations: tuple[Initialisation, ...] = ("same", "different")
        for source in sources.split(","):
            for initialisation in initialisations:
                zoo = load_zoo(ZooConfig(source.strip(), initialisation, seed=seed), train_episodes, held_out_episodes)
                typer.echo(
                    f"{source}, {initialisation} initialisation: {len(zoo.train.indices)} training and "
                    f"{len(zoo.held_out.indices)} held-out networks, {zoo.train.diverged + zoo.held_out.diverged} "
                    f"diverged and left out; {zoo.train.seconds + zoo.held_out.seconds:.0f} s of training"
                )

    return grow_zoo
