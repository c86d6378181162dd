"""Meta-train the denoisers that ship with the kit, and write their cards.

    python scripts/build_denoisers.py                   # resumes where it was cut off; about 20 minutes on a quiet core
    python scripts/build_denoisers.py --train denoiser  # meta-train one of them only
    python scripts/build_denoisers.py --cards           # write the cards anew, from notebook 08's committed results

Meta-training sees the training classes of the embedded packs and photographs that come with scikit-image and
scikit-learn; the classes and photographs of the tables take no part.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from pudnet_lib.denoise.episodes import NoisyEpisodeConfig
from pudnet_lib.denoise.train import BUNDLED, DENOISER_META, PHOTOGRAPHS, TEXTURES, DenoiserTrainConfig, train_denoiser
from pudnet_lib.files import write_atomically
from pudnet_lib.shipped import load_shipped

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "pudnet_lib" / "shipped"
TITLES = {
    "denoiser": "Denoiser: predicts a U-Net of width 12 from noisy images; meta-trained with clean images",
    "denoiser_shared": "Shared U-Net, the control of `denoiser`: same episodes, loss and steps, no hypernetwork",
    "denoiser_blind": "Denoiser with the paper's Noise2Void meta-training: no clean image was used",
    "denoiser_blind_shared": "Shared U-Net, the control of `denoiser_blind`: same episodes, loss and steps",
}
CONFIGS: dict[str, DenoiserTrainConfig] = {}
# The base takes the first half of the steps; the shared U-Net, the control, gets as many steps as both parts together.
for name, loss, steps in (("denoiser", "supervised", 2250), ("denoiser_blind", "blind_spot", 1000)):
    CONFIGS[name] = DenoiserTrainConfig(
        episodes=NoisyEpisodeConfig(loss=loss), meta=replace(DENOISER_META, steps=steps), base_steps=steps
    )
    control = replace(DENOISER_META, steps=2 * steps, direct_learning_rate=5e-3)
    CONFIGS[f"{name}_shared"] = replace(CONFIGS[name], method="shared", meta=control, base_steps=0)


def train(name: str) -> None:
    outcome = train_denoiser(CONFIGS[name], ROOT / "runs" / "denoisers" / name, progress=False)
    assert outcome.model_path is not None
    print(f"{name}: {outcome.steps} steps, {outcome.seconds:.0f} s", flush=True)
    shutil.copyfile(outcome.model_path, SHIPPED / f"{name}.safetensors")


def table() -> list[str]:
    """PSNR of each source and method, as notebook 08 measured them last."""
    result = json.loads((ROOT / "reports" / "results" / "denoising.laptop.json").read_text())
    rows = [row for row in result["rows"] if row["metric"] == "PSNR" and row.get("sigma")]
    data, lines = list(dict.fromkeys(row["dataset"] for row in rows)), []
    for sigma in dict.fromkeys(row["sigma"] for row in rows):
        lines += [f"| PSNR at σ = {sigma:g}, dB | " + " | ".join(data) + " |", "|---|" + "---|" * len(data)]
        part = [row for row in rows if row["sigma"] == sigma]
        for method in dict.fromkeys(row["method"] for row in part):
            own = {
                r["dataset"]: f"{r['mean']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
                for r in part
                if r["method"] == method
            }
            lines.append(f"| {method} | " + " | ".join(own.get(d, "") for d in data) + " |")
        lines.append("")
    return lines


def card(name: str) -> str:
    notes = load_shipped(name).notes
    lines = [
        f"# {TITLES[name]}",
        "",
        "Made by `python scripts/build_denoisers.py`.",
        "",
        f"- Data: the training classes of the embedded packs; of {PHOTOGRAPHS}: {', '.join(BUNDLED[PHOTOGRAPHS][0])};",
        f"  of {TEXTURES}: {', '.join(BUNDLED[TEXTURES][0])}, all as scikit-image ships them, at full and half size.",
        f"  Unseen classes and the photographs {', '.join((*BUNDLED[PHOTOGRAPHS][1], *BUNDLED[TEXTURES][1]))} take no",
        "  part.",
        "- Noise: Gaussian on pixels in [0, 1], σ drawn from 15 to 85 of 255 for each episode; one model for all σ,",
        "  which it is not told.",
        f"- Meta-training: {notes['steps']} steps, {notes['train']['episodes']['loss']} loss, {notes['seconds']:.0f}",
        "  seconds on one core shared with other work; one seed.",
        "",
        "Results of notebook 08, laptop profile: mean [95 % interval over images] of this one run of meta-training; a",
        "far swap takes another source's sketch, a near swap other classes' one.",
        "",
    ]
    return "\n".join([*lines, *table()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", choices=list(CONFIGS), help="only this one")
    parser.add_argument("--cards", action="store_true", help="no training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in [] if arguments.cards else [arguments.train] if arguments.train else CONFIGS:
        train(name)
    for name in [] if arguments.train else CONFIGS:
        write_atomically(SHIPPED / f"{name}.md", card(name).encode())


if __name__ == "__main__":
    main()
