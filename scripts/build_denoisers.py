"""Meta-train the denoisers that ship with the kit, measure them with all controls, and write their cards.

    python scripts/build_denoisers.py                   # resumes where it was cut off; about 10 minutes on a quiet core
    python scripts/build_denoisers.py --train denoiser  # meta-train one of them only
    python scripts/build_denoisers.py --cards           # measure what has been trained, without training

Meta-training sees the training classes of the embedded packs and photographs that come with scikit-image and
scikit-learn; the classes and photographs of the tables take no part.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import NoisyEpisodeConfig
from pudnet_lib.denoise.sources import BUNDLED, PHOTOGRAPHS, TEXTURES
from pudnet_lib.denoise.train import DENOISER_META, DenoiserTrainConfig, train_denoiser
from pudnet_lib.export.models import load_model
from pudnet_lib.results import atomic_write, device_name, git_commit
from pudnet_lib.shipped import shipped_models
from pudnet_lib.studies import denoising

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "pudnet_lib" / "shipped"
RUNS = ROOT / "runs" / "denoisers"
PUDNET = PudNetConfig(TargetConfig("unet", 12), dim=64, generator_width=12, residual=True, pooling="mean_std")
CONFIGS: dict[str, DenoiserTrainConfig] = {}
# The base takes the first half of the steps; the shared U-Net, the control, gets as many steps as both parts together.
for name, loss, steps in (("denoiser", "supervised", 2250), ("denoiser_blind", "blind_spot", 1000)):
    CONFIGS[name] = DenoiserTrainConfig(
        pudnet=PUDNET,
        episodes=NoisyEpisodeConfig(loss=loss),
        meta=replace(DENOISER_META, steps=steps),
        base_steps=steps,
    )
    CONFIGS[f"{name}_shared"] = replace(
        CONFIGS[name],
        kind="shared",
        meta=replace(DENOISER_META, steps=2 * steps, direct_learning_rate=5e-3),
        base_steps=0,
    )


def train(name: str) -> None:
    outcome = train_denoiser(CONFIGS[name], RUNS / name, progress=False)
    assert outcome.model_path is not None
    print(f"{name}: {outcome.steps} steps, {outcome.seconds:.0f} s", flush=True)
    shutil.copyfile(outcome.model_path, SHIPPED / f"{name}.safetensors")


TITLES = {
    "denoiser": "Denoiser: predicts a U-Net of width 12 from noisy images; meta-trained with clean images",
    "denoiser_shared": "Shared U-Net, the control of `denoiser`: same episodes, loss and steps, no hypernetwork",
    "denoiser_blind": "Denoiser with the paper's Noise2Void meta-training: no clean image was used",
    "denoiser_blind_shared": "Shared U-Net, the control of `denoiser_blind`: same episodes, loss and steps",
}


def measure() -> pd.DataFrame:
    """Denoise unseen classes and held-out photographs with all of them; the experiment's table without slow rivals."""
    laptop = denoising.PROFILES["laptop"]
    return denoising.run(replace(laptop, trained_sigmas=(), bm3d_images=0, jobs=1))


def results(table: pd.DataFrame) -> list[str]:
    """The tables that stand in every card."""
    means = denoising.summary(table)
    means = means[means["metric"] == "PSNR"]
    data = list(dict.fromkeys(means["dataset"]))
    lines = []
    for sigma, part in means.groupby("sigma", sort=False):
        lines += [f"| PSNR at σ = {sigma:g}, dB | " + " | ".join(data) + " |", "|---|" + "---|" * len(data)]
        for method, rows in part.groupby("method", sort=False):
            cells = [f"{r['mean']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in rows.to_dict(orient="records")]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def card(name: str, table: pd.DataFrame) -> str:
    notes = load_model(SHIPPED / f"{name}.safetensors")[1]
    loss = notes["train"]["episodes"]["loss"]
    lines = [
        f"# {TITLES[name]}",
        "",
        "Made by `python scripts/build_denoisers.py`.",
        "",
        f"- Data: the training classes of the embedded packs; of {PHOTOGRAPHS}: {', '.join(BUNDLED[PHOTOGRAPHS][0])};",
        f"  of {TEXTURES}: {', '.join(BUNDLED[TEXTURES][0])}, all as scikit-image ships them. Unseen classes",
        f"  and the photographs {', '.join((*BUNDLED[PHOTOGRAPHS][1], *BUNDLED[TEXTURES][1]))} take no part.",
        "- Noise: Gaussian on pixels in [0, 1], σ drawn from 15 to 85 of 255 for each episode; one model for all σ,",
        "  which it is not told.",
        f"- Meta-training: {notes['steps']} steps, {loss} loss, {notes['seconds']:.0f} seconds on {device_name()}",
        "  (one core, shared with other work); one seed.",
        "",
        f"Results of commit {git_commit()}: {table['image'].nunique()} images a source, mean [95 % interval over",
        "images] of this one run of meta-training; a far swap takes another source's sketch, a near swap other",
        "classes' one.",
        "",
    ]
    return "\n".join([*lines, *results(table)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", choices=list(CONFIGS), help="only this one")
    parser.add_argument("--cards", action="store_true", help="no training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in [] if arguments.cards else [arguments.train] if arguments.train else CONFIGS:
        train(name)
    if not arguments.train:
        table = measure()
        for name in (n for n in CONFIGS if n in shipped_models()):
            atomic_write(SHIPPED / f"{name}.md", card(name, table))


if __name__ == "__main__":
    main()
