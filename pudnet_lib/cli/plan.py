"""``pudnet plan``: what the large-scale experiment costs on this machine and on GPUs, before it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

HELP = "Estimate hours, memory, disk and cost of notebook 04's profile before it starts."
DETAILS = "Work is counted exactly; this machine is measured for some seconds; GPUs are assumed, as the output says."


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.errors import unknown_name
    from pudnet_lib.results import device_name
    from pudnet_lib.studies import imagenet, imagenet_plan

    def command(
        profile: Annotated[str, typer.Option(help="smoke, laptop or paper.")] = "paper",
        seconds: Annotated[float, typer.Option(help="How long this machine is measured.")] = 3.0,
    ) -> None:
        if profile not in imagenet.PROFILES:
            raise unknown_name("profile", profile, imagenet.PROFILES)
        config = imagenet.PROFILES[profile]
        work = imagenet_plan.work(config)
        total, meta = float(work["flops"].sum()), work[work["memory_gb"].notna()]
        rate = imagenet_plan.measured_rate(config, seconds)
        images = {"imagenet": 1_331_167, "tiny-imagenet": 110_000}.get(config.source, 0)
        disk = images * config.target.channels * config.size**2 / 1e9
        typer.echo(f"Profile {profile}: {config.source} at {config.size} pixels, {config.target}")
        typer.echo(f"Prepared images: {disk:.1f} GB on disk (pudnet prepare {config.source} --sizes {config.size})")
        for row in work.to_dict(orient="records"):
            typer.echo(f"  {row['run']:32} {row['steps']:>6,} steps or epochs  {row['flops'] / 1e15:12.4f} PFLOP")
        typer.echo(f"Work: {total / 1e15:,.3f} PFLOP in {len(work)} runs")
        typer.echo(
            f"Memory a rank: {meta['memory_gb'].max():.1f} GB in 32 bit (activations halve in bf16); "
            f"{meta['intensity'].min():.0f} to {meta['intensity'].max():.0f} operations a byte"
        )
        typer.echo(f"This machine: {rate / 1e9:,.1f} GFLOP/s, measured")
        cases = imagenet_plan.UTILISATION
        typer.echo(
            f"GPUs: assumed {100 * cases['expected']:.0f} % of their bf16 peak ({100 * cases['good']:.0f} % in a good "
            f"case, {100 * cases['bad']:.0f} % in a bad one); eight reach {100 * imagenet_plan.EIGHT:.0f} % of eight "
            "times the speed; prices an hour: "
            + ", ".join(f"{gpu.name} ${gpu.dollars:.2f}" for gpu in imagenet_plan.GPUS)
        )
        for row in imagenet_plan.hours(total, rate, device_name()).to_dict(orient="records"):
            case = "" if row["good_hours"] != row["good_hours"] else (
                f" ({row['good_hours']:,.2f} to {row['bad_hours']:,.2f} h), about ${row['dollars']:,.0f}"
            )  # fmt: skip
            typer.echo(f"  {row['machine']:48} {row['hours']:12,.2f} h{case}")
        typer.echo(f"One GPU:    pudnet imagenet-train --profile {profile}")
        if config.episodes_per_step % 8 == 0:
            typer.echo(f"Eight GPUs: torchrun --nproc-per-node 8 -m pudnet_lib imagenet-train --profile {profile}")

    return command
